/* Everything, for the processor that the including file names. */
#include "cells.h"
#include "program.h"
#include "vector.h"

typedef uint16_t bf16; /* the upper half of a float */
typedef bf16 shorts __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
typedef double doubles __attribute__((vector_size(BYTES)));
typedef double loose_doubles __attribute__((vector_size(BYTES), aligned(8), may_alias));
typedef int64_t longs __attribute__((vector_size(BYTES)));
typedef int32_t indices __attribute__((vector_size(BYTES / 2)));

/* Floating point: the functions to within a few units in the last place. */
#define FLOATING(OF)                                                                                            \
    INLINE floats OF(elu)(const struct program *p, floats x, floats *down) {                                    \
        floats curve = expm1_of(-magnitude(x)); /* of the two, the other is the number itself */                \
        *down = choose(x > 0.0f, curve, -x);                                                                    \
        return choose(x > 0.0f, x, curve);                                                                      \
    }                                                                                                           \
    INLINE floats OF(gate)(const struct program *p, floats x, floats a, floats b) { return x + a * sigmoid_of(b); }
#define REAL float
#define VECTOR floats
#define LOOSE loose_floats

#define WEIGHT float
#define OF(f) NAME(f##_float)
FLOATING(OF)
INLINE floats OF(weights)(const float *from) { return load(from); }
#include "network.h"
#undef OF
#undef WEIGHT

#define WEIGHT bf16
#define OF(f) NAME(f##_bf16)
FLOATING(OF)
INLINE floats OF(weights)(const bf16 *from) {
    return (floats)(__builtin_convertvector(*(const shorts *)from, ints) << 16);
}
#include "network.h"
#undef OF
#undef WEIGHT
#undef REAL
#undef VECTOR
#undef LOOSE

/* Exact arithmetic: whole numbers, and functions from tables (see pixelcnn.nn.grid). */
enum { STEPS = 1 << 10, ELU_REACH = 8 * STEPS, GATE_REACH = 16 * STEPS };
#define LARGEST 4194304.0
#define WHOLE 6755399441055744.0 /* 1.5 * 2^52: adding and subtracting it rounds to whole numbers */
#define REAL double
#define WEIGHT double
#define VECTOR doubles
#define LOOSE loose_doubles
#define OF(f) NAME(f##_double)
INLINE doubles OF(weights)(const double *from) { return *(const loose_doubles *)from; }
INLINE doubles choose_double(longs where, doubles x, doubles y) {
    return (doubles)((where & (longs)x) | (~where & (longs)y));
}
INLINE doubles between(doubles x, double low, double high) { /* also if x is no number */
    doubles zero = {0}, lowest = zero + low, highest = zero + high;
    x = choose_double(x > lowest, x, lowest);
    return choose_double(x < highest, x, highest);
}
INLINE doubles rounded_between(doubles x, double low, double high) { return between(x, low, high) + WHOLE - WHOLE; }
INLINE doubles look_up_all(const double *table, doubles x) {
    indices index = __builtin_convertvector(x, indices);
    for (int i = 0; i < BYTES / 8; i++) x[i] = table[index[i]];
    return x;
}
INLINE doubles OF(elu)(const struct program *p, doubles x, doubles *down) {
    x = rounded_between(x, -LARGEST, LARGEST);
    doubles zero = {0}, positive = choose_double(x > zero, x, -x);
    doubles curve = look_up_all(p->elu, between(ELU_REACH - positive, 0, ELU_REACH)); /* of x or -x, the lesser */
    *down = choose_double(x > zero, curve, positive);
    return choose_double(x > zero, positive, curve);
}
INLINE doubles OF(gate)(const struct program *p, doubles x, doubles a, doubles b) {
    b = rounded_between(b, -GATE_REACH, GATE_REACH) + GATE_REACH;
    return rounded_between(x + rounded_between(a, -LARGEST, LARGEST) * look_up_all(p->sigmoid, b), -LARGEST, LARGEST);
}
#include "network.h"
#undef OF
#undef WEIGHT
#undef REAL
#undef VECTOR
#undef LOOSE

#include "decode.h"
#include "draw.h"
