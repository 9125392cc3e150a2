// Rows or columns that come again: their keys are sorted, and the commonest lag between equal ones is searched for a
// run.
#pragma once
#include "gpu.cuh"
#include "stretch/stretch_gpu.cuh"

namespace umbra {
namespace {

constexpr int kLineThreads = 512;
constexpr int kIndexBits = 15;  // of a row or column

// Sorts n (a power of two) numbers upwards, by a block.
__device__ void sort_up(uint64_t* a, int n) {
  for (int run = 2; run <= n; run *= 2)
    for (int reach = run / 2; reach; reach /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
        const int low = 2 * i - (i & (reach - 1)), high = low + reach;
        const uint64_t x = a[low], y = a[high];
        if ((x > y) == !(low & run)) a[low] = y, a[high] = x;
      }
    }
  __syncthreads();
}

// The lag at which keys recur most often, the smallest of several; 0 where none recurs kRepeatRun times. By a block.
__device__ __forceinline__ int common_lag(const uint64_t* keys, int n, uint64_t* sorted, uint32_t* lag_counts,
                                          unsigned long long* best) {
  int size = 2;
  while (size < n) size *= 2;
  // The key's upper bits, then the index: equal keys are neighbours, in order. That 49 bits of two keys agree by chance
  // moves no lag's count by kRepeatRun.
  for (int i = threadIdx.x; i < size; i += blockDim.x)
    sorted[i] = i < n ? keys[i] >> kIndexBits << kIndexBits | static_cast<uint64_t>(i) : ~uint64_t(0);
  for (int i = threadIdx.x; i < n; i += blockDim.x) lag_counts[i] = 0;
  if (threadIdx.x == 0) *best = 0;
  sort_up(sorted, size);
  constexpr int index_mask = (1 << kIndexBits) - 1;
  for (int i = 1 + threadIdx.x; i < n; i += blockDim.x) {
    const uint64_t here = sorted[i], before = sorted[i - 1];
    if (here >> kIndexBits == before >> kIndexBits)
      atomicAdd(lag_counts + (static_cast<int>(here & index_mask) - static_cast<int>(before & index_mask)), 1u);
  }
  __syncthreads();
  unsigned long long own = 0;
  for (int lag = 1 + threadIdx.x; lag < n; lag += blockDim.x) {
    const unsigned long long count = lag_counts[lag];
    const unsigned long long rank = count << 32 | static_cast<unsigned long long>(n - lag);
    if (count >= kRepeatRun && rank > own) own = rank;
  }
  own = warp_max(own);
  if (lane() == 0 && own) atomicMax(best, own);
  __syncthreads();
  return *best ? n - static_cast<int>(*best & 0xffffffffu) : 0;
}

// First of kRepeatRun neighbours that all recur at i + lag, or n. By a block; `first` is shared.
template <typename Recurs>
__device__ int first_run(int n, int lag, int* first, Recurs recurs) {
  if (threadIdx.x == 0) *first = n;
  __syncthreads();
  for (int i = threadIdx.x; i + lag + kRepeatRun <= n; i += blockDim.x) {
    bool all = true;
    for (int k = 0; all && k < kRepeatRun; ++k) all = recurs(i + k);
    if (all) atomicMin(first, i);
  }
  __syncthreads();
  return *first;
}

}  // namespace
}  // namespace umbra
