/* For processors with AVX2 and FMA. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define BYTES 32
#define ROWS 6
#define COLUMNS 2
#define NAME(f) pixelcnn_##f##_avx2
#include "processor.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
