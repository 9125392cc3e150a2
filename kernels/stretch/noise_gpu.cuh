// Eq. 7 on a GPU: quantiles of the rows sampled, in two passes (the codes' high bytes, then the low ones under each
// quantile's), which of their bits vary, and keys of their columns.
#pragma once
#include "gpu.cuh"
#include "stretch/stretch_gpu.cuh"

namespace umbra {
namespace {

constexpr int kStripThreads = 128;  // a thread takes eight columns
constexpr int kStrip = 8 * kStripThreads;
constexpr int kGroupRows = 8;  // and so many rows

// The rows that the noise is measured on: pairs, evenly spread.
struct SampledRows {
  int64_t pairs, row_pairs;

  __device__ explicit SampledRows(const GpuFrame& f)
      : pairs(sampled_pairs(f.width, f.height / 2)), row_pairs(f.height / 2) {}
  __device__ int count() const { return static_cast<int>(2 * pairs); }
  __device__ int row(int q) const { return sampled_row(q / 2, pairs, row_pairs) + q % 2; }
};

__device__ __forceinline__ uint32_t sample_of(const Eight& x, int k) {
  return x.pairs[k / 2] >> (16 * (k % 2)) & 0xffff;
}

// The sample two columns on from sample k; `next`: samples 8 and 9.
__device__ __forceinline__ uint32_t two_on(const Eight& x, uint32_t next, int k) {
  return k < 6 ? sample_of(x, k + 2) : next >> (16 * (k - 6)) & 0xffff;
}

__device__ __forceinline__ uint32_t shifted_difference(const Eight& x, uint32_t next, int k) {
  return two_on(x, next, k) + kDifferenceShift - sample_of(x, k);
}

// A block's share of the rows sampled: kGroupRows rows of kStrip columns at a time. A warp stays together, also past
// the right edge. begin(first row's number, column), body(row's number, column, samples, the two after them),
// end(number past the last row, column); a sample k counts where column + k < width.
template <typename Begin, typename Body, typename End>
__device__ __forceinline__ void visit_strips(const GpuFrame& f, Begin begin, Body body, End end) {
  const SampledRows rows(f);
  for (int c0 = blockIdx.x * kStrip; c0 < f.width; c0 += gridDim.x * kStrip)
    for (int q0 = blockIdx.y * kGroupRows; q0 < rows.count(); q0 += gridDim.y * kGroupRows) {
      const int c = c0 + 8 * static_cast<int>(threadIdx.x);
      const int q1 = q0 + kGroupRows < rows.count() ? q0 + kGroupRows : rows.count();
      begin(q0, c);
      for (int q = q0; q < q1; ++q) {
        const uint8_t* row = row_of(f, rows.row(q));
        Eight x{};
        if (c < f.width) x = load_eight(f.layout, row, c);
        uint32_t next = __shfl_down_sync(kAll, x.pairs[0], 1);
        if (lane() == kWarp - 1 && c + 8 < f.width) next = load_eight(f.layout, row, c + 8).pairs[0];
        body(q, c, x, next);
      }
      end(q1, c);
    }
}

// Whether visit_strips has anything to do for this block.
__device__ __forceinline__ bool has_strips(const GpuFrame& f) {
  return static_cast<int>(blockIdx.x) * kStrip < f.width &&
         static_cast<int>(blockIdx.y) * kGroupRows < SampledRows(f).count();
}

// Counts codes by CFA plane, and differences, in a histogram in which bin_in(plane, value) says where; the differences'
// plane is kPlanes.
struct CodeCounters {
  RunCounter planes[kPlanes], differences;

  // Sample k of the strip at column c in row q of those sampled.
  template <typename BinIn>
  __device__ __forceinline__ void add(const GpuFrame& f, int q, int c, int k, const Eight& x, uint32_t next,
                                      uint32_t* histogram, BinIn bin_in) {
    const uint32_t v = sample_of(x, k);
    // Both written out: a counter chosen at run time would live in memory.
    if (q % 2)
      planes[2 + k % 2].add(histogram, bin_in(2 + k % 2, v));
    else
      planes[k % 2].add(histogram, bin_in(k % 2, v));
    if (c + k + 2 < f.width) differences.add(histogram, bin_in(kPlanes, shifted_difference(x, next, k)));
  }

