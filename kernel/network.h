/* Programs of networks (see pixelcnn.traversal.program), evaluated at the pixels of one step after another.
 *
 * This file is included once for each pair of types: REAL, of activations and sums, and WEIGHT. It needs
 *
 *     VECTOR, LOOSE          a vector of REAL, and one at any address
 *     OF(f)                  the name of f for these types
 *     OF(weights)(from)      a vector of weights, converted to REAL
 *     OF(elu)(p, x, &down)   of vectors: ELU of x, and of -x
 *     OF(gate)(p, x, a, b)   x + a sigmoid(b)
 *
 * A row of a matrix is a pixel. If whole vectors do not fill a row exactly, the last two
 * overlap: the last one ends with the row.
 */
#define REALS ((int64_t)(BYTES / sizeof(REAL)))

struct OF(rows) {     /* of a matrix */
    REAL *start;
    int64_t across;   /* from a pixel of a group to the next */
    int64_t along;    /* from a pixel along a line to the next */
};

struct OF(matrix) {   /* a product: out = base + sum of inputs times weights */
    struct OF(rows) out, base, inputs[TERMS];
    int64_t lengths[TERMS], terms, features;
    const WEIGHT *weights;
};

struct OF(extent) { int64_t number, from, to; }; /* pixels along each line, and which lines */

/* Where vector v of a row begins, and how many vectors there are. */
INLINE int64_t OF(column)(int64_t v, int64_t features) {
    int64_t last = features - REALS;
    return v * REALS < last || last < 0 ? v * REALS : last;
}
INLINE int64_t OF(vectors)(int64_t features) { return (features + REALS - 1) / REALS; }

/* How many of the vectors that are left make the next panel: panels are as equal as can be. */
INLINE int64_t OF(panel)(int64_t left) {
    int64_t panels = (left + COLUMNS - 1) / COLUMNS;
    return (left + panels - 1) / panels;
}

/* Sort weights (inputs, features) in the order in which products read them. */
EXPORT void OF(pack)(int64_t inputs, int64_t features, const WEIGHT *from, WEIGHT *to) {
    int64_t panel;
    for (int64_t v = 0; v < OF(vectors)(features); v += panel) {
        panel = OF(panel)(OF(vectors)(features) - v);
        for (int64_t i = 0; i < inputs; i++)
            for (int64_t u = v; u < v + panel; u++)
                for (int64_t lane = 0; lane < REALS; lane++) {
                    int64_t column = OF(column)(u, features) + lane;
                    *to++ = column < features ? from[i * features + column] : 0;
                }
    }
}
EXPORT int64_t OF(packed)(int64_t inputs, int64_t features) { return inputs * OF(vectors)(features) * REALS; }

INLINE VECTOR OF(get)(const REAL *from, int64_t features) {
    if (features >= REALS) return *(const LOOSE *)from;
    VECTOR x = {0};
    memcpy(&x, from, features * sizeof(REAL));
    return x;
}
INLINE void OF(put)(REAL *to, VECTOR x, int64_t features) {
    if (features >= REALS) *(LOOSE *)to = x;
    else memcpy(to, &x, features * sizeof(REAL));
}

/* Compute a panel of outputs for a few pixels. All sums stay in registers, so the two sizes must be constants. */
INLINE void OF(tile)(const struct OF(matrix) *m, int rows, int columns, const int64_t *offsets,
                     REAL *const pixels[TERMS + 2][ROWS], const WEIGHT *weights) {
    VECTOR sums[ROWS][COLUMNS];
    REAL *const *out = pixels[0], *const *base = pixels[1];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < columns; v++) sums[r][v] = OF(get)(base[r] + offsets[v], m->features);
    for (int64_t term = 0; term < m->terms; term++) {
        const REAL *inputs[ROWS];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) inputs[r] = pixels[term + 2][r];
        for (int64_t i = 0; i < m->lengths[term]; i++) {
            VECTOR weight[COLUMNS];
#pragma GCC unroll 4
            for (int v = 0; v < columns; v++) weight[v] = OF(weights)(weights + v * REALS);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                REAL x = inputs[r][i];
#pragma GCC unroll 4
                for (int v = 0; v < columns; v++) sums[r][v] += x * weight[v];
            }
            weights += columns * REALS;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < columns; v++) OF(put)(out[r] + offsets[v], sums[r][v], m->features);
}

