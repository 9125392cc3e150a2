// Eq. 7-8 on a GPU, a batch of frames at a time, of any geometry each: no grid depends on it, so that one captured
// graph serves all. Sums are whole numbers: the image is the CPU's, bit by bit. Kernels in the order of their launch:
//   stretch_clear, stretch_count_high, stretch_count_low, stretch_bits, stretch_row_keys, stretch_lags,
//   stretch_compare_rows, stretch_area, stretch_tone. The frame is blockIdx.z, or blockIdx.x where a block takes a
//   frame.
#include "stretch/area_gpu.cuh"
#include "stretch/median_gpu.cuh"
#include "stretch/noise_gpu.cuh"
#include "stretch/repeats_gpu.cuh"

namespace umbra {
namespace {

constexpr int kSortInShared = 4096;

template <typename T>
__device__ __forceinline__ T* at(uint64_t address, int64_t i) {
  return reinterpret_cast<T*>(address) + i;
}

}  // namespace

extern "C" {

__global__ void __launch_bounds__(kAreaThreads, 4) stretch_clear(const GpuFrame* frames, StretchBuffers to) {
  const int n = blockIdx.z, step = gridDim.x * kAreaThreads, start = blockIdx.x * kAreaThreads + threadIdx.x;
  auto* counts = at<uint32_t>(to.counts, int64_t(n) * (sizeof(FrameCounts) / 4));
  for (int i = start; i < static_cast<int>(sizeof(FrameCounts) / 4); i += step) counts[i] = 0;
  auto* keys = at<uint64_t>(to.keys, 2 * int64_t(n) * to.side);
  auto* changes = at<uint32_t>(to.column_changes, int64_t(n) * to.side);
  for (int i = start; i < frames[n].width; i += step) keys[i] = 0, changes[i] = 0;
}

__global__ void __launch_bounds__(kStripThreads, 4) stretch_count_high(const GpuFrame* frames, StretchBuffers to) {
  __shared__ uint32_t high[kHighBins];
  const int n = blockIdx.z;
  const GpuFrame f = frames[n];
  if (!has_strips(f)) return;
  FrameCounts& counts = *at<FrameCounts>(to.counts, n);
  for (int b = threadIdx.x; b < kHighBins; b += kStripThreads) high[b] = 0;
  __syncthreads();
  count_high(f, counts, high, at<uint64_t>(to.keys, 2 * int64_t(n) * to.side),
             at<uint32_t>(to.column_changes, int64_t(n) * to.side));
  __syncthreads();
  for (int b = threadIdx.x; b < kHighBins; b += kStripThreads)
    if (high[b]) atomicAdd(counts.high + b, high[b]);
}

__global__ void __launch_bounds__(kStripThreads, 4) stretch_count_low(const GpuFrame* frames, StretchBuffers to) {
  __shared__ uint32_t low[kLowBins + 1];
  __shared__ HighParts parts;
  const int n = blockIdx.z;
  const GpuFrame f = frames[n];
  if (!has_strips(f)) return;
  FrameCounts& counts = *at<FrameCounts>(to.counts, n);
  for (int b = threadIdx.x; b <= kLowBins; b += kStripThreads) low[b] = 0;
  parts.find(f, counts);
  __syncthreads();
  count_low(f, counts, parts, low);
  __syncthreads();
  for (int b = threadIdx.x; b < kLowBins; b += kStripThreads)
    if (low[b]) atomicAdd(counts.low + b, low[b]);
}

__global__ void __launch_bounds__(kStripThreads, 4) stretch_bits(const GpuFrame* frames, StretchBuffers to) {
  __shared__ HighParts parts;
  __shared__ uint32_t lo[kPlanes], hi[kPlanes];
  const int n = blockIdx.z;
  const GpuFrame f = frames[n];
  if (!has_strips(f)) return;
  FrameCounts& counts = *at<FrameCounts>(to.counts, n);
  parts.find(f, counts);
  __syncthreads();
  for (int p = threadIdx.x / kWarp; p < kPlanes; p += kStripThreads / kWarp) {
    const int from = nearest_code(quantile(f, counts, parts, p, 0)),
              upto = nearest_code(quantile(f, counts, parts, p, 2));
    if (lane() == 0) lo[p] = from, hi[p] = upto;
  }
  __syncthreads();
  collect_bits(f, counts, lo, hi);
}

// A warp a row: the key of the samples at its middle.
__global__ void __launch_bounds__(kAreaThreads, 4) stretch_row_keys(const GpuFrame* frames, StretchBuffers to) {
  const int n = blockIdx.z, warps = gridDim.x * kAreaThreads / kWarp;
  const GpuFrame f = frames[n];
  auto* keys = at<uint64_t>(to.keys, (2 * int64_t(n) + 1) * to.side);
  const int size = f.width < kRepeatKey ? f.width : kRepeatKey;
  const int from = f.width / 2 - kRepeatKey / 2 > 0 ? f.width / 2 - kRepeatKey / 2 : 0;
  uint64_t power[kRepeatKey / kWarp];
#pragma unroll
  for (int u = 0; u < static_cast<int>(kRepeatKey / kWarp); ++u) {
    const int i = lane() + u * kWarp;
    power[u] = i < size ? key_power(size - 1 - i) : 0;
  }
  for (int r = (blockIdx.x * kAreaThreads + threadIdx.x) / kWarp; r < f.height; r += warps) {
    uint64_t key = 0;
#pragma unroll
    for (int u = 0; u < static_cast<int>(kRepeatKey / kWarp); ++u) {
      const int i = lane() + u * kWarp;
      if (i < size) key += key_step(0, sample_at(row_of(f, r), f.layout, from + i)) * power[u];
    }
    key = warp_sum(key);
    if (lane() == 0) keys[r] = key;
  }
}

// blockIdx.y 0: what the rows sampled tell, columns that recur among it; 1: the lag at which rows may recur.
__global__ void __launch_bounds__(kLineThreads, 1)
    stretch_lags(const GpuFrame* frames, StretchBuffers to, StretchSettings settings) {
  __shared__ uint64_t in_shared[kSortInShared];
  __shared__ HighParts parts;
  __shared__ unsigned long long best;
  __shared__ int first;
  const int n = blockIdx.z, axis = blockIdx.y;
  const GpuFrame f = frames[n];
  FrameState& state = *at<FrameState>(to.states, n);
  const int64_t line = 2 * int64_t(n) + axis;
  const auto* keys = at<uint64_t>(to.keys, line * to.side);
  const int lines = axis == 0 ? f.width : f.height;
  uint64_t* sorted = lines <= kSortInShared ? in_shared : at<uint64_t>(to.sorted, line * to.sort_side);
  const int lag = common_lag(keys, lines, sorted, at<uint32_t>(to.lag_counts, line * to.side), &best);
  if (axis == 1) {
    if (threadIdx.x == 0) state.row_lag = lag;
    return;
  }
  const FrameCounts& counts = *at<FrameCounts>(to.counts, n);
  parts.find(f, counts);
  __syncthreads();
  if (threadIdx.x < kWarp) finish(f, counts, parts, settings.params.k, state);
  if (!lag) return;
  const auto* changes = at<uint32_t>(to.column_changes, int64_t(n) * to.side);
  const int rows = SampledRows(f).count();
  const int run =
      first_run(f.width, lag, &first, [&](int c) { return keys[c] == keys[c + lag] && noisy(changes[c], rows); });
  if (threadIdx.x == 0 && run < f.width && state.stats.fault == StretchFault::none)
    state.stats.fault = StretchFault::repeated_columns, state.stats.where = run, state.stats.value = lag;
}

// Whether rows are the same, sample by sample, as the rows a lag on; only where their keys are.
__global__ void __launch_bounds__(kAreaThreads, 4) stretch_compare_rows(const GpuFrame* frames, StretchBuffers to) {
  __shared__ uint32_t scratch[kAreaThreads / kWarp];
  const int n = blockIdx.z;
  const GpuFrame f = frames[n];
  const FrameState& state = *at<FrameState>(to.states, n);
  const int lag = state.row_lag;
  if (!lag || state.stats.fault != StretchFault::none) return;
  const auto* keys = at<uint64_t>(to.keys, (2 * int64_t(n) + 1) * to.side);
  auto* recurs = at<uint8_t>(to.row_recurs, int64_t(n) * to.side);
  const auto sum = [](uint32_t a, uint32_t b) { return a + b; };
  for (int r = blockIdx.x; r + lag < f.height; r += gridDim.x) {
    uint32_t differs = 1, changes = 0;
    if (keys[r] == keys[r + lag]) {
      differs = 0;
      const uint8_t *row = row_of(f, r), *other = row_of(f, r + lag);
      for (int c = threadIdx.x; c < f.width; c += kAreaThreads) {
        const uint16_t v = sample_at(row, f.layout, c);
        differs |= v != sample_at(other, f.layout, c);
        if (c) changes += v != sample_at(row, f.layout, c - 1);
      }
      differs = block_join(differs, scratch, [](uint32_t a, uint32_t b) { return a | b; });
      changes = block_join(changes, scratch, sum);
    }
    if (threadIdx.x == 0) recurs[r] = !differs && noisy(changes, f.width);
  }
}

// blockIdx.x: the output row.
__global__ void __launch_bounds__(kAreaThreads, 3) stretch_area(const GpuFrame* frames, StretchBuffers to) {
  __shared__ __align__(16) uint32_t sums[kAreaColumns];
  const int n = blockIdx.z;
  const FrameState& state = *at<FrameState>(to.states, n);
  if (state.stats.fault != StretchFault::none) return;
  const GpuFrame f = frames[n];
  auto* means = at<double>(to.means, int64_t(n) * kImagePixels);
  with_layout(f.layout, [&](auto layout) { area_row<decltype(layout)::value>(f, state, blockIdx.x, sums, means); });
}

// images: f32[frames][kImagePixels], what the networks read; shown: u8, the same times 255; stats: what is told.
__global__ void __launch_bounds__(kFrameThreads, 2)
    stretch_tone(const GpuFrame* frames, StretchBuffers to, StretchSettings settings, float* images, uint8_t* shown,
                 StretchStats* stats) {
  __shared__ MedianScratch scratch;
  __shared__ int first;
  const int n = blockIdx.x;
  const GpuFrame f = frames[n];
  const FrameState& state = *at<FrameState>(to.states, n);
  StretchStats told = state.stats;
  if (told.fault == StretchFault::none && state.row_lag) {
    const auto* recurs = at<uint8_t>(to.row_recurs, int64_t(n) * to.side);
    const int run = first_run(f.height, state.row_lag, &first, [&](int r) { return recurs[r] != 0; });
    if (run < f.height) told.fault = StretchFault::repeated_rows, told.where = run, told.value = state.row_lag;
  }
  if (threadIdx.x == 0) stats[n] = told;
  float* image = images + int64_t(n) * kImagePixels;
  uint8_t* show = shown + int64_t(n) * kImagePixels;
  if (told.fault != StretchFault::none) {  // nobody looks at it; the networks get something finite
    for (int i = threadIdx.x; i < kImagePixels; i += kFrameThreads) image[i] = 0.5f, show[i] = 128;
    return;
  }
  const double* means = at<double>(to.means, int64_t(n) * kImagePixels);
  const double centre = median_of(means, at<double>(to.selection, int64_t(n) * kImagePixels), scratch);
  const double to_z = noise_scale(f.width, f.height, state.noise.sigma);
  for (int i = threadIdx.x; i < kImagePixels; i += kFrameThreads) {
    const float z = z_value(means[i], centre, to_z);
    const float v = tone_value(z, settings.params.tone, settings.params.tone_parameter, settings.scale);
    image[i] = v;
    show[i] = static_cast<uint8_t>(rintf(v * 255.0f));
  }
}

}  // extern "C"
}  // namespace umbra
