// Eq. 7-8 on the CPU. The frame is read once: sums are whole numbers, so every instruction set gives the same image.
#include <algorithm>
#include <cstring>

#include "stretch/stretch.h"

namespace umbra::UMBRA_ISA {

void unpack_row(const uint8_t* packed, Layout layout, int width, uint16_t* samples);

namespace {

typedef uint16_t u16xn __attribute__((vector_size(64), aligned(2), may_alias));
constexpr int kLanes = 32;

struct Histogram {
  const uint32_t* counts;  // of values first .. last
  int first, last;
  int64_t total;

  // Value below which a share p lies, each integer spread over +-1/2.
  double quantile(double p) const {
    const double wanted = p * static_cast<double>(total);
    double below = 0;
    for (int v = first; v <= last; ++v) {
      const double here = counts[v - first];
      if (here > 0 && below + here >= wanted) return quantile_at(v, wanted, below, here);
      below += here;
    }
    return last + 0.5;
  }
};

// The row as samples in memory; all but plain little-endian ones go through the scratch row.
const uint16_t* samples_of_row(const FrameView& f, int r, std::vector<uint16_t>& scratch) {
  const uint8_t* packed = f.bytes + r * f.stride;
  if (f.layout == Layout::u16le && reinterpret_cast<uintptr_t>(packed) % 2 == 0)
    return reinterpret_cast<const uint16_t*>(packed);
  unpack_row(packed, f.layout, f.width, scratch.data());
  return scratch.data();
}

void count_row(const uint16_t* x, int width, uint32_t* even, uint32_t* odd, uint32_t* d_even, uint32_t* d_odd) {
  int c = 0;
  for (; c + 3 < width; c += 2) {
    ++even[x[c]];
    ++odd[x[c + 1]];
    ++d_even[x[c + 2] - x[c] + 65535];
    ++d_odd[x[c + 3] - x[c + 1] + 65535];
  }
  for (; c < width; ++c) {
    ++(c % 2 ? odd : even)[x[c]];
    if (c + 2 < width) ++(c % 2 ? d_odd : d_even)[x[c + 2] - x[c] + 65535];
  }
}

// Keys of columns: equal where two columns hold the same samples in all rows seen (and, once in 2^64, by chance);
// and how often each column's sample changed from row to row.
void add_to_keys(const uint16_t* x, int width, uint64_t* keys, uint16_t* last, uint16_t* changes) {
  for (int c = 0; c < width; ++c) {
    keys[c] = key_step(keys[c], x[c]);
    changes[c] += x[c] != last[c];
    last[c] = x[c];
  }
}

void add_plane(const Histogram& plane, Bits& bits) {
  const int lo = nearest_code(plane.quantile(kStuckLow)), hi = nearest_code(plane.quantile(kStuckHigh));
  uint32_t any = 0, all = 65535;
  for (int v = std::max(lo, plane.first); v <= std::min(hi, plane.last); ++v)
    if (plane.counts[v - plane.first]) any |= v, all &= v;
  bits.add_plane(any, all, lo, hi);
}

int64_t sum(const uint32_t* counts, int first, int last) {
  int64_t n = 0;
  for (int v = first; v <= last; ++v) n += counts[v];
  return n;
}

Noise measure_noise(const FrameView& f, StretchScratch& s, StretchStats& stats) {
  uint32_t* planes[4];
  for (int p = 0; p < 4; ++p) planes[p] = s.planes.data() + p * 65536;
  uint32_t *d_even = s.differences.data(), *d_odd = d_even + 131072;
  const int64_t row_pairs = f.height / 2, pairs = sampled_pairs(f.width, row_pairs);
  int lowest = 65535, highest = 0;
  std::fill(s.column_keys.begin(), s.column_keys.begin() + f.width, 0u);
  std::fill(s.column_changes.begin(), s.column_changes.begin() + f.width, uint16_t{0});
  for (int64_t pair = 0; pair < pairs; ++pair)
    for (int parity = 0; parity < 2; ++parity) {
      const uint16_t* x = samples_of_row(f, sampled_row(pair, pairs, row_pairs) + parity, s.row);
      count_row(x, f.width, planes[2 * parity], planes[2 * parity + 1], d_even, d_odd);
      if (pair == 0 && parity == 0) std::copy(x, x + f.width, s.other_row.begin());
      add_to_keys(x, f.width, s.column_keys.data(), s.other_row.data(), s.column_changes.data());
      int lo = 65535, hi = 0;
      for (int c = 0; c < f.width; ++c) lo = std::min<int>(lo, x[c]), hi = std::max<int>(hi, x[c]);
      lowest = std::min(lowest, lo), highest = std::max(highest, hi);
    }
  Noise noise{};
  int64_t total = 0, at_lowest = 0, at_highest = 0;
  Bits bits;
  for (int p = 0; p < 4; ++p) {
    const int64_t n = sum(planes[p], lowest, highest);
    const Histogram plane{planes[p] + lowest, lowest, highest, n};
    noise.plane_median[p] = plane.quantile(0.5);
    add_plane(plane, bits);
    total += n, at_lowest += planes[p][lowest], at_highest += planes[p][highest];
  }
  const int span = highest - lowest, d_first = 65535 - span, d_last = 65535 + span;
  for (int v = d_first; v <= d_last; ++v) d_even[v] += d_odd[v];
  const Histogram d{d_even + d_first, -span, span, sum(d_even, d_first, d_last)};
  finish_noise(noise, d.quantile(kQuantileLow), d.quantile(kQuantileHigh));
  for (int p = 0; p < 4; ++p) std::fill(planes[p] + lowest, planes[p] + highest + 1, 0u);
  std::fill(d_even + d_first, d_even + d_last + 1, 0u);
  std::fill(d_odd + d_first, d_odd + d_last + 1, 0u);

  stats.median = noise.median, stats.sigma = noise.sigma, stats.minimum = lowest, stats.maximum = highest;
  stats.share_minimum = static_cast<double>(at_lowest) / total;
  stats.share_maximum = static_cast<double>(at_highest) / total;
  judge_codes(stats, bits);
  return noise;
}

u16xn alternate(uint16_t even, uint16_t odd) {
  u16xn v;
  for (int i = 0; i < kLanes; ++i) v[i] = i % 2 ? odd : even;
  return v;
}

// sums[c] += clip(x[c]) - lowest, for all columns of a row.
void add_clipped(const uint16_t* x, int width, int row_parity, const Bounds& bounds, uint16_t* sums) {
  const int p = 2 * row_parity;
  const u16xn lo = alternate(bounds.lowest[p], bounds.lowest[p + 1]);
  const u16xn hi = alternate(bounds.highest[p], bounds.highest[p + 1]);
  int c = 0;
  for (; c + kLanes <= width; c += kLanes) {
    u16xn v = *reinterpret_cast<const u16xn*>(x + c);
    v = v < hi ? v : hi;
    v = v > lo ? v : lo;
    *reinterpret_cast<u16xn*>(sums + c) += v - lo;
  }
  for (; c < width; ++c) {
    const uint16_t low = bounds.lowest[p + c % 2];
    sums[c] = static_cast<uint16_t>(sums[c] + (std::clamp(x[c], low, bounds.highest[p + c % 2]) - low));
  }
}

// The lag at which keys recur most often, the smallest of several; 0 where none recurs.
int common_lag(const uint64_t* keys, int n, StretchScratch& s) {
  size_t slots = 64;
  while (slots < 2 * static_cast<size_t>(n)) slots *= 2;
  s.last_with_key.assign(slots, -1);
  s.lags.clear();
  for (int i = 0; i < n; ++i) {
    size_t slot = (keys[i] ^ keys[i] >> 32) & (slots - 1);
    while (s.last_with_key[slot] >= 0 && keys[s.last_with_key[slot]] != keys[i]) slot = (slot + 1) & (slots - 1);
    if (s.last_with_key[slot] >= 0) s.lags.push_back(i - s.last_with_key[slot]);
    s.last_with_key[slot] = i;
  }
  std::sort(s.lags.begin(), s.lags.end());
  int lag = 0, most = 0;
  for (size_t i = 0; i < s.lags.size();) {
    size_t end = i;
    while (end < s.lags.size() && s.lags[end] == s.lags[i]) ++end;
    if (static_cast<int>(end - i) > most) most = static_cast<int>(end - i), lag = s.lags[i];
    i = end;
  }
  return lag;
}

// First of kRepeatRun neighbours i that all `recur` at i + lag, or -1.
template <typename Recurs>
int first_run(int n, int lag, Recurs recurs) {
  int run = 0;
  for (int i = 0; i + lag < n; ++i) {
    run = recurs(i) ? run + 1 : 0;
    if (run == kRepeatRun) return i - kRepeatRun + 1;
  }
  return -1;
}

// Columns that recur in the rows sampled: a read-out that repeats a tile. Flat columns do not count.
void find_repeated_columns(const FrameView& f, StretchScratch& s, StretchStats& stats) {
  const uint64_t* keys = s.column_keys.data();
  const int lag = common_lag(keys, f.width, s);
  if (!lag) return;
  const int first = first_run(f.width, lag, [&](int c) {
    return keys[c] == keys[c + lag] &&
           noisy(s.column_changes[c], static_cast<int>(2 * sampled_pairs(f.width, f.height / 2)));
  });
  if (first >= 0) stats.fault = StretchFault::repeated_columns, stats.where = first, stats.value = lag;
}

// Rows that recur, sample by sample, elsewhere in the frame. Flat rows do not count.
void find_repeated_rows(const FrameView& f, StretchScratch& s, StretchStats& stats) {
  const uint64_t* keys = s.row_keys.data();
  const int lag = common_lag(keys, f.height, s);
  if (!lag) return;
  const int first = first_run(f.height, lag, [&](int r) {
    if (keys[r] != keys[r + lag]) return false;
    const uint16_t* x = samples_of_row(f, r, s.row);
    const uint16_t* y = samples_of_row(f, r + lag, s.other_row);
    int changes = 0;
    for (int c = 1; c < f.width; ++c) changes += x[c] != x[c - 1];
    return noisy(changes, f.width) && std::equal(x, x + f.width, y);
  });
  if (first >= 0) stats.fault = StretchFault::repeated_rows, stats.where = first, stats.value = lag;
}

void flush(uint16_t* sums16, uint32_t* sums32, int width, uint32_t weight) {
  for (int c = 0; c < width; ++c) {
    sums32[c] += weight * sums16[c];
    sums16[c] = 0;
  }
}

uint64_t row_key(const uint16_t* x, int n) {
  uint64_t key = 0;
  for (int i = 0; i < n; ++i) key = key_step(key, x[i]);
  return key;
}

// Weighted sums over the input rows of output row i, one a column, in 1/224 of a row; keys of these rows.
void sum_rows(const FrameView& f, int i, const Bounds& bounds, StretchScratch& s) {
  const int64_t first = int64_t(i) * f.height / kImageSide, last = (int64_t(i + 1) * f.height - 1) / kImageSide;
  const int fit = rows_that_fit(bounds);
  std::memset(s.sums32.data(), 0, sizeof(uint32_t) * f.width);
  const int key_first = std::max(0, f.width / 2 - kRepeatKey / 2), key_size = std::min(f.width, kRepeatKey);
  int held = 0;
  for (int64_t r = first; r <= last; ++r) {
    const auto weight = static_cast<uint32_t>(overlap(i, r, f.height));
    const bool alone = weight != kImageSide;
    if (held && (alone || held == fit)) flush(s.sums16.data(), s.sums32.data(), f.width, kImageSide), held = 0;
    const uint16_t* x = samples_of_row(f, static_cast<int>(r), s.row);
    s.row_keys[r] = row_key(x + key_first, key_size);
    add_clipped(x, f.width, r % 2, bounds, s.sums16.data());
    if (alone)
      flush(s.sums16.data(), s.sums32.data(), f.width, weight);
    else
      ++held;
  }
  if (held) flush(s.sums16.data(), s.sums32.data(), f.width, kImageSide);
}

// Sum of a row of column sums over output column j's rectangle, in 1/224^2 of a pixel.
uint64_t sum_columns(const uint32_t* sums, int64_t width, int64_t j) {
  const int64_t first = j * width / kImageSide, last = ((j + 1) * width - 1) / kImageSide;
  if (first == last) return uint64_t(sums[first]) * width;
  uint64_t inside = 0;
  for (int64_t c = first + 1; c < last; ++c) inside += sums[c];
  return inside * kImageSide + uint64_t(sums[first]) * overlap(j, first, width) +
         uint64_t(sums[last]) * overlap(j, last, width);
}

void area_means(const FrameView& f, const Noise& noise, const Bounds& bounds, StretchScratch& s) {
  int64_t even_columns[kImageSide];
  for (int j = 0; j < kImageSide; ++j) even_columns[j] = even_weight(j, f.width);
  for (int i = 0; i < kImageSide; ++i) {
    sum_rows(f, i, bounds, s);
    const int64_t even_rows = even_weight(i, f.height);
    for (int j = 0; j < kImageSide; ++j) {
      const auto total = static_cast<double>(sum_columns(s.sums32.data(), f.width, j));
      s.means[i * kImageSide + j] = area_mean(total, even_rows, even_columns[j], noise, bounds, f.width, f.height);
    }
  }
}

// Median of the means (mean of the two middle ones): buckets first, so that only a few are sorted.
double median_of(const std::vector<double>& means, std::vector<double>& selection) {
  constexpr int kBuckets = 4096, kMiddle = kImagePixels / 2;
  const auto [lo, hi] = std::minmax_element(means.begin(), means.end());
  const double first = *lo, width = *hi - *lo;
  if (!(width > 0)) return first;
  const double scale = (kBuckets - 1) / width;
  int counts[kBuckets] = {};
  for (double m : means) ++counts[static_cast<int>((m - first) * scale)];
  int bucket = 0, below = 0;
  while (below + counts[bucket] <= kMiddle) below += counts[bucket++];
  // Ranks kMiddle - 1 and kMiddle; the lower one may lie in an earlier bucket.
  size_t n = 0;
  double under = first;
  for (double m : means) {
    const int b = static_cast<int>((m - first) * scale);
    if (b == bucket)
      selection[n++] = m;
    else if (b < bucket)
      under = std::max(under, m);
  }
  const auto begin = selection.begin(), nth = begin + (kMiddle - below);
  std::nth_element(begin, nth, begin + n);
  const double upper = *nth;
  const double lower = nth == begin ? under : *std::max_element(begin, nth);
  return 0.5 * (lower + upper);
}

}  // namespace

StretchStats stretch(const FrameView& f, const StretchParams& params, StretchScratch& s, float* image) {
  if (s.row.size() < static_cast<size_t>(f.width)) {
    s.row.resize(f.width), s.other_row.resize(f.width), s.sums16.resize(f.width), s.sums32.resize(f.width);
    s.column_keys.resize(f.width), s.column_changes.resize(f.width);
  }
  if (s.row_keys.size() < static_cast<size_t>(f.height)) s.row_keys.resize(f.height);
  StretchStats stats;
  const Noise noise = measure_noise(f, s, stats);
  if (stats.fault == StretchFault::none) find_repeated_columns(f, s, stats);
  if (stats.fault != StretchFault::none) return stats;
  area_means(f, noise, bounds_of(noise, params.k), s);
  find_repeated_rows(f, s, stats);
  if (stats.fault != StretchFault::none) return stats;
  const double centre = median_of(s.means, s.selection);
  const double to_z = noise_scale(f.width, f.height, noise.sigma);
  const float scale = tone_scale(params);
  const double* means = s.means.data();
  for (int i = 0; i < kImagePixels; ++i)
    image[i] = tone_value(z_value(means[i], centre, to_z), params.tone, params.tone_parameter, scale);
  return stats;
}

}  // namespace umbra::UMBRA_ISA
