/* Decoding pixels: what pixelcnn.codec.frequencies and the range decoder of constriction do, to the last bit.
 *
 * So every operation on doubles must round as it does in NumPy. A compiler must not fuse a product and a sum that are
 * rounded separately there, which is why contraction is off in this file. (Sums of masses are whole numbers below 2^53,
 * and so exact in any order.)
 *
 * An outcome is found from 24 bits of the stream by bisection, so masses are computed at only a few of the many edges.
 */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

enum { TOTAL = 1 << 24, MEAN_STEPS = 1 << 14, TANH_STEPS = 1 << 14, WEIGHT_STEPS = 1 << 20 };
enum { EXP_REACH = 16 * STEPS, LOGISTIC_STEPS = 1 << 6, LOGISTIC_REACH = 24 * LOGISTIC_STEPS };
#define DOUBLES ((int64_t)(BYTES / sizeof(double)))

struct stream { /* one that is being read: pixelcnn.codec.stream.Reader */
    const uint32_t *words;
    int64_t number, at; /* of words, and of those that were read, some of them zeros beyond the end */
    uint64_t lower, range, point;
};

struct decode { /* pixelcnn.codec.decoder.CompiledDecoder */
    struct stream *const *streams; /* of each image */
    const struct filling *filling;
    const double *offset;                                    /* of means: (batch, channels, height, width), or NULL */
    const double *weight, *precision, *tanh, *logistic;      /* pixelcnn.nn.tables */
    const double *log_scales;                                /* the lowest and the highest */
    char *scratch;
    int64_t room;                                            /* bytes of scratch for a pixel */
    int64_t batch, components, levels, width;                /* no components: a table of all levels */
};

struct pixel {
    int64_t row, col;
    const double *params;
    int64_t value, end;  /* the levels that are left */
    int64_t known;       /* whether these are known: */
    double masses[2];    /* below the first of them, and below the end */
    double numbers[];    /* weights, means and precisions of components; or masses below all levels */
};

INLINE double clamped(double x, double high) { return x > 0 ? x < high ? x : high : 0; } /* also if x is no number */

/* Look up a number in a table whose first entry is for -reach, the next for -reach + 1, and so on. */
INLINE double look_up(const double *table, double x, double reach, double last) {
    return table[(int32_t)clamped(rint(x) + reach, last)];
}

INLINE double sum_of(doubles x) {
    double sum = 0;
    for (int i = 0; i < DOUBLES; i++) sum += x[i];
    return sum;
}

/* How many numbers there are for components, of which the last few may be nothing but zeros. */
INLINE int64_t padded_components(const struct decode *d) { return (d->components + DOUBLES - 1) / DOUBLES * DOUBLES; }

/* The masses of some components below a position, in steps of the table. Positions may be infinite. */
INLINE doubles components_below(const struct decode *d, double position, const double *mean, const double *precision) {
    const double *table = d->logistic;
    doubles below, above;
    doubles z = (position - *(const loose_doubles *)mean) * *(const loose_doubles *)precision;
    z = between(z + LOGISTIC_REACH, 0, 2 * LOGISTIC_REACH);
    indices index = __builtin_convertvector(z, indices);
    z -= __builtin_convertvector(index, doubles);
    for (int i = 0; i < DOUBLES; i++) below[i] = table[index[i]], above[i] = table[index[i] + 1];
    z *= above - below;
    z += below;
    return z + WHOLE - WHOLE; /* rounded to a whole number, which is at most 2^32 */
}

INLINE double position_of(const struct decode *d, int64_t edge) {
    if (edge <= 0) return -INFINITY; /* the lowest and the highest level get the tails */
    return edge >= d->levels ? INFINITY : (double)(2 * edge - d->levels);
}

static double mass_below(const struct decode *d, const struct pixel *p, int64_t edge) {
    const double *weights = p->numbers, *means = weights + padded_components(d);
    const double *precisions = means + padded_components(d);
    double position = position_of(d, edge);
    doubles sum = {0};
    if (!d->components) return p->numbers[edge];
    for (int64_t k = 0; k < d->components; k += DOUBLES)
        sum += components_below(d, position, means + k, precisions + k) * *(const loose_doubles *)(weights + k);
    return sum_of(sum);
}