  __device__ __forceinline__ void flush(uint32_t* histogram) {
#pragma unroll
    for (int p = 0; p < kPlanes; ++p) planes[p].flush(histogram);
    differences.flush(histogram);
  }
};

struct Nothing {
  __device__ void operator()(int, int) const {}
};

// The shares at which quantiles are wanted: of plane 0..3, of the differences for plane kPlanes.
__device__ __forceinline__ double wanted_at(const GpuFrame& f, int plane, int q) {
  const int64_t pairs = SampledRows(f).pairs;
  if (plane == kPlanes) return (q ? kQuantileHigh : kQuantileLow) * static_cast<double>(2 * pairs * (f.width - 2));
  const double share = q == 0 ? kStuckLow : q == 1 ? 0.5 : kStuckHigh;
  return share * static_cast<double>(pairs * ((f.width + 1 - plane % 2) / 2));
}

__device__ Selected select_high(const GpuFrame& f, const FrameCounts& counts, int plane, int q) {
  return select_bin(counts.high + plane * kByte, plane == kPlanes ? kDifferenceHighs : kByte, wanted_at(f, plane, q));
}

__device__ __forceinline__ int quantiles_of(int plane) {
  return plane == kPlanes ? kDifferenceQuantiles : kPlaneQuantiles;
}

// Under which high part each quantile lies; quantiles under the same one share the first one's low histogram.
struct HighParts {
  int part[kPlanes + 1][kPlaneQuantiles];

  // By whole warps of a block, which share it.
  __device__ void find(const GpuFrame& f, const FrameCounts& counts) {
    const int warps = static_cast<int>(blockDim.x / kWarp);
    for (int i = static_cast<int>(threadIdx.x / kWarp); i < (kPlanes + 1) * kPlaneQuantiles; i += warps) {
      const int plane = i / kPlaneQuantiles, q = i % kPlaneQuantiles;
      if (q < quantiles_of(plane)) {
        const int bin = select_high(f, counts, plane, q).bin;
        if (lane() == 0) part[plane][q] = bin;
      }
    }
  }

  __device__ int owner(int plane, int q) const {
    int first = q;
    for (int before = q - 1; before >= 0; --before)
      if (part[plane][before] == part[plane][q]) first = before;
    return first;
  }
};

// Quantile q of a plane, or of the differences, by a whole warp.
__device__ double quantile(const GpuFrame& f, const FrameCounts& counts, const HighParts& parts, int plane, int q) {
  const double wanted = wanted_at(f, plane, q);
  const Selected high = select_high(f, counts, plane, q);
  const int slot = plane * kPlaneQuantiles + parts.owner(plane, q);
  const Selected low = select_bin(counts.low + slot * kByte, kByte, wanted - high.below);
  const int v = high.bin * kByte + low.bin - (plane == kPlanes ? kDifferenceShift : 0);
  return quantile_at(v, wanted, static_cast<double>(high.below + low.below), low.here);
}

__device__ __forceinline__ void count_high(const GpuFrame& f, FrameCounts& counts, uint32_t* high, uint64_t* keys,
                                           uint32_t* changes) {
  const SampledRows rows(f);
  CodeCounters counters;
  uint32_t below_white = 0, highest = 0, changed[8];
  uint64_t key[8];
  Eight last{};
  visit_strips(
      f,
      [&](int q0, int c) {
#pragma unroll
        for (int k = 0; k < 8; ++k) key[k] = 0, changed[k] = 0;
        if (c < f.width) last = load_eight(f.layout, row_of(f, rows.row(q0 ? q0 - 1 : 0)), c);
      },
      [&](int q, int c, const Eight& x, uint32_t next) {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          if (c + k >= f.width) continue;
          const uint32_t v = sample_of(x, k);
          counters.add(f, q, c, k, x, next, high,
                       [](int plane, uint32_t value) { return plane * kByte + value / kByte; });
          below_white = 65535 - v > below_white ? 65535 - v : below_white;
          highest = v > highest ? v : highest;
          key[k] = key_step(key[k], static_cast<uint16_t>(v));
          changed[k] += v != sample_of(last, k);
        }
        last = x;
      },
      [&](int q1, int c) {
        const uint64_t power = key_power(rows.count() - q1);
#pragma unroll
        for (int k = 0; k < 8; ++k)
          if (c + k < f.width) {
            atomicAdd(reinterpret_cast<unsigned long long*>(keys + c + k),
                      static_cast<unsigned long long>(key[k] * power));
            if (changed[k]) atomicAdd(changes + c + k, changed[k]);
          }
      });
  counters.flush(high);
  below_white = warp_max(below_white), highest = warp_max(highest);
  if (lane() == 0 && (below_white || highest)) {
    atomicMax(&counts.below_white, below_white);
    atomicMax(&counts.highest, highest);
  }
}

__device__ __forceinline__ void count_low(const GpuFrame& f, FrameCounts& counts, const HighParts& parts,
                                          uint32_t* low) {
  const uint32_t lowest = 65535 - counts.below_white, highest = counts.highest;
  uint32_t at_lowest = 0, at_highest = 0;
  CodeCounters counters;
  // Past the histograms: a bin that nobody reads, for codes under no quantile's high part.
  constexpr uint32_t kElsewhere = kLowBins;
  const auto bin_in = [&](int plane, uint32_t v) {
    const int part = static_cast<int>(v / kByte), slot = plane * kPlaneQuantiles;
    if (part == parts.part[plane][0]) return slot * kByte + v % kByte;
    if (part == parts.part[plane][1]) return (slot + 1) * kByte + v % kByte;
    if (plane != kPlanes && part == parts.part[plane][2]) return (slot + 2) * kByte + v % kByte;
    return kElsewhere;
  };
  visit_strips(
      f, Nothing{},
      [&](int q, int c, const Eight& x, uint32_t next) {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          if (c + k >= f.width) continue;
          const uint32_t v = sample_of(x, k);
          counters.add(f, q, c, k, x, next, low, bin_in);
          at_lowest += v == lowest, at_highest += v == highest;
        }
      },
      Nothing{});
  counters.flush(low);
  at_lowest = warp_sum(at_lowest), at_highest = warp_sum(at_highest);
  if (lane() == 0) {
    if (at_lowest) atomicAdd(&counts.at_lowest, at_lowest);
    if (at_highest) atomicAdd(&counts.at_highest, at_highest);
  }
}

