#include "kernels.h"
#if defined(__x86_64__)
#pragma GCC target("avx2,fma,f16c,bmi2")
#define TFDLRM_ISA avx2
#define TFDLRM_VECTOR_BYTES 32
#include "kernels.inc"
#endif
