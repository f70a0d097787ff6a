/* Vectors of the processor at hand, and functions of their elements.
 *
 * Each source file that includes this one is compiled for one kind of processor, and defines
 *
 *     BYTES      the size of a vector
 *     NAME(f)    the name of f for this kind of processor
 *     COLUMNS    the vectors of a row of a tile, and ROWS, its rows: the sums of a tile stay in registers
 *
 * The vectors are those of GCC and Clang, on which + - * / and comparisons work element by element. There is no
 * intrinsic here, so the sources are the same for all processors.
 */
#ifndef PIXELCNN_VECTOR_H
#define PIXELCNN_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define LANES (BYTES / 4) /* floats in a vector */

typedef float floats __attribute__((vector_size(BYTES)));
typedef int32_t ints __attribute__((vector_size(BYTES)));
typedef float loose_floats __attribute__((vector_size(BYTES), aligned(4), may_alias));

INLINE floats load(const float *from) { return *(const loose_floats *)from; }
INLINE void store(float *to, floats x) { *(loose_floats *)to = x; }

/* Load or store only the first n elements. */
INLINE floats load_some(const float *from, int64_t n) {
    floats x = {0};
    memcpy(&x, from, n * sizeof(float));
    return x;
}
INLINE void store_some(float *to, floats x, int64_t n) { memcpy(to, &x, n * sizeof(float)); }

INLINE floats all(float x) { return x - (floats){0}; }
INLINE floats choose(ints where, floats x, floats y) { return (floats)((where & (ints)x) | (~where & (ints)y)); }
INLINE floats least(floats x, floats y) { return choose(x < y, x, y); }
INLINE floats most(floats x, floats y) { return choose(x > y, x, y); }
INLINE floats magnitude(floats x) { return (floats)((ints)x & 0x7fffffff); }

/* Adding and subtracting 1.5 * 2^23 rounds to whole numbers, halves to even. */
#define ROUNDER 12582912.0f

/* Split exp(x) into 2 h (1 + p), and return h. With n = round(x / log 2) and r = x - n log 2, h is 2^(n-1), since 2^128
 * is no float, and p is exp(r) - 1, a Taylor polynomial for |r| <= log(2) / 2. Log 2 has two parts, the first of which
 * is exact times n. Below -87, exp(x) counts as zero, and above 88.7, as infinity. */
INLINE floats half_power(floats x, floats *p) {
    floats kept = least(most(x, all(-87.3f)), all(88.8f));
    floats n = kept * 1.44269504f + ROUNDER - ROUNDER;
    floats r = kept - n * 0.693359375f + n * 2.12194440e-4f;
    floats sum = r * 1.98412698e-4f + 1.38888889e-3f;
    sum = sum * r + 8.33333333e-3f;
    sum = sum * r + 4.16666667e-2f;
    sum = sum * r + 1.66666667e-1f;
    sum = sum * r + 0.5f;
    *p = choose(x == x, sum * r * r + r, x);
    return (floats)((__builtin_convertvector(n, ints) + 126) << 23);
}
INLINE floats exp_of(floats x) {
    floats p, half = half_power(x, &p);
    return (half * p + half) * 2.0f;
}
INLINE floats expm1_of(floats x) {
    floats p, half = half_power(x, &p);
    return (half * p + (half - 0.5f)) * 2.0f;
}
INLINE floats sigmoid_of(floats x) {
    floats small = exp_of(-magnitude(x)); /* which never overflows */
    return choose(x < 0.0f, small, all(1.0f)) / (1.0f + small);
}

/* Odd, and exact to a few units in the last place near zero too. */
INLINE floats tanh_of(floats x) {
    floats small = expm1_of(magnitude(x) * -2.0f), size = -small / (2.0f + small);
    return choose(x < 0.0f, -size, size);
}

/* With x = 2^n m and m between the roots of 1/2 and 2, log(x) is n log(2) + log(m), and the latter a polynomial in
 * s = f / (2 + f) for f = m - 1, as in the C library of FreeBSD (and with its coefficients). Numbers below 2^-126 count
 * as roughly that. */
INLINE floats log_of(floats x) {
    ints bits = (ints)x, n = (bits - 0x3f3504f3) >> 23;
    floats f = (floats)(bits - (n << 23)) - 1.0f, count = __builtin_convertvector(n, floats);
    floats s = f / (2.0f + f), z = s * s, half_square = 0.5f * f * f;
    floats rest = ((z * 0.24279078841f + 0.28498786688f) * z + 0.40000972152f) * z + 0.66666662693f;
    floats log = s * (half_square + z * rest) + count * 9.0580006145e-06f - half_square + f + count * 6.9313812256e-01f;
    log = choose((x > 0.0f) & (x < INFINITY), log, x); /* infinity and NaN stay */
    return choose(x <= 0.0f, choose(x < 0.0f, all(NAN), all(-INFINITY)), log);
}

/* The logarithm of 1 + x, exact for tiny x: what the sum loses of x is added to the logarithm. Not for infinity. */
INLINE floats log1p_of(floats x) {
    floats sum = 1.0f + x, lost = x - (sum - 1.0f);
    return log_of(sum) + choose(sum > 0.0f, lost / sum, all(0.0f));
}
INLINE floats log_sigmoid_of(floats x) { return least(x, all(0.0f)) - log1p_of(exp_of(-magnitude(x))); }

/* The logarithm of exp(x) + exp(y). */
INLINE floats log_sum_of(floats x, floats y) {
    floats distance = magnitude(x - y);
    distance = choose(x == y, all(0.0f), distance); /* of infinities too */
    return most(x, y) + log1p_of(exp_of(-distance));
}

/* The greatest element. */
INLINE float greatest(floats x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
}

#endif
