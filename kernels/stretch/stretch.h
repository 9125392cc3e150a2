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
static_assert(sizeof(StretchStats) == 56, "kernels/cuda.py has the same");

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

// Weight, in 1/224 of a pixel, of the even rows (columns) in the first t/224 rows (columns).
UMBRA_HD int64_t even_part(int64_t t) {
  const int64_t rest = t % (2 * kImageSide);
  return t / (2 * kImageSide) * kImageSide + (rest < kImageSide ? rest : kImageSide);
}

// Weight of even input rows (columns) in output row (column) i, in 1/224 of a row; size = input height (width).
UMBRA_HD int64_t even_weight(int64_t i, int64_t size) { return even_part((i + 1) * size) - even_part(i * size); }

// Value below which a share lies, each integer spread over +-1/2: `here` samples at v, `below` samples below it.
UMBRA_HD double quantile_at(int v, double wanted, double below, double here) {
  return v - 0.5 + (wanted - below) / here;
}

UMBRA_HD int nearest_code(double v) { return static_cast<int>(floor(v + 0.5)); }

struct Noise {
  double plane_median[4];
  double median, sigma;
};

// `low` and `high`: the quantiles of x[r, c+2] - x[r, c].
UMBRA_HD void finish_noise(Noise& noise, double low, double high) {
  const double* m = noise.plane_median;
  noise.median = 0.25 * (m[0] + m[1] + m[2] + m[3]);
  const double sigma = (high - low) / (2 * sqrt(2.0));
  noise.sigma = sigma > kSigmaFloor ? sigma : kSigmaFloor;
}

// Which bits of the planes' codes vary, and which are stuck: the same in all of a plane's codes between two quantiles
// although codes that have it otherwise lie between these, and although a lower bit varies (where none does, the codes
// are shifted).
struct Bits {
  uint32_t varying = 0, stuck = 0, value = 0;

  // any, all: or and and of the codes of a plane between lo, the code at its lower quantile, and hi.
  UMBRA_HD_MEMBER void add_plane(uint32_t any, uint32_t all, int lo, int hi) {
    const uint32_t varies = any & ~all;
    varying |= varies;
    for (int b = 1; b < 16; ++b)
      if (!(varies >> b & 1) && (varies & ((1u << b) - 1)) && lo >> b != hi >> b)
        stuck |= 1u << b, value |= all & 1u << b;
  }
};

// What the rows sampled alone tell; median, sigma, minimum, maximum and shares are there already.
UMBRA_HD void judge_codes(StretchStats& stats, const Bits& bits) {
  const uint32_t stuck = bits.stuck & ~bits.varying;
  if (stats.minimum == stats.maximum)
    stats.fault = StretchFault::constant;
  else if (stats.share_minimum > kClippedShare)
    stats.fault = StretchFault::clipped_low;
  else if (stats.share_maximum > kClippedShare)
    stats.fault = StretchFault::clipped_high;
  else if (stuck) {
    stats.fault = StretchFault::stuck_bit;
    while (!(stuck >> stats.where & 1)) ++stats.where;
    stats.value = bits.value >> stats.where & 1;
  }
}

// Codes kept for the four CFA planes: lowest .. highest, centred on the plane's median.
struct Bounds {
  uint16_t lowest[4], highest[4];
  int widest;
};

UMBRA_HD Bounds bounds_of(const Noise& noise, float k) {
  Bounds b{};
  const double reach = ceil(double(k) * noise.sigma);
  const int half = reach < 65535.0 ? static_cast<int>(reach) : 65535;
  for (int p = 0; p < 4; ++p) {
    const int centre = nearest_code(noise.plane_median[p]);
    const int lo = centre - half > 0 ? centre - half : 0, hi = centre + half < 65535 ? centre + half : 65535;
    b.lowest[p] = static_cast<uint16_t>(lo), b.highest[p] = static_cast<uint16_t>(hi);
    b.widest = hi - lo > b.widest ? hi - lo : b.widest;
  }
  return b;
}

// Rows whose clipped samples, less the lowest, can be summed in 16 bits.
UMBRA_HD int rows_that_fit(const Bounds& b) { return 65535 / (b.widest > 1 ? b.widest : 1); }

// Mean of clip(x) - median over an output pixel whose weighted sum of clip(x) - lowest is `total`.
// even_rows, even_columns: even_weight of the pixel's row and column.
UMBRA_HD double area_mean(double total, int64_t even_rows, int64_t even_columns, const Noise& noise, const Bounds& b,
                          int width, int height) {
  const double re = static_cast<double>(even_rows), ro = height - re;
  const double ce = static_cast<double>(even_columns), co = width - ce;
  const double even = re * (b.lowest[0] - noise.plane_median[0]) + ro * (b.lowest[2] - noise.plane_median[2]);
  const double odd = re * (b.lowest[1] - noise.plane_median[1]) + ro * (b.lowest[3] - noise.plane_median[3]);
  return (total + (even * ce + odd * co)) * (1.0 / (double(width) * height));
}

// Keys by which rows (columns) are compared: equal lines have equal keys.
constexpr uint64_t kKeyFactor = 0x9e3779b97f4a7c15u;
UMBRA_HD uint64_t key_step(uint64_t key, uint16_t sample) { return key * kKeyFactor + sample + 1; }

// What n steps multiply a key by: keys of parts add up.
UMBRA_HD uint64_t key_power(int n) {
  uint64_t power = 1, square = kKeyFactor;
  for (; n; n >>= 1, square *= square)
    if (n & 1) power *= square;
  return power;
}

// Whether a line of n samples holds noise: one in kRepeatChange differs from the one before it.
UMBRA_HD bool noisy(int64_t changes, int64_t n) { return changes * kRepeatChange >= n; }

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

// z = (mean - centre) sqrt n / sigma; `to_z` is noise_scale.
UMBRA_HD float z_value(double mean, double centre, double to_z) { return static_cast<float>((mean - centre) * to_z); }

// sqrt n / sigma, n the input pixels of an output pixel.
UMBRA_HD double noise_scale(int width, int height, double sigma) {
  return sqrt(double(width) * height / kImagePixels) / sigma;
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