#define TILES(rows)                                                                      \
    case rows:                                                                           \
        if (columns == 1) OF(tile)(m, rows, 1, offsets, pixels, weights);                \
        else if (columns == 2) OF(tile)(m, rows, 2, offsets, pixels, weights);           \
        else if (columns == 3) OF(tile)(m, rows, COLUMNS - 1, offsets, pixels, weights); \
        else OF(tile)(m, rows, COLUMNS, offsets, pixels, weights);                       \
        break;

static __attribute__((noinline)) void OF(any_tile)(const struct OF(matrix) *m, int rows, int64_t columns,
                                                   const int64_t *offsets, REAL *const pixels[TERMS + 2][ROWS],
                                                   const WEIGHT *weights) {
    switch (rows) { TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6) }
}

/* The weights of a panel are read once for every ROWS pixels, from a near cache but the first time. */
static void OF(multiply)(const struct OF(matrix) *m, struct OF(extent) extent) {
    int64_t width = extent.to - extent.from, number = extent.number * width, inputs = 0, panel;
    const WEIGHT *weights = m->weights;
    for (int64_t term = 0; term < m->terms; term++) inputs += m->lengths[term];
    for (int64_t v = 0; v < OF(vectors)(m->features); v += panel) {
        int64_t offsets[COLUMNS];
        panel = OF(panel)(OF(vectors)(m->features) - v);
        for (int64_t u = 0; u < panel; u++) offsets[u] = OF(column)(v + u, m->features);
        int64_t blocks = (number + ROWS - 1) / ROWS, step = 0, line = extent.from;
        for (int64_t block = 0, done = 0; block < blocks; block++) {
            int rows = (int)((number - done + blocks - block - 1) / (blocks - block));
            REAL *pixels[TERMS + 2][ROWS];
            for (int r = 0; r < rows; r++) {
                pixels[0][r] = m->out.start + line * m->out.across + step * m->out.along;
                pixels[1][r] = m->base.start + line * m->base.across + step * m->base.along;
                for (int64_t term = 0; term < m->terms; term++) {
                    const struct OF(rows) *input = &m->inputs[term];
                    pixels[term + 2][r] = input->start + line * input->across + step * input->along;
                }
                if (++line == extent.to) line = extent.from, step++;
            }
            OF(any_tile)(m, rows, panel, offsets, pixels, weights);
            done += rows;
        }
        weights += inputs * panel * REALS;
    }
}

/* Compute a product for an image of a height and a width: `along` leads down, and `across` to the right. The places
 * are those of the result, of what to add to, and of at most TERMS terms. */
EXPORT void OF(product)(const struct OF(rows) *places, const int64_t *lengths, int64_t terms, int64_t features,
                        const WEIGHT *weights, int64_t height, int64_t width) {
    struct OF(matrix) m = {places[0], places[1]};
    for (int64_t term = 0; term < terms; term++) m.inputs[term] = places[term + 2], m.lengths[term] = lengths[term];
    m.terms = terms, m.features = features, m.weights = weights;
    OF(multiply)(&m, (struct OF(extent)){height, 0, width});
}

struct OF(place) { /* of the pixels that are visited */
    int64_t row, col, count, first, step;
    int64_t offsets[SCALES]; /* of the first pixel on the canvases */
};

/* Where a value is, or what a reader needs of it, at the pixels of a place. `line`: whether these are lines. */
static struct OF(rows) OF(find)(const struct place_of_value *value, const struct OF(place) *place, int line,
                                int64_t scale) {
    REAL *data = (REAL *)value->data;
    int64_t features = value->features;
    struct OF(rows) rows = {data, features, value->pitch * features};
    if (value->kind == CANVAS) {
        rows.start += (place->offsets[value->scale] + value->shift) * features;
        rows.across = value->pitch * features;
        rows.along = value->stride * features;
    } else if (value->kind == ALONG && !line) {
        rows.start += ((place->step >> scale) * value->pitch + place->first) * features;
    }
    return rows;
}

