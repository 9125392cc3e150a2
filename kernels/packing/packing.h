// Layouts of raw samples in memory and the arithmetic that takes one sample out (docs/formats.md).
#pragma once
#include <cstdint>

#include "host_device.h"

namespace umbra {

// Values are fixed: Python's kernels.Layout has the same.
enum class Layout : int {
  u8 = 0,
  u16le = 1,
  u16be = 2,
  raw10 = 3,     // MIPI CSI-2: 4 samples in 5 bytes
  raw12 = 4,     // MIPI CSI-2: 2 samples in 3 bytes
  raw14 = 5,     // MIPI CSI-2: 4 samples in 7 bytes
  packed10 = 6,  // bit stream, most significant bit first, as TIFF and DNG strips store it
  packed12 = 7,
  packed14 = 8,
};

// Bits that one sample takes in memory.
UMBRA_HD int storage_bits(Layout layout) {
  switch (layout) {
    case Layout::u8:
      return 8;
    case Layout::raw10:
    case Layout::packed10:
      return 10;
    case Layout::raw12:
    case Layout::packed12:
      return 12;
    case Layout::raw14:
    case Layout::packed14:
      return 14;
    default:
      return 16;
  }
}

// Bytes that `width` samples take, without padding; a last part of a byte counts whole.
UMBRA_HD int64_t row_bytes(Layout layout, int64_t width) { return (width * storage_bits(layout) + 7) / 8; }

// Samples come in groups that begin on a byte; a MIPI row holds whole groups.
UMBRA_HD int group_samples(Layout layout) {
  switch (layout) {
    case Layout::raw10:
    case Layout::raw14:
      return 4;
    case Layout::raw12:
      return 2;
    default:
      return 1;
  }
}

UMBRA_HD uint16_t raw10_sample(const uint8_t* row, int64_t i) {
  const uint8_t* group = row + i / 4 * 5;
  return static_cast<uint16_t>(group[i % 4] << 2 | ((group[4] >> (2 * (i % 4))) & 3));
}

UMBRA_HD uint16_t raw12_sample(const uint8_t* row, int64_t i) {
  const uint8_t* group = row + i / 2 * 3;
  return static_cast<uint16_t>(group[i % 2] << 4 | ((group[2] >> (4 * (i % 2))) & 15));
}

UMBRA_HD uint16_t raw14_sample(const uint8_t* row, int64_t i) {
  const uint8_t* group = row + i / 4 * 7;
  const uint32_t lows = group[4] | group[5] << 8 | static_cast<uint32_t>(group[6]) << 16;
  return static_cast<uint16_t>(group[i % 4] << 6 | ((lows >> (6 * (i % 4))) & 63));
}

// A sample of a most-significant-bit-first stream; reads no byte beyond the sample's last.
UMBRA_HD uint16_t packed_sample(const uint8_t* row, int64_t i, int bits) {
  const int64_t first_bit = i * bits;
  const uint8_t* p = row + first_bit / 8;
  const int shift = static_cast<int>(first_bit % 8);
  const int bytes = (shift + bits + 7) / 8;
  uint32_t window = 0;
  for (int b = 0; b < bytes; ++b) window = window << 8 | p[b];
  return static_cast<uint16_t>((window >> (bytes * 8 - shift - bits)) & ((1u << bits) - 1));
}

UMBRA_HD uint16_t sample_at(const uint8_t* row, Layout layout, int64_t i) {
  switch (layout) {
    case Layout::u8:
      return row[i];
    case Layout::u16le:
      return static_cast<uint16_t>(row[2 * i] | row[2 * i + 1] << 8);
    case Layout::u16be:
      return static_cast<uint16_t>(row[2 * i] << 8 | row[2 * i + 1]);
    case Layout::raw10:
      return raw10_sample(row, i);
    case Layout::raw12:
      return raw12_sample(row, i);
    case Layout::raw14:
      return raw14_sample(row, i);
    default:
      return packed_sample(row, i, storage_bits(layout));
  }
}

// Two neighbouring samples in one word, the first in its low half.
UMBRA_HD uint32_t pair_of(uint32_t first, uint32_t second) { return first | second << 16; }

// Bytes 0 and 1, or 2 and 3, of a word as a pair.
UMBRA_HD uint32_t low_bytes(uint32_t w) {
#ifdef __CUDA_ARCH__
  return __byte_perm(w, 0, 0x4140);
#else
  return pair_of(w & 255, w >> 8 & 255);
#endif
}

UMBRA_HD uint32_t high_bytes(uint32_t w) {
#ifdef __CUDA_ARCH__
  return __byte_perm(w, 0, 0x4342);
#else
  return pair_of(w >> 16 & 255, w >> 24);
#endif
}

UMBRA_HD uint32_t swap_bytes(uint32_t w) { return w >> 24 | (w >> 8 & 0xff00) | (w & 0xff00) << 8 | w << 24; }

// Four bytes that begin at byte `at` (0..12) of 16, the first one lowest.
template <int at>
UMBRA_HD uint32_t word_at(const uint32_t (&w)[4]) {
  if constexpr (at % 4 == 0)
    return w[at / 4];
  else
    return w[at / 4] >> (8 * (at % 4)) | w[at / 4 + 1] << (32 - 8 * (at % 4));
}

// Sample i of a stream that begins, most significant bit first, with these words.
template <int bits, int i>
UMBRA_HD uint32_t stream_sample(const uint32_t (&big_endian)[4]) {
  constexpr int word = i * bits / 32, shift = i * bits % 32;
  uint32_t window = big_endian[word] << shift;
  if constexpr (shift + bits > 32) window |= big_endian[word + 1] >> (32 - shift);
  return window >> (32 - bits);
}

// Eight samples, as four pairs, from the 16 bytes that begin with them, as four little-endian words; the first of the
// eight begins a byte and, in a MIPI layout, a group.
template <Layout layout>
UMBRA_HD void eight_samples(const uint32_t (&w)[4], uint32_t (&pairs)[4]) {
  if constexpr (layout == Layout::u8) {
    for (int i = 0; i < 2; ++i) pairs[2 * i] = low_bytes(w[i]), pairs[2 * i + 1] = high_bytes(w[i]);
  } else if constexpr (layout == Layout::u16le) {
    for (int i = 0; i < 4; ++i) pairs[i] = w[i];
  } else if constexpr (layout == Layout::u16be) {
    for (int i = 0; i < 4; ++i) pairs[i] = (w[i] & 0x00ff00ff) << 8 | (w[i] >> 8 & 0x00ff00ff);
  } else if constexpr (layout == Layout::raw10) {
    const uint32_t high[2] = {w[0], word_at<5>(w)}, low[2] = {w[1] & 255, w[2] >> 8 & 255};
    for (int g = 0; g < 2; ++g) {
      pairs[2 * g] = low_bytes(high[g]) << 2 | ((low[g] | low[g] << 14) & 0x00030003);
      pairs[2 * g + 1] = high_bytes(high[g]) << 2 | ((low[g] >> 4 | low[g] << 10) & 0x00030003);
    }
  } else if constexpr (layout == Layout::raw12) {
    const uint32_t groups[4] = {w[0], word_at<3>(w), word_at<6>(w), word_at<9>(w)};
    for (int g = 0; g < 4; ++g)
      pairs[g] = low_bytes(groups[g]) << 4 | (groups[g] >> 16 & 15) | (groups[g] >> 4 & 0x000f0000);
  } else if constexpr (layout == Layout::raw14) {
    const uint32_t high[2] = {w[0], word_at<7>(w)}, low[2] = {w[1] & 0xffffff, word_at<11>(w) & 0xffffff};
    for (int g = 0; g < 2; ++g) {
      pairs[2 * g] = low_bytes(high[g]) << 6 | pair_of(low[g] & 63, low[g] >> 6 & 63);
      pairs[2 * g + 1] = high_bytes(high[g]) << 6 | pair_of(low[g] >> 12 & 63, low[g] >> 18);
    }
  } else {
    constexpr int bits = layout == Layout::packed10 ? 10 : layout == Layout::packed12 ? 12 : 14;
    const uint32_t be[4] = {swap_bytes(w[0]), swap_bytes(w[1]), swap_bytes(w[2]), swap_bytes(w[3])};
    pairs[0] = pair_of(stream_sample<bits, 0>(be), stream_sample<bits, 1>(be));
    pairs[1] = pair_of(stream_sample<bits, 2>(be), stream_sample<bits, 3>(be));
    pairs[2] = pair_of(stream_sample<bits, 4>(be), stream_sample<bits, 5>(be));
    pairs[3] = pair_of(stream_sample<bits, 6>(be), stream_sample<bits, 7>(be));
  }
}

// A frame as it lies in memory; owns nothing.
struct FrameView {
  const uint8_t* bytes;
  int64_t stride;  // bytes from one row to the next
  int width, height;
  Layout layout;
};

}  // namespace umbra
