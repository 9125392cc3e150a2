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

// A frame as it lies in memory; owns nothing.
struct FrameView {
  const uint8_t* bytes;
  int64_t stride;  // bytes from one row to the next
  int width, height;
  Layout layout;
};

}  // namespace umbra