__device__ __forceinline__ void collect_bits(const GpuFrame& f, FrameCounts& counts, const uint32_t* lo,
                                             const uint32_t* hi) {
  uint32_t any[kPlanes] = {}, lacking[kPlanes] = {};
  visit_strips(
      f, Nothing{},
      [&](int q, int c, const Eight& x, uint32_t) {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          const uint32_t v = sample_of(x, k);
          if (c + k >= f.width) continue;
#pragma unroll
          for (int parity = 0; parity < 2; ++parity) {
            const int p = 2 * parity + k % 2;
            if (q % 2 == parity && v >= lo[p] && v <= hi[p]) any[p] |= v, lacking[p] |= ~v & 0xffff;
          }
        }
      },
      Nothing{});
#pragma unroll
  for (int p = 0; p < kPlanes; ++p) {
    any[p] = warp_or(any[p]), lacking[p] = warp_or(lacking[p]);
    if (lane() == 0 && (any[p] | lacking[p])) {
      atomicOr(&counts.any[p], any[p]);
      atomicOr(&counts.lacking[p], lacking[p]);
    }
  }
}

// Bounds, statistics and faults of the rows sampled, by one warp.
__device__ __forceinline__ void finish(const GpuFrame& f, const FrameCounts& counts, const HighParts& parts, float k,
                                       FrameState& state) {
  Noise noise{};
  Bits bits;
  for (int p = 0; p < kPlanes; ++p) {
    noise.plane_median[p] = quantile(f, counts, parts, p, 1);
    const int lo = nearest_code(quantile(f, counts, parts, p, 0)), hi = nearest_code(quantile(f, counts, parts, p, 2));
    bits.add_plane(counts.any[p], ~counts.lacking[p] & 0xffff, lo, hi);
  }
  finish_noise(noise, quantile(f, counts, parts, kPlanes, 0), quantile(f, counts, parts, kPlanes, 1));
  StretchStats stats;
  const double total = static_cast<double>(2 * SampledRows(f).pairs) * f.width;
  stats.median = noise.median, stats.sigma = noise.sigma;
  stats.minimum = static_cast<int>(65535 - counts.below_white), stats.maximum = static_cast<int>(counts.highest);
  stats.share_minimum = counts.at_lowest / total, stats.share_maximum = counts.at_highest / total;
  judge_codes(stats, bits);
  if (lane() == 0) state.noise = noise, state.bounds = bounds_of(noise, k), state.stats = stats;
}

}  // namespace
}  // namespace umbra