static void OF(enlarge)(const struct value *value, const struct OF(place) *place, int line, struct OF(extent) extent) {
    int64_t scale = value->scale, odd_row = place->row >> scale & 1, odd_col = place->col >> scale & 1;
    for (int64_t odd = line ? 0 : odd_col; odd <= (line ? 1 : odd_col); odd++) {
        struct place_of_value small = value->reads[odd]; /* one for each kind of column */
        struct OF(extent) half = extent;
        struct OF(matrix) m = {OF(find)(&value->out, place, line, scale), {(REAL *)value->bias, 0, 0}};
        m.inputs[0] = OF(find)(&small, place, line, scale);
        m.lengths[0] = small.columns * small.features, m.terms = 1, m.features = value->features;
        m.weights = value->weights[odd_row][odd];
        if (line) {
            m.out.start += odd * m.out.along;
            m.out.along *= 2;
            half.number = (extent.number + 1 - odd) / 2;
        }
        OF(multiply)(&m, half);
    }
}

/* Apply a function to the n activations of a pixel. */
static void OF(apply)(const struct program *p, int64_t function, const REAL *x, const REAL *ab, REAL *out, int64_t n) {
    for (int64_t v = 0; v < OF(vectors)(n); v++) {
        int64_t at = OF(column)(v, n);
        VECTOR up = OF(get)(x + at, n), down;
        if (function == ADD) {
            up += OF(get)(ab + at, n);
        } else if (function == GATE) {
            up = OF(gate)(p, up, OF(get)(ab + at, n), OF(get)(ab + n + at, n));
        } else {
            up = OF(elu)(p, up, &down);
            if (function == CONCAT_ELU) OF(put)(out + n + at, down, n);
        }
        OF(put)(out + at, up, n);
    }
}

static void OF(evaluate)(const struct program *p, const struct value *value, const struct OF(place) *place, int line,
                         struct OF(extent) extent) {
    int64_t scale = value->scale, terms = value->terms;
    if (value->function == ENLARGED) {
        OF(enlarge)(value, place, line, extent);
        return;
    }
    struct OF(matrix) m = {OF(find)(&value->out, place, line, scale), {(REAL *)value->bias, 0, 0}};
    for (int64_t i = 0; i < terms; i++) {
        m.inputs[i] = OF(find)(&value->reads[i], place, line, scale);
        m.lengths[i] = value->reads[i].columns * value->reads[i].features;
    }
    m.terms = terms, m.features = value->features;
    if (value->function == PRODUCT) {
        if (!value->bias) m.base = OF(find)(&value->reads[terms], place, line, scale);
        m.weights = value->weights[0][0];
        OF(multiply)(&m, extent);
        return;
    }
    for (int64_t step = 0; step < extent.number; step++)
        for (int64_t i = extent.from; i < extent.to; i++) {
            REAL *out = m.out.start + i * m.out.across + step * m.out.along;
            const REAL *x = m.inputs[0].start + i * m.inputs[0].across + step * m.inputs[0].along;
            const REAL *ab = terms < 2 ? x : m.inputs[1].start + i * m.inputs[1].across + step * m.inputs[1].along;
            OF(apply)(p, value->function, x, ab, out, m.lengths[0]);
        }
}

static void OF(find_offsets)(const struct program *p, struct OF(place) *place) {
    int64_t row = place->row - p->top, col = place->col + p->top * p->lag - p->base;
    for (int64_t s = 0; s < p->scales; s++) place->offsets[s] = (row >> s) * p->rows[s] + (col >> s);
}

/* The lines of a place, of which all have the numbers from + place->row * batch and so on. */
INLINE struct OF(extent) OF(share)(const struct program *p, const struct OF(place) *place, int64_t from, int64_t to) {
    from -= place->row * p->batch, to -= place->row * p->batch;
    return (struct OF(extent)){1, from > 0 ? from : 0, to < place->count ? to : place->count};
}

