// What the reduction of one frame's maps leaves in device memory.
#pragma once
#include <cstdint>

#include "reduce/reduce.h"

namespace umbra {

// All zero before the kernel.
struct GpuReduced {
  uint64_t power;  // sum of S^alpha in 2^-40: whole, so that it is the same on every run
  uint32_t above, non_finite;
  uint32_t peak;      // a float's bits
  uint32_t not_zero;  // whether any logit is other than 0: an engine that gives zeros only has failed
  uint32_t histogram[kBins];
};
static_assert(sizeof(GpuReduced) == 1048, "kernels/cuda.py has the same");

constexpr float kPowerScale = 1099511627776.0f;  // 2^40

}  // namespace umbra
