/* Draws of pixels: what the `sample` of pixelcnn.likelihoods.logistic.LogisticMixture computes, and, where there are no
 * components, that of pixelcnn.likelihoods.tabular.Categorical.
 *
 * A mixture of one pixel is computed with its components in the lanes of vectors. What follows once a component is
 * chosen is computed for a block of pixels at once, one in each lane.
 */
struct draw { /* written by pixelcnn.models.pixel_draw: every member has eight bytes */
    int64_t batch, channels, levels, components, parameters; /* the last: of a pixel */
    int64_t noises, height, width;
    const float *noise;           /* (batch, noises, height, width) */
    const float *offset;          /* of the means, (batch, channels, height, width); or NULL */
    const struct filling *bounds; /* NULL if all levels are possible */
    int64_t fill;                 /* whether to record the values there */
    int64_t map, wide;            /* whether to take modes; whether scales may be far above all levels together */
    const float *log_scales;      /* the least, the greatest, what is added to them, and that for scales in levels */
    float *scratch;               /* for 3 * LANES + 4 numbers of each component, in whole vectors */
};

struct block { /* of pixels */
    int64_t number, images[LANES], rows[LANES], cols[LANES], values[LANES][3];
    const float *params[LANES], *end; /* of all parameters */
    float means[3][LANES], log_scales[3][LANES], coefficients[3][LANES], noise[3][LANES]; /* of chosen components */
    float lower[LANES], upper[LANES];                                                     /* edges of the bounds */
};

struct edges { /* of a range of levels, infinite at the ends of all levels */
    float lower, upper, width;
};

/* Integers times a factor, minus one. Rounded twice, as torch does it, so that the edges between two levels that it
 * finds and ours are the same. */
INLINE float scaled(int64_t x, double factor) {
    float product = (float)((double)(float)x * (double)(float)factor);
    return product - 1.0f;
}
INLINE float scaled_level(const struct draw *d, int64_t level) { return scaled(level, 2.0 / (double)(d->levels - 1)); }

INLINE struct edges edges_of(const struct draw *d, int64_t lowest, int64_t highest) {
    double factor = 2.0 / (double)(2 * d->levels - 2);
    int first = lowest <= 0, last = highest >= d->levels - 1;
    float level = (float)(2.0 / (double)(d->levels - 1));
    return (struct edges){first ? -INFINITY : scaled(2 * lowest - 1, factor),
                          last ? INFINITY : scaled(2 * highest + 1, factor),
                          first || last ? INFINITY : level * (float)(highest - lowest + 1)};
}

/* The mass of a range of levels is what is returned times exp(exponent). No factor is a difference of nearly equal
 * numbers (see pixelcnn.likelihoods.levels), and only the exponent can be large. */
INLINE floats mass_of(struct edges edges, floats mean, floats precision, floats *exponent) {
    floats lower = (edges.lower - mean) * precision, upper = (edges.upper - mean) * precision;
    *exponent = least(upper, all(0.0f)) + least(-lower, all(0.0f));
    return -expm1_of(-edges.width * precision) /
           ((1.0f + exp_of(-magnitude(lower))) * (1.0f + exp_of(-magnitude(upper))));
}

/* Load a vector of components, from the k-th on. After the last of them is whatever comes next in memory. */
INLINE floats components(const struct draw *d, const struct block *block, const float *from, int64_t k) {
    int64_t left = d->components - k;
    return block->end - (from + k) >= LANES ? load(from + k) : load_some(from + k, left < LANES ? left : LANES);
}

/* The greatest of the components of this vector, from the k-th on, and of those seen before. */
INLINE floats most_of_components(const struct draw *d, floats before, floats x, int64_t k) {
    ints lanes;
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    int32_t left = (int32_t)(d->components - k < LANES ? d->components - k : LANES);
    return choose((lanes < left) & (x > before), x, before);
}

INLINE int64_t padded(int64_t components) { return (components + LANES - 1) / LANES * LANES; }

