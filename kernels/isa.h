// The table of CPU kernels of one instruction set, and the choice among them at run time.
#pragma once
#include <cstdint>

#include "packing/packing.h"
#include "reduce/reduce.h"
#include "stretch/stretch.h"

namespace umbra {

struct KernelTable {
  const char* name;
  void (*unpack_row)(const uint8_t* packed, Layout layout, int width, uint16_t* samples);
  StretchStats (*stretch)(const FrameView& frame, const StretchParams& params, StretchScratch& scratch, float* image);
  ReduceResult (*reduce)(const float* logit_bg, const float* logit_fg, int64_t count, const ReduceParams& params,
                         ReduceScratch& scratch, uint8_t* map);
};

// The best table that this processor can run.
const KernelTable& best_kernels();
// The table of that name, or nullptr where this build or processor has none. For tests and benchmarks.
const KernelTable* kernels_named(const char* name);

}  // namespace umbra
