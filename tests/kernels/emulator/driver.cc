// libcuda for a machine without a GPU: the part of CUDA's driver interface that pycuda and cuda-bindings use for us,
// over the emulated kernels. Work is done as it is enqueued, or kept where a stream is being captured.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

extern "C" const char* launch(const char* name, const unsigned* grid, unsigned threads, const void* const* arguments,
                              unsigned seed);

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kNotFound = 500, kLaunchFailed = 719;
constexpr size_t kMemory = size_t(8) << 30;
size_t used = 0;
std::map<uint64_t, std::pair<void*, size_t>> allocations;
bool capturing = false;
using Work = std::function<int()>;
std::vector<Work> captured;

struct Function {
  std::string name;
};

// Where a kernel's arguments lie in the buffer that pycuda packs: sizes and alignments in order.
struct Layout {
  const char* kernel;
  std::vector<std::pair<size_t, size_t>> parts;
};
const std::pair<size_t, size_t> kPointer{8, 8}, kBuffers{80, 8}, kSettings{20, 4}, kReduce{8, 4};
const Layout kLayouts[] = {
    {"stretch_clear", {kPointer, kBuffers}},
    {"stretch_count_high", {kPointer, kBuffers}},
    {"stretch_count_low", {kPointer, kBuffers}},
    {"stretch_bits", {kPointer, kBuffers}},
    {"stretch_row_keys", {kPointer, kBuffers}},
    {"stretch_lags", {kPointer, kBuffers, kSettings}},
    {"stretch_compare_rows", {kPointer, kBuffers}},
    {"stretch_area", {kPointer, kBuffers}},
    {"stretch_tone", {kPointer, kBuffers, kSettings, kPointer, kPointer, kPointer}},
    {"reduce_clear", {kPointer}},
    {"reduce_maps", {kPointer, kReduce, kPointer, kPointer}},
};

int enqueue(Work work) {
  if (!capturing) return work();
  captured.push_back(std::move(work));
  return kSuccess;
}

int run(const std::string& name, std::vector<unsigned> grid, unsigned threads, std::vector<char> buffer) {
  for (const Layout& layout : kLayouts) {
    if (name != layout.kernel) continue;
    std::vector<const void*> arguments;
    size_t at = 0;
    for (auto [size, alignment] : layout.parts) {
      at = (at + alignment - 1) / alignment * alignment;
      if (at + size > buffer.size()) return kInvalidValue;
      arguments.push_back(buffer.data() + at);
      at += size;
    }
    if (at != buffer.size()) return kInvalidValue;
    if (const char* fault = launch(name.c_str(), grid.data(), threads, arguments.data(), 1)) {
      std::fprintf(stderr, "%s\n", fault);
      return kLaunchFailed;
    }
    return kSuccess;
  }
  return kNotFound;
}

struct Graph {
  std::vector<Work> work;
};

}  // namespace

extern "C" {

int cuInit(unsigned) { return kSuccess; }
int cuDriverGetVersion(int* v) { return *v = 13000, kSuccess; }
int cuDeviceGetCount(int* n) { return *n = 1, kSuccess; }
int cuDeviceGet(int* d, int i) { return *d = i, i ? 101 : kSuccess; }
int cuDeviceGetName(char* name, int size, int) { return std::snprintf(name, size, "Emulated GPU"), kSuccess; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = kMemory, kSuccess; }
int cuDeviceGetAttribute(int* v, int attribute, int) { return *v = attribute == 75 ? 9 : 0, kSuccess; }
int cuGetErrorString(int code, const char** text) {
  *text = code == 2 ? "out of memory" : code == kLaunchFailed ? "unspecified launch failure" : "error";
  return kSuccess;
}
int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR", kSuccess; }

static int context;
int cuDevicePrimaryCtxRetain(void** c, int) { return *c = &context, kSuccess; }
int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
int cuCtxPushCurrent_v2(void*) { return kSuccess; }
int cuCtxPopCurrent_v2(void** c) { return c ? *c = &context, kSuccess : kSuccess; }
int cuCtxGetDevice(int* d) { return *d = 0, kSuccess; }
int cuCtxGetCurrent(void** c) { return *c = &context, kSuccess; }
int cuCtxSetCurrent(void*) { return kSuccess; }
int cuCtxSynchronize() { return kSuccess; }
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = kMemory - used, *total = kMemory, kSuccess; }

