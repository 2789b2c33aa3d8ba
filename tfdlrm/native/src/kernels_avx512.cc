#include "kernels.h"
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")
#define TFDLRM_ISA avx512
#define TFDLRM_VECTOR_BYTES 64
#include "kernels.inc"
#endif
