// Which instruction set runs: asked of the processor once.
#include "isa.h"

#include <cstring>

namespace umbra {

#define UMBRA_DECLARE(isa)                                                                                 \
  namespace isa {                                                                                          \
  void unpack_row(const uint8_t*, Layout, int, uint16_t*);                                                 \
  StretchStats stretch(const FrameView&, const StretchParams&, StretchScratch&, float*);                   \
  ReduceResult reduce(const float*, const float*, int64_t, const ReduceParams&, ReduceScratch&, uint8_t*); \
  }                                                                                                        \
  static const KernelTable table_##isa{#isa, isa::unpack_row, isa::stretch, isa::reduce};

UMBRA_DECLARE(baseline)
#ifdef UMBRA_HAS_avx2
UMBRA_DECLARE(avx2)
#endif
#ifdef UMBRA_HAS_avx512
UMBRA_DECLARE(avx512)
#endif
#undef UMBRA_DECLARE

const KernelTable* kernels_named(const char* name) {
#ifdef UMBRA_HAS_avx512
  if (!std::strcmp(name, "avx512")) return __builtin_cpu_supports("x86-64-v4") ? &table_avx512 : nullptr;
#endif
#ifdef UMBRA_HAS_avx2
  if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("x86-64-v3") ? &table_avx2 : nullptr;
#endif
  return std::strcmp(name, "baseline") ? nullptr : &table_baseline;
}

const KernelTable& best_kernels() {
  static const KernelTable* const best = [] {
    for (const char* name : {"avx512", "avx2"})
      if (const KernelTable* table = kernels_named(name)) return table;
    return &table_baseline;
  }();
  return *best;
}

}  // namespace umbra