/* Scale weights so that they add up to WEIGHT_STEPS, apart from rounding. */
INLINE void normalize(const struct decode *d, const double *from, double sum, double *to) {
    for (int64_t k = 0; k < d->components; k++) to[k] = rint(from[k] / sum * WEIGHT_STEPS);
}

/* Find the weights of components or levels, before anything is known of the pixel. */
static void start_pixel(const struct decode *d, struct pixel *p) {
    int64_t n = d->components ? d->components : d->levels;
    double largest = -INFINITY, sum = 0, *out = p->numbers;
    for (int64_t k = 0; k < n; k++) largest = p->params[k] > largest ? p->params[k] : largest;
    if (d->components) memset(out, 0, 3 * padded_components(d) * sizeof(double));
    for (int64_t k = 0; k < n; k++) {
        double weight = look_up(d->weight, STEPS * (p->params[k] - largest), EXP_REACH, EXP_REACH);
        out[k] = d->components ? weight : sum;
        sum += weight;
    }
    if (d->components) normalize(d, out, sum, out);
    else out[n] = sum;
}

/* Find the means and precisions of a channel of a pixel, given the values of the channels before it. */
static void start_channel(const struct decode *d, struct pixel *p, int64_t image, int64_t channel,
                          const int64_t *values) {
    const struct filling *f = d->filling;
    int64_t n = d->components, kinds = f->channels == 3 ? 3 : 2, first = channel * (channel - 1) / 2;
    int64_t at = ((image * f->channels + channel) * f->height + p->row) * f->width + p->col;
    const double *means = p->params + n + channel * kinds * n, *log_scales = means + n;
    double *mean = p->numbers + padded_components(d), *precision = mean + padded_components(d);
    double offset = d->offset ? d->offset[at] : 0, scale = d->levels - 1;
    for (int64_t k = 0; k < n; k++) mean[k] = (means[k] + offset) * scale;
    for (int64_t earlier = 0; earlier < channel; earlier++) {
        const double *coefficients = p->params + n + ((first + earlier) * kinds + 2) * n;
        double position = 2 * values[earlier] - (d->levels - 1);
        for (int64_t k = 0; k < n; k++) {
            double tanh = look_up(d->tanh, STEPS * coefficients[k], GATE_REACH, 2 * GATE_REACH) / TANH_STEPS;
            mean[k] += tanh * position;
        }
    }
    for (int64_t k = 0; k < n; k++) mean[k] = rint(mean[k] * MEAN_STEPS) / MEAN_STEPS;
    for (int64_t k = 0; k < n; k++) {
        double log_scale = log_scales[k] > d->log_scales[0] ? log_scales[k] : d->log_scales[0];
        log_scale = log_scale < d->log_scales[1] ? log_scale : d->log_scales[1];
        precision[k] = look_up(d->precision, -STEPS * log_scale, EXP_REACH, 2 * EXP_REACH) / scale * LOGISTIC_STEPS;
    }
}

/* Go on to the next channel, given the value of this one: weigh each component by how likely it made that. */
static void observe(const struct decode *d, struct pixel *p) {
    double *weights = p->numbers, *means = weights + padded_components(d);
    const double *precisions = means + padded_components(d);
    double lower = position_of(d, p->value), upper = position_of(d, p->value + 1);
    doubles sum = {0};
    for (int64_t k = 0; k < d->components; k += DOUBLES) {
        doubles seen = components_below(d, upper, means + k, precisions + k);
        seen -= components_below(d, lower, means + k, precisions + k);
        seen *= *(const loose_doubles *)(weights + k);
        *(loose_doubles *)(means + k) = seen; /* which the next channel overwrites */
        sum += seen;
    }
    double total = sum_of(sum);
    if (total > 0) normalize(d, means, total, weights);
}

