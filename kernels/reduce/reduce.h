// Eq. 4-6 and 9: two maps of logits -> unseen map and its metrics. Arithmetic shared with CUDA.
#pragma once
#include <cstdint>
#include <vector>

#include "host_device.h"
#include "stretch/stretch.h"

namespace umbra {

constexpr int kBins = 256;
constexpr float kLogitLimit = 40.0f;  // sigmoid is 0 or 1 in float beyond it, and no product overflows

struct ReduceParams {
  float threshold = 0.5f;  // t
  float alpha = 2.0f;
};

struct ReduceResult {
  int64_t m_thresh = 0;
  double m_alpha = 0;
  float peak = 0;
  int64_t non_finite = 0;  // logits that are NaN or infinite
  uint32_t histogram[kBins] = {};
};

struct ReduceScratch {
  std::vector<uint8_t> bins;
};

// e^x for |x| <= 87, within 3e-7 relative. Branch-free.
UMBRA_HD float exp_fast(float x) {
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to a whole number
  union {
    float f;
    int32_t i;
  } n = {shifted}, power;
  const float whole = shifted - 12582912.0f;
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  power.i = (n.i - 0x4b400000 + 127) << 23;
  const float p =
      1.0f + r * (1.0f + r * (0.5f + r * (0.16666667f + r * (0.041666664f + r * (0.0083333310f + r * 0.0013888889f)))));
  return p * power.f;
}

UMBRA_HD float clamp_logit(float v) { return v < -kLogitLimit ? -kLogitLimit : (v > kLogitLimit ? kLogitLimit : v); }

// S = max(0, 1 - sigmoid(bg) - sigmoid(fg)), as one fraction so that nothing cancels.
UMBRA_HD float unseen_value(float logit_bg, float logit_fg) {
  const float a = exp_fast(-clamp_logit(logit_bg)), b = exp_fast(-clamp_logit(logit_fg));
  const float s = (a * b - 1.0f) / ((1.0f + a) * (1.0f + b));
  return s > 0.0f ? s : 0.0f;
}

// Bin i holds i/256 < S <= (i+1)/256 (and bin 0 also S = 0), so that #{S > j/256} is a sum of bins.
UMBRA_HD int bin_of(float s) {
  const float up = s * 256.0f;
  const int whole = static_cast<int>(up);
  const int bin = whole - (static_cast<float>(whole) == up ? 1 : 0);
  return bin < 0 ? 0 : (bin > kBins - 1 ? kBins - 1 : bin);
}

// S^alpha for S >= 0.
UMBRA_HD float power_of(float s, float alpha) {
  const float safe = s > 1e-12f ? s : 1e-12f;
  float e = alpha * log_fast(safe);
  e = e < -80.0f ? -80.0f : e;
  return s > 1e-12f ? exp_fast(e) : 0.0f;
}

}  // namespace umbra