int cuMemAlloc_v2(uint64_t* at, size_t bytes) {
  if (used + bytes > kMemory) return 2;
  void* memory = std::aligned_alloc(512, (bytes + 1023) / 512 * 512);
  std::memset(memory, 0xa5, bytes);
  *at = reinterpret_cast<uint64_t>(memory);
  allocations[*at] = {memory, bytes};
  used += bytes;
  return kSuccess;
}
int cuMemFree_v2(uint64_t at) {
  const auto found = allocations.find(at);
  if (found == allocations.end()) return kInvalidValue;
  used -= found->second.second;
  std::free(found->second.first);
  allocations.erase(found);
  return kSuccess;
}
int cuMemHostAlloc(void** p, size_t bytes, unsigned) {
  return *p = std::aligned_alloc(4096, (bytes + 8191) / 4096 * 4096), kSuccess;
}
int cuMemFreeHost(void* p) { return std::free(p), kSuccess; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  return enqueue([=] { return std::memcpy(reinterpret_cast<void*>(to), from, bytes), kSuccess; });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  return enqueue([=] { return std::memcpy(to, reinterpret_cast<void*>(from), bytes), kSuccess; });
}

static uintptr_t handles = 0x1000;
int cuStreamCreate(void** s, unsigned flags) {
  return *s = reinterpret_cast<void*>(handles += 16), flags == 1 ? kSuccess : kInvalidValue;
}
int cuStreamDestroy_v2(void*) { return kSuccess; }
int cuStreamSynchronize(void*) { return kSuccess; }
int cuStreamWaitEvent(void*, void*, unsigned) { return kSuccess; }
int cuEventCreate(void** e, unsigned) { return *e = reinterpret_cast<void*>(handles += 16), kSuccess; }
int cuEventDestroy_v2(void*) { return kSuccess; }
int cuEventRecord(void*, void*) { return kSuccess; }
int cuEventSynchronize(void*) { return kSuccess; }

int cuModuleLoad(void** module, const char* path) {
  FILE* file = std::fopen(path, "rb");
  unsigned char magic[4] = {};
  const bool fatbin = file && std::fread(magic, 1, 4, file) == 4 && !std::memcmp(magic, "\x50\xed\x55\xba", 4);
  if (file) std::fclose(file);
  *module = new std::string(path);
  return fatbin ? kSuccess : 200;
}
int cuFuncSetBlockShape(void*, int, int, int) { return kSuccess; }  // pycuda sets it before each launch, of old
int cuModuleUnload(void*) { return kSuccess; }
int cuModuleGetFunction(void** f, void*, const char* name) {
  for (const Layout& layout : kLayouts)
    if (!std::strcmp(layout.kernel, name)) return *f = new Function{name}, kSuccess;
  return kNotFound;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void*, void** parameters, void** extra) {
  if (parameters || !extra || by != 1 || bz != 1 || shared) return kInvalidValue;
  const char* buffer = nullptr;
  size_t size = 0;
  for (; *extra; extra += 2) {
    if (*extra == reinterpret_cast<void*>(1)) buffer = static_cast<const char*>(extra[1]);
    if (*extra == reinterpret_cast<void*>(2)) size = *static_cast<size_t*>(extra[1]);
  }
  const std::string name = static_cast<Function*>(f)->name;
  std::vector<char> held(buffer, buffer + size);
  return enqueue([=] { return run(name, {gx, gy, gz}, bx, held); });
}

int cuStreamBeginCapture_v2(void*, int mode) {
  if (capturing || mode != 1) return kInvalidValue;
  capturing = true;
  captured.clear();
  return kSuccess;
}
int cuStreamEndCapture(void*, void** graph) {
  capturing = false;
  *graph = new Graph{std::move(captured)};
  return kSuccess;
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  *executable = new Graph(*static_cast<Graph*>(graph));
  return kSuccess;
}
int cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), kSuccess; }
int cuGraphExecDestroy(void* graph) { return delete static_cast<Graph*>(graph), kSuccess; }
int cuGraphLaunch(void* graph, void*) {
  for (const Work& work : static_cast<Graph*>(graph)->work)
    if (const int code = work()) return code;
  return kSuccess;
}

// cuda-bindings asks for functions by name and version.
int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* status) {
  for (const char* suffix : {"_v2", ""})
    if ((*function = dlsym(RTLD_DEFAULT, (std::string(name) + suffix).c_str()))) break;
  if (!std::strcmp(name, "cuGetProcAddress")) *function = reinterpret_cast<void*>(&cuGetProcAddress_v2);
  if (!std::strcmp(name, "cuGraphInstantiate")) *function = reinterpret_cast<void*>(&cuGraphInstantiateWithFlags);
  if (status) *status = *function ? 0 : 1;
  return *function ? kSuccess : kNotFound;
}

}  // extern "C"