/* Take an outcome off a stream. */
INLINE void take(struct stream *s, int64_t below, int64_t frequency) {
    uint64_t scale = s->range / TOTAL;
    s->lower += scale * below;
    s->range = scale * frequency;
    if (s->range >> 32) return;
    s->lower <<= 32, s->range <<= 32;
    s->point = s->point << 32 | (s->at < s->number ? s->words[s->at] : 0);
    s->at++;
}

/* Read which of `width` parts, of so many levels each, a pixel is in. Returns whether the stream is damaged. */
static int read_step(const struct decode *d, struct stream *s, struct pixel *p, int64_t step) {
    int64_t low = 0, high = d->width, below = 0, above = TOTAL, value = p->value, end = p->end;
    uint64_t scale = s->range / TOTAL, quantile = scale ? (s->point - s->lower) / scale : TOTAL;
    if (quantile >= TOTAL) return 1;
    if (!p->known) p->masses[0] = mass_below(d, p, value), p->masses[1] = mass_below(d, p, end);
    double first = p->masses[0], total = p->masses[1] - first;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2, edge = value + middle * step;
        double mass = p->masses[1], share = 1;
        if (edge < end && total == 0) mass = first, share = (double)(edge - value) / (double)(end - value);
        else if (edge < end) mass = mass_below(d, p, edge), share = (mass - first) / total;
        int64_t sum = middle + (int64_t)(clamped(share, 1) * (double)(TOTAL - d->width));
        if (sum <= (int64_t)quantile) low = middle, below = sum, p->masses[0] = mass;
        else high = middle, above = sum, p->masses[1] = mass;
    }
    take(s, below, above - below);
    p->known = 1;
    p->value = value + low * step;
    p->end = value + high * step < end ? value + high * step : end;
    return p->value >= end;
}

/* Find the values (batch, channels, number) of the pixels of a group, given parameters (number, batch, ...).
 * Returns the first image whose stream is damaged, or -1. */
EXPORT int64_t NAME(decode)(const struct decode *d, const double *params, int64_t number, const int64_t *rows,
                            const int64_t *cols, int64_t *values) {
    const struct filling *f = d->filling;
    int64_t outputs = d->components ? d->components * (1 + (f->channels == 3 ? 3 : 2) * f->channels) : d->levels;
    for (int64_t image = 0; image < d->batch; image++)
        for (int64_t channel = 0; channel < f->channels; channel++) {
            int64_t *out = values + (image * f->channels + channel) * number, drawn[3];
            for (int64_t n = 0; n < number; n++) {
                struct pixel *p = (struct pixel *)(d->scratch + n * d->room);
                int64_t lowest, highest, levels = d->levels;
                p->row = within(rows[n], f->height), p->col = within(cols[n], f->width), p->known = 0;
                p->params = params + (n * d->batch + image) * outputs;
                for (int64_t c = 0; c < channel; c++) drawn[c] = out[(c - channel) * number + n];
                if (channel == 0) start_pixel(d, p);
                else observe(d, p);
                if (d->components) start_channel(d, p, image, channel, drawn);
                find_bounds(f, image, channel, p->row, p->col, drawn, &lowest, &highest);
                p->value = lowest < 0 ? 0 : lowest < levels ? lowest : levels - 1;
                p->end = highest < levels ? highest + 1 : levels;
            }
            for (int64_t step = d->width; step; step = step > 1) /* a bucket, then a level of it */
                for (int64_t n = 0; n < number; n++) {
                    struct pixel *p = (struct pixel *)(d->scratch + n * d->room);
                    if (p->end - p->value > step && read_step(d, d->streams[image], p, step)) return image;
                    out[n] = p->value;
                }
            for (int64_t n = 0; n < number && channel == f->channels - 1; n++) {
                for (int64_t c = 0; c < f->channels; c++) drawn[c] = values[(image * f->channels + c) * number + n];
                fill_pixel(f, image, within(rows[n], f->height), within(cols[n], f->width), drawn);
            }
        }
    return -1;
}

#undef DOUBLES
#if defined(__clang__)
#pragma STDC FP_CONTRACT DEFAULT
#else
#pragma GCC pop_options
#endif
