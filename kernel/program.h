/* The layout in memory of a program, which pixelcnn.traversal.compiled writes: every member has eight bytes. */
#ifndef PIXELCNN_PROGRAM_H
#define PIXELCNN_PROGRAM_H

#include <stdint.h>

enum { LAYOUT = 1 }; /* changes with the structures, here and in pixelcnn.common.kernel */
enum { SCALES = 8, TERMS = 32 };
enum { PRODUCT, ENLARGED, CONCAT_ELU, GATE, ELU, ADD };
enum { LINE, GROUP }; /* phases */
enum { CANVAS, ALONG, NOW };

/* Where a value is, or a part of it that a reader needs.
 *
 * CANVAS   on a canvas, whose slot 0 is at `data`
 * ALONG    in a buffer for lines: `pitch` pixels for each step along the line
 * NOW      in a buffer for the pixels of a group */
struct place_of_value {
    char *data;
    int64_t kind, scale, features, pitch;
    int64_t shift;   /* of what is read, in slots of the canvas from the pixel itself */
    int64_t stride;  /* slots between what two neighbors along a line read */
    int64_t columns; /* that are read */
};

struct value {
    int64_t function, phase, scale, features;
    int64_t ahead; /* the index in `aheads` of how many columns it is computed ahead */
    int64_t terms; /* reads besides the base of a product */
    const struct place_of_value *reads;
    struct place_of_value out;
    const void *weights[2][2]; /* of a product the first; else for even and odd rows, and columns */
    const void *bias;          /* NULL where the base of a product is the last of its reads */
    int64_t first[2];          /* of an ENLARGED: the shift of what even and odd columns read */
};

struct program {
    const struct value *values;
    int64_t number;
    const struct place_of_value *canvases; /* all of them, that of the image first */
    int64_t number_of_canvases;
    const int64_t *groups; /* in a wavefront: the first row, the end, and the first column, at times 0, 1, 2, ... */
    const int64_t *aheads; /* all that there are */
    int64_t most_ahead;
    int64_t lag; /* 0 in raster order */
    int64_t width, batch, scales;
    const double *elu, *sigmoid; /* tables of exact arithmetic (see pixelcnn.nn.tables) */
    int64_t rows[SCALES];        /* slots from a row to the next, at each scale */
    int64_t numbers[SCALES];     /* pixels along a line */
    int64_t top, base;           /* of the window that the canvases hold */
};

#endif
