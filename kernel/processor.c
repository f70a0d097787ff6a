#include "program.h"

__attribute__((visibility("default"))) int pixelcnn_layout(void) { return LAYOUT; }

/* Which of the other files are for this processor: 512, 256 (bits of a vector), or 0 for none. */
__attribute__((visibility("default"))) int pixelcnn_processor(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl")
               ? 512
               : 256;
#else
    return 0;
#endif
}
