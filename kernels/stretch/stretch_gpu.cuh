// What the kernels of the stretch keep in device memory from one to the next, for each frame of a batch.
#pragma once
#include <cstdint>

#include "packing/packing_gpu.cuh"
#include "stretch/stretch.h"

namespace umbra {

constexpr int kPlanes = 4;
constexpr int kPlaneQuantiles = 3;       // kStuckLow, the median, kStuckHigh
constexpr int kDifferenceQuantiles = 2;  // kQuantileLow, kQuantileHigh
constexpr int kByte = 256;
constexpr int kDifferenceShift = 65535 + 128;  // so that small differences share one high byte
constexpr int kDifferenceHighs = (65535 + kDifferenceShift) / kByte + 1;
constexpr int kHighBins = kPlanes * kByte + kDifferenceHighs;
constexpr int kLowBins = (kPlanes * kPlaneQuantiles + kDifferenceQuantiles) * kByte;
static_assert(kDifferenceQuantiles <= kPlaneQuantiles);

// All zero before the first kernel.
struct FrameCounts {
  uint32_t high[kHighBins];  // of the codes' high bytes a plane, then of the differences' high parts
  uint32_t low[kLowBins];    // of the low bytes under the high byte of each quantile, alike
  uint32_t below_white;      // 65535 - the lowest code
  uint32_t highest;
  uint32_t at_lowest, at_highest;
  uint32_t any[kPlanes],
      lacking[kPlanes];  // or of the codes between a plane's outer quantiles, and of their complements
};

struct FrameState {
  Noise noise;
  Bounds bounds;
  StretchStats stats;
  int row_lag;
};

static_assert(sizeof(FrameCounts) == 20532 && sizeof(FrameState) == 136, "kernels/cuda.py has the same");

// Device addresses; `side` is the largest width or height that the buffers take.
struct StretchBuffers {
  uint64_t counts;          // FrameCounts[frames]
  uint64_t states;          // FrameState[frames]
  uint64_t keys;            // u64[frames][2][side]: of the columns, of the rows
  uint64_t sorted;          // u64[frames][2][sort_side]
  uint64_t lag_counts;      // u32[frames][2][side]
  uint64_t column_changes;  // u32[frames][side]
  uint64_t row_recurs;      // u8[frames][side]
  uint64_t means;           // f64[frames][kImagePixels]
  uint64_t selection;       // f64[frames][kImagePixels]
  int32_t side, sort_side;  // sort_side: the power of two from `side` up
};
static_assert(sizeof(StretchBuffers) == 80, "kernels/cuda.py has the same");

struct StretchSettings {
  StretchParams params;
  float scale;  // tone_scale(params)
};
static_assert(sizeof(StretchSettings) == 20, "kernels/cuda.py has the same");

}  // namespace umbra