/* Find the pixels, or the lines, at which a value is evaluated at a time, and which of them lie between two numbers. In
 * raster order, a time is the number of a pixel. */
INLINE struct OF(extent) OF(locate)(const struct program *p, const struct value *value, int64_t time, int64_t from,
                                    int64_t to, struct OF(place) *place) {
    struct OF(extent) extent;
    if (!p->lag) {
        int64_t row = time / p->width, col = time % p->width, between = ((int64_t)1 << value->scale) - 1;
        *place = (struct OF(place)){row, col, p->batch, 0, col};
        extent = (struct OF(extent)){1, from, row & between || col & between ? from : to < p->batch ? to : p->batch};
    } else {
        int64_t since = (time + p->most_ahead) % p->lag;
        const int64_t *group = p->groups + 3 * (time + p->aheads[value->ahead]), *start = group - 3 * since;
        *place = (struct OF(place)){group[0], group[2], (group[1] - group[0]) * p->batch};
        if (value->phase == LINE) place->count = (group[3 * (p->lag - 1) + 1] - group[0]) * p->batch;
        else place->first = (group[0] - start[0]) * p->batch, place->step = since;
        extent = OF(share)(p, place, from, to);
    }
    if (value->phase == LINE) extent.number = p->numbers[value->scale];
    OF(find_offsets)(p, place);
    return extent;
}

/* Evaluate the values of one phase at a time, for those pixels whose row * batch + image lies between `from` and `to`
 * (in raster order, image). They depend on earlier times only, so several threads can share a time. Lines are evaluated
 * at the first of `lag` times, or of a row. */
EXPORT void OF(visit)(const struct program *p, int64_t phase, int64_t time, int64_t from, int64_t to) {
    for (int64_t n = 0; n < p->number; n++) {
        struct OF(place) place;
        if (p->values[n].phase != phase) continue;
        struct OF(extent) extent = OF(locate)(p, &p->values[n], time, from, to, &place);
        if (extent.from < extent.to) OF(evaluate)(p, &p->values[n], &place, phase == LINE, extent);
    }
}

/* Set all canvases to zero at a pixel of all images. */
EXPORT void OF(clear)(const struct program *p, int64_t row, int64_t col) {
    struct OF(place) place = {row, col};
    OF(find_offsets)(p, &place);
    for (int64_t c = 0; c < p->number_of_canvases; c++) {
        struct OF(rows) rows = OF(find)(&p->canvases[c], &place, 0, 0);
        for (int64_t b = 0; b < p->batch; b++)
            memset(rows.start + b * rows.across, 0, p->canvases[c].features * sizeof(REAL));
    }
}

/* Copy pixels, to keep them when the window moves: `count` pixels of `columns` columns each. */
EXPORT void OF(move)(const struct program *p, int64_t canvas, int64_t from, int64_t to, int64_t count,
                     int64_t columns) {
    const struct place_of_value *c = &p->canvases[canvas];
    REAL *data = (REAL *)c->data;
    for (int64_t i = 0; i < count; i++, from += c->pitch, to += c->pitch)
        memmove(data + to * c->features, data + from * c->features, columns * c->features * sizeof(REAL));
}

/* Put what the window holds of a context (batch, features, rows, columns) after CONCAT_ELU on its canvas, which has
 * `kept` rows. The activations of a pixel are contiguous. */
EXPORT void OF(fill)(const struct program *p, int64_t canvas, int64_t kept, const REAL *context, const int64_t *sizes,
                     const int64_t *strides) {
    const struct place_of_value *c = &p->canvases[canvas];
    int64_t step = (int64_t)1 << c->scale, top = p->top / step;
    for (int64_t row = top; row < sizes[2] && row < top + kept; row++) {
        int64_t start = p->base - row * p->lag, end = start + c->pitch < sizes[3] ? start + c->pitch : sizes[3];
        start = start > 0 ? start : 0;
        struct OF(place) place = {row * step, start * step};
        OF(find_offsets)(p, &place);
        struct OF(rows) to = OF(find)(c, &place, 0, 0);
        for (int64_t b = 0; b < p->batch; b++)
            for (int64_t col = start; col < end; col++) {
                const REAL *from = context + b * strides[0] + row * strides[2] + col * strides[3];
                OF(apply)(p, CONCAT_ELU, from, from, to.start + b * to.across + (col - start) * to.along, c->features / 2);
            }
    }
}

