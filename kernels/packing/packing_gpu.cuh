// Eight neighbouring samples of a packed row by 16-byte loads, wherever the row begins.
#pragma once
#include <type_traits>

#include "packing/packing.h"

namespace umbra {

// One frame of a batch in device memory. `bytes` is a multiple of 16, and 32 bytes may be read beyond the last row.
struct GpuFrame {
  uint64_t bytes;
  int64_t stride;
  int32_t width, height;
  Layout layout;
  int32_t unused;
};
static_assert(sizeof(GpuFrame) == 32, "kernels/cuda.py has the same");

struct Eight {
  uint32_t pairs[4];  // x[0] | x[1] << 16, ..
};

// The `bytes` (at most 16) bytes at p as little-endian words; the others are whatever lies there.
template <int bytes>
__device__ __forceinline__ void load_window(const uint8_t* p, uint32_t (&w)[4]) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  const uint4* aligned = reinterpret_cast<const uint4*>(address & ~static_cast<uintptr_t>(15));
  const int skip = static_cast<int>(address & 15);
  const uint4 first = __ldg(aligned);
  const uint4 second = skip + bytes > 16 ? __ldg(aligned + 1) : first;
  uint32_t v[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
  if (skip) {
#pragma unroll
    for (int i = 0; i < 6; ++i) v[i] = skip & 8 ? v[i + 2] : v[i];
#pragma unroll
    for (int i = 0; i < 5; ++i) v[i] = skip & 4 ? v[i + 1] : v[i];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __funnelshift_r(v[i], v[i + 1], 8 * (skip & 3));
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) w[i] = v[i];
}

// Samples c .. c+7 of a row; c is a multiple of 8. Those beyond the row's end are anything.
template <Layout layout>
__device__ __forceinline__ Eight load_eight(const uint8_t* row, int c) {
  constexpr int bytes = layout == Layout::u8                                    ? 8
                        : layout == Layout::raw10 || layout == Layout::packed10 ? 10
                        : layout == Layout::raw12 || layout == Layout::packed12 ? 12
                        : layout == Layout::raw14 || layout == Layout::packed14 ? 14
                                                                                : 16;
  uint32_t w[4];
  load_window<bytes>(row + static_cast<int64_t>(c) / 8 * bytes, w);
  Eight samples;
  eight_samples<layout>(w, samples.pairs);
  return samples;
}

__device__ __forceinline__ const uint8_t* row_of(const GpuFrame& f, int r) {
  return reinterpret_cast<const uint8_t*>(f.bytes) + r * f.stride;
}

// Calls body with the frame's layout as a compile-time constant.
template <typename Body>
__device__ __forceinline__ void with_layout(Layout layout, Body body) {
  switch (layout) {
#define UMBRA_CASE(name) \
  case Layout::name:     \
    return body(std::integral_constant<Layout, Layout::name>{});
    UMBRA_CASE(u8)
    UMBRA_CASE(u16le)
    UMBRA_CASE(u16be)
    UMBRA_CASE(raw10)
    UMBRA_CASE(raw12)
    UMBRA_CASE(raw14)
    UMBRA_CASE(packed10)
    UMBRA_CASE(packed12)
    UMBRA_CASE(packed14)
#undef UMBRA_CASE
  }
}

// The same where the layout is known at run time only.
__device__ __forceinline__ Eight load_eight(Layout layout, const uint8_t* row, int c) {
  Eight samples{};
  with_layout(layout, [&](auto known) { samples = load_eight<decltype(known)::value>(row, c); });
  return samples;
}

}  // namespace umbra
