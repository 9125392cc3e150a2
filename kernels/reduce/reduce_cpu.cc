// Eq. 4-6 and 9 on the CPU: one pass in vectors, then the histogram of the bins it wrote.
#include <algorithm>

#include "reduce/reduce.h"

namespace umbra::UMBRA_ISA {
namespace {

constexpr int kBlock = 1024;  // pixels summed in float before they go to double

struct BlockSums {
  float power, peak;
  int above, non_finite;
};

template <bool kSquare>
BlockSums reduce_block(const float* bg, const float* fg, int count, float threshold, float alpha, uint8_t* bins,
                       uint8_t* map) {
  float power = 0, peak = 0;
  int above = 0, non_finite = 0;
#pragma omp simd reduction(+ : power, above, non_finite) reduction(max : peak)
  for (int i = 0; i < count; ++i) {
    const float s = unseen_value(bg[i], fg[i]);
    const float doubt = (bg[i] - bg[i]) + (fg[i] - fg[i]);  // 0 for finite logits, NaN otherwise
    non_finite += doubt == 0.0f ? 0 : 1;
    above += s > threshold ? 1 : 0;
    power += kSquare ? s * s : power_of(s, alpha);
    peak = s > peak ? s : peak;
    bins[i] = static_cast<uint8_t>(bin_of(s));
    map[i] = static_cast<uint8_t>(s * 255.0f + 0.5f);
  }
  return {power, peak, above, non_finite};
}

// Four tables in turn: equal neighbours (most of a map is 0) do not wait for each other.
void count_bins(const uint8_t* bins, int64_t count, uint32_t* histogram) {
  uint32_t tables[4][kBins] = {};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (int k = 0; k < 4; ++k) ++tables[k][bins[i + k]];
  for (; i < count; ++i) ++tables[0][bins[i]];
  for (int b = 0; b < kBins; ++b) histogram[b] = tables[0][b] + tables[1][b] + tables[2][b] + tables[3][b];
}

}  // namespace

ReduceResult reduce(const float* logit_bg, const float* logit_fg, int64_t count, const ReduceParams& params,
                    ReduceScratch& scratch, uint8_t* map) {
  if (scratch.bins.size() < static_cast<size_t>(count)) scratch.bins.resize(count);
  ReduceResult result;
  const auto block = params.alpha == 2.0f ? reduce_block<true> : reduce_block<false>;
  for (int64_t start = 0; start < count; start += kBlock) {
    const int n = static_cast<int>(std::min<int64_t>(kBlock, count - start));
    const BlockSums sums = block(logit_bg + start, logit_fg + start, n, params.threshold, params.alpha,
                                 scratch.bins.data() + start, map + start);
    result.m_alpha += sums.power;
    result.m_thresh += sums.above;
    result.non_finite += sums.non_finite;
    result.peak = std::max(result.peak, sums.peak);
  }
  count_bins(scratch.bins.data(), count, result.histogram);
  return result;
}

}  // namespace umbra::UMBRA_ISA