/* Put the values of a group (batch, channels, number), scaled by a table, and a one, on the canvas of the image. */
EXPORT void OF(update)(const struct program *p, int64_t row, int64_t col, int64_t number, const int64_t *values,
                       const REAL *scaled, int64_t levels) {
    struct OF(place) place = {row, col};
    OF(find_offsets)(p, &place);
    struct OF(rows) rows = OF(find)(p->canvases, &place, 0, 0);
    int64_t channels = p->canvases->features - 1;
    for (int64_t i = 0; i < number; i++)
        for (int64_t b = 0; b < p->batch; b++) {
            REAL *out = rows.start + (i * p->batch + b) * rows.across;
            for (int64_t c = 0; c < channels; c++) {
                int64_t level = values[(b * channels + c) * number + i];
                out[c] = scaled[level < 0 ? 0 : level < levels ? level : levels - 1];
            }
            out[channels] = 1;
        }
}

/* Whether n numbers are all finite: zero times infinity is no number. */
static int OF(finite)(const REAL *x, int64_t n) {
    VECTOR sum = {0};
    REAL rest = 0;
    int64_t i = 0;
    for (; i + REALS <= n; i += REALS) sum += *(const LOOSE *)(x + i) * 0;
    for (; i < n; i++) rest += x[i] * 0;
    for (int64_t lane = 0; lane < REALS; lane++) rest += sum[lane];
    return rest == 0;
}

struct OF(filler) { /* pixelcnn.traversal.filler writes it: every member has eight bytes */
    int64_t (*fill)(const void *state, const REAL *params, int64_t number, const int64_t *rows, const int64_t *cols,
                    int64_t *values); /* returns a negative number, unless it fails */
    const void *state;
    const REAL *params; /* which the program computes, `outputs` of each pixel */
    int64_t outputs;
    char *image;
    int64_t size, strides[4]; /* of a value of the image, in bytes */
    const REAL *scaled;
    int64_t levels;
    int64_t *rows, *cols, *values;
};

/* Visit times one after another, and fill the pixels of each, for as long as no lines are needed. Returns the time at
 * which parameters are not finite or the fill failed, or the end. */
EXPORT int64_t OF(run)(const struct program *p, const struct OF(filler) *f, int64_t time, int64_t end) {
    for (; time < end; time++) {
        int64_t row = 0, col = time, number = 1, channels = p->canvases->features - 1;
        OF(visit)(p, GROUP, time, 0, INT64_MAX / 2);
        if (p->lag) row = p->groups[3 * time], number = p->groups[3 * time + 1] - row, col = p->groups[3 * time + 2];
        else row = time / p->width, col = time % p->width;
        if (number <= 0) continue;
        if (!OF(finite)(f->params, number * p->batch * f->outputs)) return time;
        for (int64_t i = 0; i < number; i++) f->rows[i] = row + i, f->cols[i] = col - i * p->lag;
        if (f->fill(f->state, f->params, number, f->rows, f->cols, f->values) >= 0) return time;
        for (int64_t n = 0; n < p->batch * channels; n++)
            for (int64_t i = 0; i < number; i++) {
                char *to = f->image + n / channels * f->strides[0] + n % channels * f->strides[1] +
                           f->rows[i] * f->strides[2] + f->cols[i] * f->strides[3];
                int64_t level = f->values[n * number + i];
                if (f->size == 1) *(uint8_t *)to = (uint8_t)level;
                else memcpy(to, &level, sizeof(level));
            }
        OF(update)(p, row, col, number, f->values, f->scaled, f->levels);
    }
    return end;
}

#undef TILES
#undef REALS
