// Plain C++ for any processor, and the choice among what was compiled.
#include "kernels.h"
#define TFDLRM_ISA base
#define TFDLRM_VECTOR_BYTES 16
#include "kernels.inc"

#include <cstdlib>
#include <cstring>

namespace tfdlrm {
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {
const Kernels& choose() {
#if defined(__x86_64__)
  const char* wanted = std::getenv("TFDLRM_NATIVE_ISA");
  const bool base_only = wanted != nullptr && std::strcmp(wanted, "base") == 0;
  const bool no_avx512 = base_only || (wanted != nullptr && std::strcmp(wanted, "avx2") == 0);
  __builtin_cpu_init();
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (!no_avx512 && has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return avx512::table;
  }
  if (!base_only && has_avx2) return avx2::table;
#endif
  return base::table;
}
}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace tfdlrm
