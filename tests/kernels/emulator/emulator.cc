// The kernels as they are, and a launch by name, for tests on machines without a GPU.
#include "cuda_on_cpu.h"
//
#include "reduce/reduce_gpu.cu"
#include "stretch/stretch_gpu.cu"

extern "C" char __start_emulated_shared[], __stop_emulated_shared[];

namespace {

struct Kernel {
  const char* name;
  void (*call)(const void* const* arguments);
};

template <auto kernel, typename... Types, size_t... index>
void call_with(void (*)(Types...), const void* const* arguments, std::index_sequence<index...>) {
  kernel(*static_cast<const Types*>(arguments[index])...);
}

template <auto kernel, typename... Types>
void unfold(void (*signature)(Types...), const void* const* arguments) {
  call_with<kernel>(signature, arguments, std::index_sequence_for<Types...>{});
}

template <auto kernel>
void call(const void* const* arguments) {
  unfold<kernel>(kernel, arguments);
}

#define KERNEL(name) \
  Kernel { #name, call<&umbra::name> }
constexpr Kernel kKernels[] = {
    KERNEL(stretch_clear),    KERNEL(stretch_count_high), KERNEL(stretch_count_low),    KERNEL(stretch_bits),
    KERNEL(stretch_row_keys), KERNEL(stretch_lags),       KERNEL(stretch_compare_rows), KERNEL(stretch_area),
    KERNEL(stretch_tone),     KERNEL(reduce_clear),       KERNEL(reduce_maps),
};

struct Call {
  const Kernel* kernel;
  const void* const* arguments;
};

}  // namespace

// Runs every block of a launch, in a drawn order. Returns null, or what went wrong.
extern "C" const char* launch(const char* name, const unsigned* grid, unsigned threads, const void* const* arguments,
                              unsigned seed) {
  static std::string fault;
  const Kernel* kernel =
      std::find_if(std::begin(kKernels), std::end(kKernels), [&](const Kernel& k) { return !strcmp(k.name, name); });
  if (kernel == std::end(kKernels)) return "no kernel of that name";
  std::mt19937 random(seed);
  gridDim = {grid[0], grid[1], grid[2]}, blockDim = {threads, 1, 1};
  std::vector<dim3> blocks;
  for (unsigned z = 0; z < grid[2]; ++z)
    for (unsigned y = 0; y < grid[1]; ++y)
      for (unsigned x = 0; x < grid[0]; ++x) blocks.push_back({x, y, z});
  std::shuffle(blocks.begin(), blocks.end(), random);
  Call called{kernel, arguments};
  emulator::block.body = [](void* c) { static_cast<Call*>(c)->kernel->call(static_cast<Call*>(c)->arguments); };
  emulator::block.argument = &called;
  try {
    for (const dim3& b : blocks) {
      blockIdx = b;
      for (char* p = __start_emulated_shared; p < __stop_emulated_shared; ++p) *p = static_cast<char>(random());
      emulator::run_block(threads, random);
    }
  } catch (const std::runtime_error& error) {
    fault = std::string(name) + ": " + error.what();
    return fault.c_str();
  }
  return nullptr;
}
