// Eq. 8's clipped area mean on a GPU: a block an output row, a thread eight columns.
#pragma once
#include "gpu.cuh"
#include "stretch/stretch_gpu.cuh"

namespace umbra {
namespace {

constexpr int kAreaThreads = 256;
constexpr int kAreaColumns = 8 * kAreaThreads;

__device__ __forceinline__ uint32_t clip_pair(uint32_t v, uint32_t lowest, uint32_t highest) {
  return __vmaxu2(__vminu2(v, highest), lowest) - lowest;  // no half borrows: each is at least its lowest
}

// Sums of clip(x) - lowest over the rows of output row i, in 1/224 of a row, for columns c .. c+7.
template <Layout layout>
__device__ __forceinline__ void sum_rows(const GpuFrame& f, const Bounds& bounds, int i, int c, uint32_t (&sums)[8]) {
  const int first = static_cast<int>(int64_t(i) * f.height / kImageSide);
  const int last = static_cast<int>((int64_t(i + 1) * f.height - 1) / kImageSide);
  const int fit = rows_that_fit(bounds);
  const uint32_t lowest[2] = {pair_of(bounds.lowest[0], bounds.lowest[1]), pair_of(bounds.lowest[2], bounds.lowest[3])};
  const uint32_t highest[2] = {pair_of(bounds.highest[0], bounds.highest[1]),
                               pair_of(bounds.highest[2], bounds.highest[3])};
  const auto add_weighted = [&](const uint32_t (&pairs)[4], uint32_t weight) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      sums[2 * k] += weight * (pairs[k] & 0xffff), sums[2 * k + 1] += weight * (pairs[k] >> 16);
  };
  const auto clipped = [&](int r, Eight& x) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      x.pairs[k] = clip_pair(x.pairs[k], r % 2 ? lowest[1] : lowest[0], r % 2 ? highest[1] : highest[0]);
  };
  constexpr int kAhead = 4;  // rows asked for before the first of them is needed
  uint32_t held[4] = {};
  int rows_held = 0;
  int r = first + 1;
  Eight edges[2];
  edges[0] = load_eight<layout>(row_of(f, first), c);
  edges[1] = load_eight<layout>(row_of(f, last), c);
  for (; r < last; r += kAhead) {
    Eight x[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (r + u < last) x[u] = load_eight<layout>(row_of(f, r + u), c);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (r + u >= last) break;
      if (rows_held == fit) {
        add_weighted(held, kImageSide);
#pragma unroll
        for (int k = 0; k < 4; ++k) held[k] = 0;
        rows_held = 0;
      }
      clipped(r + u, x[u]);
#pragma unroll
      for (int k = 0; k < 4; ++k) held[k] += x[u].pairs[k];
      ++rows_held;
    }
  }
  add_weighted(held, kImageSide);
  clipped(first, edges[0]);
  add_weighted(edges[0].pairs, static_cast<uint32_t>(overlap(i, first, f.height)));
  if (last != first) {
    clipped(last, edges[1]);
    add_weighted(edges[1].pairs, static_cast<uint32_t>(overlap(i, last, f.height)));
  }
}

template <Layout layout>
__device__ void area_row(const GpuFrame& f, const FrameState& state, int i, uint32_t* sums, double* means) {
  const Bounds bounds = state.bounds;
  const int j = static_cast<int>(threadIdx.x);
  const int64_t first = int64_t(j) * f.width / kImageSide, last = (int64_t(j + 1) * f.width - 1) / kImageSide;
  uint64_t total = 0;
  for (int c0 = 0; c0 < f.width; c0 += kAreaColumns) {
    const int c = c0 + 8 * static_cast<int>(threadIdx.x);
    uint32_t own[8] = {};
    if (c < f.width) sum_rows<layout>(f, bounds, i, c, own);
    uint4* out = reinterpret_cast<uint4*>(sums + 8 * threadIdx.x);
    out[0] = make_uint4(own[0], own[1], own[2], own[3]);
    out[1] = make_uint4(own[4], own[5], own[6], own[7]);
    __syncthreads();
    if (j < kImageSide) {
      const int64_t from = first > c0 ? first : c0, to = last < c0 + kAreaColumns - 1 ? last : c0 + kAreaColumns - 1;
      uint64_t inside = 0;
      for (int64_t column = from; column <= to; ++column) inside += sums[column - c0];
      total += inside * kImageSide;
      if (first >= from && first <= to)
        total -= sums[first - c0] * static_cast<uint64_t>(kImageSide - overlap(j, first, f.width));
      if (last != first && last >= from && last <= to)
        total -= sums[last - c0] * static_cast<uint64_t>(kImageSide - overlap(j, last, f.width));
    }
    __syncthreads();
  }
  if (j < kImageSide)
    means[i * kImageSide + j] = area_mean(static_cast<double>(total), even_weight(i, f.height), even_weight(j, f.width),
                                          state.noise, bounds, f.width, f.height);
}

}  // namespace
}  // namespace umbra
