// CUDA's words for one processor: a block's threads are fibers, run in an order drawn anew after every barrier, so that
// a missing barrier shows; shared memory is poisoned before each block. What a kernel computes is what it would on a
// GPU; how fast, and races between blocks, are not to be learnt here.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("emulated_shared")))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(4) uchar4 {
  uint8_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline uchar4 make_uchar4(uint8_t x, uint8_t y, uint8_t z, uint8_t w) { return {x, y, z, w}; }

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr unsigned kLanes = 32;
constexpr size_t kStack = 128 * 1024;

enum class Waits { nowhere, at_warp, at_block };

struct Fiber {
  ucontext_t start;  // only to begin with: swapcontext calls the kernel each time, _longjmp does not
  jmp_buf at;
  bool begun = false;
  std::unique_ptr<char[]> stack;
  Waits waits = Waits::nowhere;
  bool done = false;
  unsigned collectives = 0;  // warp collectives taken part in
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<uint64_t> slots[2];  // what each thread brought to its warp's collective, two in turn
  ucontext_t begin;
  jmp_buf scheduler;
  unsigned current = 0;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
};
inline Block block;

inline void enter() {
  block.body(block.argument);
  block.fibers[block.current].done = true;
  _longjmp(block.scheduler, 1);
}

inline void wait(Waits where) {
  Fiber& self = block.fibers[block.current];
  self.waits = where;
  if (!_setjmp(self.at)) _longjmp(block.scheduler, 1);
}

inline void go_on(Fiber& fiber) {
  if (_setjmp(block.scheduler)) return;
  if (fiber.begun) _longjmp(fiber.at, 1);
  fiber.begun = true;
  swapcontext(&block.begin, &fiber.start);
}

// A warp's threads that have all come to a collective go on; so do a block's at a barrier. Whether any did.
inline bool release(unsigned threads) {
  bool any = false;
  for (unsigned w = 0; w < threads; w += kLanes) {
    bool all = true;
    for (unsigned t = w; t < w + kLanes; ++t) all = all && block.fibers[t].waits == Waits::at_warp;
    if (!all) continue;
    any = true;
    for (unsigned t = w; t < w + kLanes; ++t) block.fibers[t].waits = Waits::nowhere;
  }
  bool all = true;
  for (unsigned t = 0; t < threads; ++t) all = all && block.fibers[t].waits == Waits::at_block;
  if (all)
    for (unsigned t = 0; t < threads; ++t) block.fibers[t].waits = Waits::nowhere;
  return any || all;
}

inline void run_block(unsigned threads, std::mt19937& random) {
  if (threads % kLanes) throw std::runtime_error("a block must hold whole warps");
  block.fibers.resize(threads);
  for (auto& slots : block.slots) slots.assign(threads, 0);
  for (Fiber& fiber : block.fibers) {
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
    fiber.waits = Waits::nowhere, fiber.done = fiber.begun = false, fiber.collectives = 0;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = kStack;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, enter, 0);
  }
  std::vector<unsigned> order(threads);
  for (unsigned t = 0; t < threads; ++t) order[t] = t;
  for (unsigned left = threads; left;) {
    std::shuffle(order.begin(), order.end(), random);
    bool any = false;
    for (unsigned t : order) {
      Fiber& fiber = block.fibers[t];
      if (fiber.done || fiber.waits != Waits::nowhere) continue;
      any = true;
      block.current = t;
      threadIdx = {t, 0, 0};
      go_on(fiber);
      left -= fiber.done;
    }
    if (!left) return;
    if (!release(threads) && !any) throw std::runtime_error("threads of a block part ways before a barrier");
  }
}

// What lane `from` of this thread's warp brought.
template <typename T>
uint64_t* bring(T value) {
  static_assert(sizeof(T) <= 8);
  Fiber& self = block.fibers[block.current];
  const unsigned turn = self.collectives++ % 2, me = block.current;
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  block.slots[turn][me] = bits;
  wait(Waits::at_warp);
  return block.slots[turn].data() + me / kLanes * kLanes;
}

template <typename T>
T taken(const uint64_t* slots, unsigned lane) {
  T value;
  std::memcpy(&value, slots + lane, sizeof value);
  return value;
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait(emulator::Waits::at_block); }

template <typename T>
T __shfl_sync(unsigned, T v, int from) {
  return emulator::taken<T>(emulator::bring(v), from);
}
template <typename T>
T __shfl_xor_sync(unsigned, T v, int mask) {
  const unsigned me = threadIdx.x % 32;
  return emulator::taken<T>(emulator::bring(v), me ^ mask);
}
template <typename T>
T __shfl_up_sync(unsigned, T v, int by) {
  const unsigned me = threadIdx.x % 32;
  const uint64_t* slots = emulator::bring(v);
  return static_cast<int>(me) >= by ? emulator::taken<T>(slots, me - by) : v;
}
template <typename T>
T __shfl_down_sync(unsigned, T v, int by) {
  const unsigned me = threadIdx.x % 32;
  const uint64_t* slots = emulator::bring(v);
  return me + by < 32 ? emulator::taken<T>(slots, me + by) : v;
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  const uint64_t* slots = emulator::bring<uint64_t>(vote);
  unsigned votes = 0;
  for (unsigned t = 0; t < 32; ++t) votes |= static_cast<unsigned>(slots[t]) << t;
  return votes;
}
inline int __ffs(int v) { return v ? std::countr_zero(static_cast<unsigned>(v)) + 1 : 0; }

template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T atomicAdd(T* p, T v) {
  return std::exchange(*p, static_cast<T>(*p + v));
}
template <typename T>
T atomicMax(T* p, T v) {
  return std::exchange(*p, std::max(*p, v));
}
template <typename T>
T atomicMin(T* p, T v) {
  return std::exchange(*p, std::min(*p, v));
}
template <typename T>
T atomicOr(T* p, T v) {
  return std::exchange(*p, *p | v);
}

inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, unsigned by) {
  return static_cast<uint32_t>(((uint64_t(high) << 32 | low) >> (by & 31)) & 0xffffffffu);
}
inline uint32_t halves(uint32_t a, uint32_t b, uint32_t (*pick)(uint32_t, uint32_t)) {
  return pick(a & 0xffff, b & 0xffff) | pick(a >> 16, b >> 16) << 16;
}
inline uint32_t __vminu2(uint32_t a, uint32_t b) {
  return halves(a, b, [](uint32_t x, uint32_t y) { return std::min(x, y); });
}
inline uint32_t __vmaxu2(uint32_t a, uint32_t b) {
  return halves(a, b, [](uint32_t x, uint32_t y) { return std::max(x, y); });
}
inline long long __double_as_longlong(double v) { return std::bit_cast<long long>(v); }
inline double __longlong_as_double(long long v) { return std::bit_cast<double>(v); }
inline uint32_t __float_as_uint(float v) { return std::bit_cast<uint32_t>(v); }
