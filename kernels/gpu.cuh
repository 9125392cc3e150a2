// Sums, extremes and searches over a warp or a block.
#pragma once
#include <cstdint>

namespace umbra {

constexpr unsigned kWarp = 32, kAll = 0xffffffffu;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % kWarp); }

template <typename T, typename Join>
__device__ __forceinline__ T warp_join(T v, Join join) {
#pragma unroll
  for (int offset = kWarp / 2; offset; offset /= 2) v = join(v, __shfl_xor_sync(kAll, v, offset));
  return v;
}

template <typename T>
__device__ __forceinline__ T warp_sum(T v) {
  return warp_join(v, [](T a, T b) { return a + b; });
}

template <typename T>
__device__ __forceinline__ T warp_max(T v) {
  return warp_join(v, [](T a, T b) { return a > b ? a : b; });
}

template <typename T>
__device__ __forceinline__ T warp_or(T v) {
  return warp_join(v, [](T a, T b) { return a | b; });
}

// Adds to a histogram; neighbours in the same bin are counted in a register first, so that a flat frame makes no storm.
struct RunCounter {
  uint32_t bin = 0, count = 0;

  __device__ __forceinline__ void add(uint32_t* histogram, uint32_t next) {
    if (next != bin) flush(histogram), bin = next;
    ++count;
  }

  __device__ __forceinline__ void flush(uint32_t* histogram) {
    if (count) atomicAdd(histogram + bin, count);
    count = 0;
  }
};

// The first bin up to which at least `wanted` samples lie.
struct Selected {
  int bin;
  uint32_t below, here;  // samples in the bins before it, and in it
};

// For a whole warp; every lane gets the answer. `wanted` is above 0 and at most the sum of all bins.
__device__ __forceinline__ Selected select_bin(const uint32_t* histogram, int bins, double wanted) {
  const int share = (bins + kWarp - 1) / kWarp, first = lane() * share,
            last = first + share < bins ? first + share : bins;
  uint32_t own = 0;
  for (int b = first; b < last; ++b) own += histogram[b];
  uint32_t upto = own;
#pragma unroll
  for (int offset = 1; offset < static_cast<int>(kWarp); offset *= 2) {
    const uint32_t before = __shfl_up_sync(kAll, upto, offset);
    if (lane() >= offset) upto += before;
  }
  const unsigned reached = __ballot_sync(kAll, upto >= wanted);
  const int holder = reached ? __ffs(static_cast<int>(reached)) - 1 : static_cast<int>(kWarp) - 1;
  Selected found{first, upto - own, 0};
  if (lane() == holder) {
    for (int b = first; b < last; ++b) {
      found.bin = b, found.here = histogram[b];
      if (found.below + found.here >= wanted) break;
      found.below += found.here;
    }
  }
  found.bin = __shfl_sync(kAll, found.bin, holder);
  found.below = __shfl_sync(kAll, found.below, holder);
  found.here = __shfl_sync(kAll, found.here, holder);
  return found;
}

// Shared by block_join; a block has at most 1024 threads.
template <typename T, typename Join>
__device__ T block_join(T v, T* scratch, Join join) {
  v = warp_join(v, join);
  const unsigned warps = blockDim.x / kWarp;
  __syncthreads();
  if (lane() == 0) scratch[threadIdx.x / kWarp] = v;
  __syncthreads();
  v = scratch[0];
  for (unsigned w = 1; w < warps; ++w) v = join(v, scratch[w]);
  return v;
}

}  // namespace umbra