/* Find the first of some weights that, with those before it, is more than a share of all; the last takes the rest.
 * Doubles, so that a share next to 1 does not become all, which would choose the last one whatever its weight. */
INLINE int64_t choose_one(const float *weights, int64_t number, double *sums, double share) {
    double sum = 0;
    int64_t chosen = 0;
    for (int64_t k = 0; k < number; k++) sums[k] = sum += (double)weights[k];
    sum *= share;
    for (int64_t k = 0; k < number - 1; k++) chosen += sums[k] <= sum;
    return chosen;
}
INLINE int64_t choose_component(const struct draw *d, const float *weights, double share) {
    double *sums = (double *)(d->scratch + (3 * LANES + 2) * padded(d->components));
    return choose_one(weights, d->components, sums, share);
}

INLINE int64_t kinds(const struct draw *d) { return d->channels == 3 ? 3 : 2; }

/* The parameters of one kind (means, log-scales, coefficients) of a channel. */
INLINE const float *part(const struct draw *d, const struct block *block, int lane, int64_t channel, int64_t kind) {
    return block->params[lane] + (1 + channel * kinds(d) + kind) * d->components;
}
INLINE float noise_of(const struct draw *d, const struct block *block, int lane, int64_t n) {
    return d->noise[((block->images[lane] * d->noises + n) * d->height + block->rows[lane]) * d->width +
                    block->cols[lane]];
}
INLINE float offset_of(const struct draw *d, const struct block *block, int lane, int64_t channel) {
    return d->offset ? d->offset[((block->images[lane] * d->channels + channel) * d->height + block->rows[lane]) *
                                     d->width +
                                 block->cols[lane]]
                     : 0.0f;
}
INLINE floats limited(const struct draw *d, floats log_scale) {
    return most(least(log_scale, all(d->log_scales[1])), all(d->log_scales[0]));
}

/* Draw from a logistic between two edges, see draw_logistic and draw_wide_logistic of pixelcnn.likelihoods.levels. */
INLINE floats draw_logistic(floats lower, floats upper, floats noise) {
    floats u = log_of(most(noise, all(0x1p-25f))), v = log1p_of(-noise);
    return log_sum_of(v + log_sigmoid_of(lower), u + log_sigmoid_of(upper)) -
           log_sum_of(v + log_sigmoid_of(-lower), u + log_sigmoid_of(-upper));
}
INLINE floats draw_wide_logistic(floats lower, floats upper, floats noise) {
    floats width = upper - lower, share = noise * -expm1_of(-width);
    floats below = share * exp_of(log_sigmoid_of(upper) - lower);
    floats near = lower + log1p_of(below) - log1p_of(-share * sigmoid_of(upper));
    return choose(width < 1.0f, near, draw_logistic(lower, upper, noise));
}

/* Round to levels; NaN becomes the lowest one. Adding and subtracting 2^23 rounds as torch does, halves to even. */
INLINE floats levels_of(const struct draw *d, floats x) {
    floats last = all((float)(d->levels - 1)), kept = least(choose(x > 0.0f, x, all(0.0f)), last);
    return choose(kept < 0x1p23f, kept + 0x1p23f - 0x1p23f, kept);
}

