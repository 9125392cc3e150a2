// The median of an image's means, by one block.
#pragma once
#include "gpu.cuh"
#include "stretch/stretch_gpu.cuh"

namespace umbra {
namespace {

constexpr int kFrameThreads = 512;  // of a kernel with one block a frame
constexpr int kBuckets = 4096;

__device__ __forceinline__ uint64_t ordered(double v) {
  const auto bits = static_cast<uint64_t>(__double_as_longlong(v));
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}
__device__ __forceinline__ double unordered(uint64_t key) {
  return __longlong_as_double(static_cast<long long>(key >> 63 ? key & ~(uint64_t(1) << 63) : ~key));
}

struct MedianScratch {
  uint32_t buckets[kBuckets];
  double extremes[kFrameThreads / kWarp];
  uint32_t selected;
  Selected bucket;
};

// Element of rank k (from 0) of n numbers, byte by byte from the top; `below`: the largest one under it, or -infinity,
// and how many are. By a block.
__device__ __forceinline__ double select_rank(const double* values, int n, uint32_t k, MedianScratch& s, uint32_t* less,
                                              double* below) {
  uint64_t prefix = 0;
  uint32_t skipped = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    __syncthreads();
    for (int b = threadIdx.x; b < kByte; b += blockDim.x) s.buckets[b] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
      const uint64_t key = ordered(values[i]);
      if (shift == 56 || key >> (shift + 8) == prefix) atomicAdd(s.buckets + (key >> shift & 255), 1u);
    }
    __syncthreads();
    const Selected found = select_bin(s.buckets, kByte, static_cast<double>(k - skipped) + 1.0);
    prefix = prefix << 8 | static_cast<uint64_t>(found.bin);
    skipped += found.below;
  }
  double own = -INFINITY;
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    if (ordered(values[i]) < prefix && values[i] > own) own = values[i];
  *below = block_join(own, s.extremes, [](double a, double b) { return a > b ? a : b; });
  *less = skipped;
  return unordered(prefix);
}

// Median of the means (mean of the two middle ones): buckets first, so that only a few are searched. By a block.
__device__ __forceinline__ double median_of(const double* means, double* selection, MedianScratch& s) {
  constexpr uint32_t kMiddle = kImagePixels / 2;
  double low = INFINITY, high = -INFINITY;
  for (int i = threadIdx.x; i < kImagePixels; i += kFrameThreads) {
    const double m = means[i];
    low = m < low ? m : low, high = m > high ? m : high;
  }
  low = block_join(low, s.extremes, [](double a, double b) { return a < b ? a : b; });
  high = block_join(high, s.extremes, [](double a, double b) { return a > b ? a : b; });
  const double width = high - low;
  if (!(width > 0)) return low;
  const double scale = (kBuckets - 1) / width;
  for (int b = threadIdx.x; b < kBuckets; b += kFrameThreads) s.buckets[b] = 0;
  if (threadIdx.x == 0) s.selected = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < kImagePixels; i += kFrameThreads)
    atomicAdd(s.buckets + static_cast<int>((means[i] - low) * scale), 1u);
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const Selected bucket = select_bin(s.buckets, kBuckets, kMiddle + 1.0);
    if (lane() == 0) s.bucket = bucket;
  }
  __syncthreads();
  const Selected bucket = s.bucket;
  double under = low;
  for (int i = threadIdx.x; i < kImagePixels; i += kFrameThreads) {
    const double m = means[i];
    const int b = static_cast<int>((m - low) * scale);
    if (b == bucket.bin)
      selection[atomicAdd(&s.selected, 1u)] = m;
    else if (b < bucket.bin && m > under)
      under = m;
  }
  under = block_join(under, s.extremes, [](double a, double b) { return a > b ? a : b; });
  const uint32_t rank = kMiddle - bucket.below;
  uint32_t less = 0;
  double below = 0;
  const double upper = select_rank(selection, static_cast<int>(bucket.here), rank, s, &less, &below);
  const double lower = rank == 0 ? under : less < rank ? upper : below;
  return 0.5 * (lower + upper);
}

}  // namespace
}  // namespace umbra
