/* The bounds of the next sub-pixels (pixelcnn.auxiliary.cells.Filling, which writes the structure). */
#ifndef PIXELCNN_CELLS_H
#define PIXELCNN_CELLS_H

#include <stdint.h>

struct filling {
    const int64_t *limits[2]; /* lowest and highest sum up to each sub-pixel: (batch, channels, height, width) */
    const int64_t *box[2];    /* lowest and highest value, likewise */
    int64_t *spent;           /* the sums so far: (batch, channels, rows and columns of cells) */
    int64_t channels, height, width, side, joint_channels, weights[3];
};

static inline int64_t within(int64_t x, int64_t size) { return x < 0 ? 0 : x < size ? x : size - 1; }

static inline int64_t floor_of_quotient(int64_t x, int64_t y) { return x / y - (x % y < 0); }

static inline int64_t *spent_in_cell(const struct filling *f, int64_t image, int64_t channel, int64_t row, int64_t col) {
    int64_t down = (f->height + f->side - 1) / f->side, across = (f->width + f->side - 1) / f->side;
    return f->spent + ((image * f->channels + channel) * down + row / f->side) * across + col / f->side;
}

/* Find the bounds of a channel of a pixel, given the values of the channels before it. */
static inline void find_bounds(const struct filling *f, int64_t image, int64_t channel, int64_t row, int64_t col,
                               const int64_t *values, int64_t *lowest, int64_t *highest) {
    int64_t at = ((image * f->channels + channel) * f->height + row) * f->width + col, weight = f->weights[channel];
    int64_t before = *spent_in_cell(f, image, channel, row, col);
    for (int64_t c = 0; f->joint_channels && c < channel; c++) before += f->weights[c] * values[c];
    int64_t low = -floor_of_quotient(before - f->limits[0][at], weight);
    int64_t high = floor_of_quotient(f->limits[1][at] - before, weight);
    *lowest = low > f->box[0][at] ? low : f->box[0][at];
    *highest = high < f->box[1][at] ? high : f->box[1][at];
}

/* Record the values of a pixel. */
static inline void fill_pixel(const struct filling *f, int64_t image, int64_t row, int64_t col, const int64_t *values) {
    int64_t sum = 0;
    if (f->side == 1) return; /* each cell lies within one pixel */
    for (int64_t c = 0; c < f->channels; c++) sum += f->weights[c] * values[c];
    for (int64_t c = 0; c < f->channels; c++)
        *spent_in_cell(f, image, c, row, col) += f->joint_channels ? sum : f->weights[c] * values[c];
}

#endif