/* Draw pixels when all levels are possible: all channels from one component. */
static void draw_freely(const struct draw *d, struct block *block) {
    floats values[3], half = all((float)((double)(d->levels - 1) / 2));
    for (int lane = 0; lane < block->number; lane++) {
        floats top = all(-INFINITY);
        for (int64_t k = 0; k < d->components; k += LANES)
            top = most_of_components(d, top, components(d, block, block->params[lane], k), k);
        top = all(greatest(top));
        for (int64_t k = 0; k < d->components; k += LANES)
            store(d->scratch + k, exp_of(components(d, block, block->params[lane], k) - top));
        int64_t chosen = choose_component(d, d->scratch, noise_of(d, block, lane, 0));
        for (int64_t c = 0; c < d->channels; c++) {
            block->means[c][lane] = part(d, block, lane, c, 0)[chosen] + offset_of(d, block, lane, c);
            block->log_scales[c][lane] = part(d, block, lane, c, 1)[chosen];
            if (d->channels == 3) block->coefficients[c][lane] = part(d, block, lane, c, 2)[chosen];
            block->noise[c][lane] = noise_of(d, block, lane, 1 + c);
        }
    }
    for (int64_t c = 0; c < d->channels; c++) { /* from here on, in levels from the middle one */
        values[c] = load(block->means[c]) * half;
        if (!d->map) {
            floats noise = most(load(block->noise[c]), all(0x1p-25f));
            floats scale = exp_of(limited(d, load(block->log_scales[c])) + d->log_scales[3]);
            values[c] += scale * log_of(noise / (1.0f - noise));
        }
        for (int64_t before = 0; before < c; before++)
            values[c] += tanh_of(load(block->coefficients[c * (c - 1) / 2 + before])) * values[before];
        floats levels = levels_of(d, values[c] + half);
        values[c] = levels - half;
        ints whole = __builtin_convertvector(levels, ints);
        for (int lane = 0; lane < block->number; lane++) block->values[lane][c] = whole[lane];
    }
}

/* Choose a component for a channel of a pixel whose earlier channels are drawn. Its weight is its share of the mass of
 * these channels times its own mass between the bounds. */
static void choose_between(const struct draw *d, struct block *block, int lane, int64_t channel, struct edges edges) {
    int64_t size = padded(d->components);
    float *seen = d->scratch + 3 * size * lane, *means = seen + size, *precisions = means + size;
    float *weights = d->scratch + 3 * size * LANES, *shares = weights + size;
    const int64_t *values = block->values[lane];
    struct edges drawn = channel ? edges_of(d, values[channel - 1], values[channel - 1]) : edges;
    float offset = offset_of(d, block, lane, channel), scaled_values[2] = {0};
    for (int64_t c = 0; c < channel; c++) scaled_values[c] = scaled_level(d, values[c]);
    floats top = all(-INFINITY), exponent;
    for (int64_t k = 0; k < d->components; k += LANES) {
        floats before = components(d, block, block->params[lane], k);
        if (channel) {
            floats share = mass_of(drawn, load(means + k), load(precisions + k), &exponent);
            before = load(seen + k) + (exponent + log_of(share));
        }
        floats mean = components(d, block, part(d, block, lane, channel, 0), k) + offset;
        for (int64_t c = 0; c < channel; c++) {
            const float *coefficients = part(d, block, lane, channel * (channel - 1) / 2 + c, 2);
            mean += tanh_of(components(d, block, coefficients, k)) * scaled_values[c];
        }
        floats log_scale = limited(d, components(d, block, part(d, block, lane, channel, 1), k)) + d->log_scales[2];
        floats precision = exp_of(-most(least(log_scale, all(60.0f)), all(-60.0f)));
        store(seen + k, before), store(means + k, mean), store(precisions + k, precision);
        store(shares + k, mass_of(edges, mean, precision, &exponent));
        store(weights + k, before + exponent);
        top = most_of_components(d, top, before + exponent, k);
    }
    top = all(greatest(top) - 60.0f); /* shares can be as small as exp(-70), and products must not vanish */
    for (int64_t k = 0; k < d->components; k += LANES)
        store(weights + k, exp_of(load(weights + k) - top) * load(shares + k));
    int64_t chosen = choose_component(d, weights, noise_of(d, block, lane, channel ? d->channels + channel : 0));
    block->means[channel][lane] = means[chosen];
    block->log_scales[channel][lane] = part(d, block, lane, channel, 1)[chosen];
    block->noise[channel][lane] = noise_of(d, block, lane, 1 + channel);
    block->lower[lane] = (edges.lower - means[chosen]) * precisions[chosen];
    block->upper[lane] = (edges.upper - means[chosen]) * precisions[chosen];
}

