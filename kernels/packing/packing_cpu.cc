// One packed row -> uint16 samples. Eight samples a step by byte shuffles, the row's end one by one.
#include <cstring>

#include "packing/packing.h"

namespace umbra::UMBRA_ISA {
namespace {

typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));

u8x16 load16(const uint8_t* p) {
  u8x16 v;
  std::memcpy(&v, p, 16);
  return v;
}

// Byte 16 of the two shuffled vectors is a zero.
#define SHUFFLE(v, ...) ((u16x8)__builtin_shufflevector(v, u8x16{}, __VA_ARGS__))

u16x8 raw10_step(u8x16 v) {
  const u16x8 high = SHUFFLE(v, 0, 16, 1, 16, 2, 16, 3, 16, 5, 16, 6, 16, 7, 16, 8, 16);
  const u16x8 low = SHUFFLE(v, 4, 16, 4, 16, 4, 16, 4, 16, 9, 16, 9, 16, 9, 16, 9, 16);
  const u16x8 up = {64, 16, 4, 1, 64, 16, 4, 1};  // brings bits 2i+1..2i to bits 7..6
  return high << 2 | ((low * up) >> 6 & 3);
}

u16x8 raw12_step(u8x16 v) {
  const u16x8 high = SHUFFLE(v, 0, 16, 1, 16, 3, 16, 4, 16, 6, 16, 7, 16, 9, 16, 10, 16);
  const u16x8 low = SHUFFLE(v, 2, 16, 2, 16, 5, 16, 5, 16, 8, 16, 8, 16, 11, 16, 11, 16);
  const u16x8 up = {16, 1, 16, 1, 16, 1, 16, 1};
  return high << 4 | ((low * up) >> 4 & 15);
}

u16x8 raw14_step(u8x16 v) {
  const u16x8 high = SHUFFLE(v, 0, 16, 1, 16, 2, 16, 3, 16, 7, 16, 8, 16, 9, 16, 10, 16);
  // Two bytes that hold the six low bits of each sample, then a shift that leaves them on top.
  const u16x8 low = SHUFFLE(v, 4, 5, 4, 5, 5, 6, 6, 16, 11, 12, 11, 12, 12, 13, 13, 16);
  const u16x8 up = {1 << 10, 1 << 4, 1 << 6, 1 << 8, 1 << 10, 1 << 4, 1 << 6, 1 << 8};
  return high << 6 | (low * up) >> 10;
}

#undef SHUFFLE

// A step loads 16 bytes of which it uses fewer: it must not read past the row's last byte.
template <u16x8 (*step)(u8x16), int kStepBytes>
int unpack_steps(const uint8_t* packed, int64_t bytes, int width, uint16_t* samples) {
  int i = 0;
  for (const uint8_t *p = packed, *end = packed + bytes; i + 8 <= width && p + 16 <= end; i += 8, p += kStepBytes) {
    const u16x8 s = step(load16(p));
    std::memcpy(samples + i, &s, 16);
  }
  return i;
}

}  // namespace

void unpack_row(const uint8_t* packed, Layout layout, int width, uint16_t* samples) {
  const int64_t bytes = row_bytes(layout, width);
  int i = 0;
  switch (layout) {
    case Layout::u8:
      for (; i < width; ++i) samples[i] = packed[i];
      return;
    case Layout::u16le:
      std::memcpy(samples, packed, 2 * static_cast<size_t>(width));
      return;
    case Layout::u16be:
      std::memcpy(samples, packed, 2 * static_cast<size_t>(width));
      for (; i < width; ++i) samples[i] = static_cast<uint16_t>(samples[i] << 8 | samples[i] >> 8);
      return;
    case Layout::raw10:
      i = unpack_steps<raw10_step, 10>(packed, bytes, width, samples);
      break;
    case Layout::raw12:
      i = unpack_steps<raw12_step, 12>(packed, bytes, width, samples);
      break;
    case Layout::raw14:
      i = unpack_steps<raw14_step, 14>(packed, bytes, width, samples);
      break;
    default:
      break;
  }
  for (; i < width; ++i) samples[i] = sample_at(packed, layout, i);
}

}  // namespace umbra::UMBRA_ISA
