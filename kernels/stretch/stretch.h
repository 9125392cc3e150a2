// Eq. 7-8: the frame's own noise, the clipped area mean and the tone. Arithmetic shared with CUDA.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "packing/packing.h"

namespace umbra {

constexpr int kImageSide = 224;
constexpr int kImagePixels = kImageSide * kImageSide;
constexpr int kMaxSide = 32768;             // keeps every sum below within 64 bits
constexpr int64_t kNoiseSamples = 1 << 18;  // samples that the histograms take, rows evenly spread
constexpr double kQuantileLow = 0.1587, kQuantileHigh = 0.8413;
constexpr double kSigmaFloor = 0.28867513459481287;  // 1/sqrt 12: the noise of rounding
constexpr double kClippedShare = 0.5;

enum class Tone : int { linear = 0, asinh = 1, midtones = 2 };

struct StretchParams {
  float k = 6.0f;         // clip at +-ceil(k sigma) DN
  float z_range = 64.0f;  // Z
  Tone tone = Tone::asinh;
  float tone_parameter = 2.0f;  // asinh: the z where it turns from linear to log; midtones: m
};

constexpr double kStuckLow = 0.01, kStuckHigh = 0.99;  // codes between these quantiles are searched for stuck bits
constexpr int kRepeatKey = 64;     // samples at the middle of a row by which rows are compared first
constexpr int kRepeatRun = 16;     // rows (columns) in a row that must recur
constexpr int kRepeatChange = 16;  // one sample in 16 must differ from the one before it

enum class StretchFault : int {
  none = 0,
  constant = 1,
  clipped_low = 2,
  clipped_high = 3,
  stuck_bit = 4,
  repeated_rows = 5,
  repeated_columns = 6
};

struct StretchStats {
  double median = 0, sigma = 0;  // DN
  int minimum = 0, maximum = 0;  // DN, of the rows sampled
  double share_minimum = 0, share_maximum = 0;
  StretchFault fault = StretchFault::none;
  int where = 0, value = 0;  // stuck_bit: the bit, and 0 or 1; repeated: the first row (column), and the lag
};

// Buffers reused from frame to frame, so that a frame of a known width allocates nothing.
struct StretchScratch {
  std::vector<uint32_t> planes = std::vector<uint32_t>(4 * 65536);        // histograms, one a CFA plane
  std::vector<uint32_t> differences = std::vector<uint32_t>(2 * 131072);  // of x[c+2] - x[c], even and odd c
  std::vector<uint16_t> row, other_row, sums16, column_changes;
  std::vector<uint32_t> sums32;
  std::vector<uint64_t> row_keys, column_keys;
  std::vector<int> last_with_key, lags;
  std::vector<double> means = std::vector<double>(kImagePixels);
  std::vector<double> selection = std::vector<double>(kImagePixels);
};

// First of the two rows of sampled pair `pair` of `pairs`, in a frame of `row_pairs` whole pairs.
UMBRA_HD int sampled_row(int64_t pair, int64_t pairs, int64_t row_pairs) {
  return static_cast<int>(2 * ((2 * pair + 1) * row_pairs / (2 * pairs)));
}

// How many row pairs the histograms read.
UMBRA_HD int64_t sampled_pairs(int64_t width, int64_t row_pairs) {
  const int64_t wanted = (kNoiseSamples + 2 * width - 1) / (2 * width);
  return wanted < row_pairs ? wanted : row_pairs;
}

// Weight, in 1/224 of a pixel, of input row (column) r in output row (column) i; size = input height (width).
UMBRA_HD int64_t overlap(int64_t i, int64_t r, int64_t size) {
  const int64_t lo = i * size > kImageSide * r ? i * size : kImageSide * r;
  const int64_t hi = (i + 1) * size < kImageSide * (r + 1) ? (i + 1) * size : kImageSide * (r + 1);
  return hi > lo ? hi - lo : 0;
}

// Natural logarithm of a finite x > 0, within 2e-7 of log(x) relative to max(1, |log x|). Branch-free.
UMBRA_HD float log_fast(float x) {
  union {
    float f;
    int32_t i;
  } u = {x};
  const int32_t e = (u.i - 0x3f3504f3) >> 23;  // so that the mantissa is in [sqrt 1/2, sqrt 2)
  u.i -= e << 23;
  const float t = (u.f - 1.0f) / (u.f + 1.0f), t2 = t * t;
  const float p = t * (2.0f + t2 * (0.66666667f + t2 * (0.4f + t2 * (0.28571429f + t2 * 0.22222222f))));
  return static_cast<float>(e) * 0.69314718f + p;
}

UMBRA_HD float asinh_fast(float x) {
  const float a = x < 0 ? -x : x;
  const float y = log_fast(a + sqrtf(a * a + 1.0f));
  return x < 0 ? -y : y;
}

UMBRA_HD float clip01(float v) { return v < 0.0f ? 0.0f : (v > 1.0f ? 1.0f : v); }

// image = clip(1/2 + tone(z) / 2Z, 0, 1); `scale` is tone_scale(params).
UMBRA_HD float tone_value(float z, Tone tone, float parameter, float scale) {
  if (tone == Tone::asinh) return clip01(0.5f + scale * asinh_fast(z / parameter));
  const float u = clip01(0.5f + scale * z);
  if (tone == Tone::linear) return u;
  return (parameter - 1.0f) * u / ((2.0f * parameter - 1.0f) * u - parameter);
}

inline float tone_scale(const StretchParams& p) {
  if (p.tone == Tone::asinh) return static_cast<float>(0.5 / std::asinh(double(p.z_range) / p.tone_parameter));
  return 0.5f / p.z_range;
}

}  // namespace umbra
