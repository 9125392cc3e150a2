// Eq. 4-6 and 9 on a GPU: two maps of logits a frame -> S, its metrics, its histogram and the map to show, in one pass.
#include "gpu.cuh"
#include "reduce/reduce_gpu.cuh"

namespace umbra {
namespace {

constexpr int kThreads = 256;
constexpr int kQuads = kImagePixels / 4;  // a thread takes four neighbouring pixels at a time

}  // namespace

extern "C" {

__global__ void __launch_bounds__(kThreads) reduce_clear(GpuReduced* reduced) {
  auto* words = reinterpret_cast<uint32_t*>(reduced + blockIdx.x);
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(GpuReduced) / 4); i += kThreads) words[i] = 0;
}

// logits: f32[frames][2][kImagePixels], background then labeled object; map: u8[frames][kImagePixels], S times 255.
// blockIdx.y: the frame; its pixels are shared among the blocks of x.
__global__ void __launch_bounds__(kThreads)
    reduce_maps(const float* logits, ReduceParams params, GpuReduced* reduced, uint8_t* map) {
  __shared__ uint32_t histogram[kBins];
  const int n = blockIdx.y;
  const auto* background = reinterpret_cast<const float4*>(logits + int64_t(n) * 2 * kImagePixels);
  const auto* object = background + kQuads;
  auto* shown = reinterpret_cast<uchar4*>(map + int64_t(n) * kImagePixels);
  for (int b = threadIdx.x; b < kBins; b += kThreads) histogram[b] = 0;
  __syncthreads();
  RunCounter runs;  // most of a map is 0
  unsigned long long power = 0;
  uint32_t above = 0, non_finite = 0, not_zero = 0;
  float peak = 0;
  for (int q = blockIdx.x * kThreads + threadIdx.x; q < kQuads; q += gridDim.x * kThreads) {
    const float4 bg = __ldg(background + q), fg = __ldg(object + q);
    const float logit_bg[4] = {bg.x, bg.y, bg.z, bg.w}, logit_fg[4] = {fg.x, fg.y, fg.z, fg.w};
    uint8_t show[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float s = unseen_value(logit_bg[k], logit_fg[k]);
      const float doubt = (logit_bg[k] - logit_bg[k]) + (logit_fg[k] - logit_fg[k]);  // 0 for finite logits, else NaN
      non_finite += doubt == 0.0f ? 0 : 1;
      not_zero |= logit_bg[k] != 0.0f || logit_fg[k] != 0.0f ? 1 : 0;
      above += s > params.threshold ? 1 : 0;
      const float powered = params.alpha == 2.0f ? s * s : power_of(s, params.alpha);
      power += static_cast<unsigned long long>(powered * kPowerScale);
      peak = s > peak ? s : peak;
      runs.add(histogram, static_cast<uint32_t>(bin_of(s)));
      show[k] = static_cast<uint8_t>(s * 255.0f + 0.5f);
    }
    shown[q] = make_uchar4(show[0], show[1], show[2], show[3]);
  }
  runs.flush(histogram);
  power = warp_sum(power), above = warp_sum(above), non_finite = warp_sum(non_finite), not_zero = warp_or(not_zero),
  peak = warp_max(peak);
  GpuReduced& out = reduced[n];
  if (lane() == 0) {
    if (power) atomicAdd(reinterpret_cast<unsigned long long*>(&out.power), power);
    if (above) atomicAdd(&out.above, above);
    if (not_zero) atomicOr(&out.not_zero, 1u);
    if (non_finite) atomicAdd(&out.non_finite, non_finite);
    if (peak > 0) atomicMax(&out.peak, __float_as_uint(peak));
  }
  __syncthreads();
  for (int b = threadIdx.x; b < kBins; b += kThreads)
    if (histogram[b]) atomicAdd(out.histogram + b, histogram[b]);
}

}  // extern "C"
}  // namespace umbra