/* Draw pixels between bounds: channel by channel, each from a component of its own. */
static void draw_between(const struct draw *d, struct block *block) {
    int64_t lowest[LANES], highest[LANES];
    floats half = all((float)((double)(d->levels - 1) / 2));
    for (int64_t c = 0; c < d->channels; c++) {
        for (int lane = 0; lane < block->number; lane++) {
            find_bounds(d->bounds, block->images[lane], c, block->rows[lane], block->cols[lane], block->values[lane],
                        &lowest[lane], &highest[lane]);
            choose_between(d, block, lane, c, edges_of(d, lowest[lane], highest[lane]));
        }
        floats value = load(block->means[c]);
        if (!d->map) {
            floats lower = load(block->lower), upper = load(block->upper), noise = load(block->noise[c]);
            floats scale = exp_of(limited(d, load(block->log_scales[c])) + d->log_scales[2]);
            value += scale * (d->wide ? draw_wide_logistic(lower, upper, noise) : draw_logistic(lower, upper, noise));
        }
        ints whole = __builtin_convertvector(levels_of(d, value * half + half), ints);
        for (int lane = 0; lane < block->number; lane++) {
            int64_t level = whole[lane] > lowest[lane] ? whole[lane] : lowest[lane];
            block->values[lane][c] = level < highest[lane] ? level : highest[lane];
        }
    }
}

/* Draw pixels from tables of all levels, between bounds if there are any. */
static void draw_from_tables(const struct draw *d, struct block *block) {
    double *sums = (double *)(d->scratch + padded(d->levels));
    for (int lane = 0; lane < block->number; lane++) {
        int64_t lowest = 0, highest = d->levels - 1;
        if (d->bounds)
            find_bounds(d->bounds, block->images[lane], 0, block->rows[lane], block->cols[lane], block->values[lane],
                        &lowest, &highest);
        lowest = within(lowest, d->levels), highest = within(highest, d->levels);
        int64_t number = highest < lowest ? 1 : highest - lowest + 1;
        const float *logits = block->params[lane] + lowest;
        float top = logits[0];
        for (int64_t k = 1; k < number; k++) top = logits[k] > top ? logits[k] : top;
        for (int64_t k = 0; k < number; k += LANES)
            store(d->scratch + k, exp_of(load_some(logits + k, number - k < LANES ? number - k : LANES) - top));
        block->values[lane][0] = lowest + choose_one(d->scratch, number, sums, noise_of(d, block, lane, 0));
    }
}

/* Draw the pixels of a group at these rows and columns: params (number, batch, parameters) to values (batch, channels,
 * number). Returns -1, since nothing can fail. */
EXPORT int64_t NAME(draw)(const struct draw *d, const float *params, int64_t number, const int64_t *rows,
                          const int64_t *cols, int64_t *values) {
    int64_t every = number * d->batch;
    struct block block = {.end = params + every * d->parameters};
    for (int64_t first = 0; first < every; first += LANES) {
        block.number = every - first < LANES ? every - first : LANES;
        for (int lane = 0; lane < block.number; lane++) {
            int64_t i = (first + lane) / d->batch;
            block.images[lane] = first + lane - i * d->batch;
            block.rows[lane] = within(rows[i], d->height), block.cols[lane] = within(cols[i], d->width);
            block.params[lane] = params + (first + lane) * d->parameters;
        }
        if (!d->components) draw_from_tables(d, &block);
        else if (d->bounds) draw_between(d, &block);
        else draw_freely(d, &block);
        for (int lane = 0; lane < block.number; lane++) {
            int64_t image = block.images[lane], *drawn = block.values[lane];
            for (int64_t c = 0; c < d->channels; c++)
                values[(image * d->channels + c) * number + (first + lane) / d->batch] = drawn[c];
            if (d->bounds && d->fill) fill_pixel(d->bounds, image, block.rows[lane], block.cols[lane], drawn);
        }
    }
    return -1;
}
