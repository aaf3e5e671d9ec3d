#include "cuda.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <fstream>

namespace convexport {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";
constexpr int kIntegrated = 18, kMajor = 75, kMinor = 76;  // CUdevice_attribute
constexpr int kOutOfMemory = 2;
constexpr unsigned kNonBlocking = 1;
// After one of these every call of the process fails: a kernel went wrong, or the GPU is gone.
constexpr std::array kLost = {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719};

MachineError none(const std::string& what, const std::string& why) {
  return MachineError("E0404", what, "", why,
                      "install NVIDIA's driver, give a container the GPU (--gpus all), or look at "
                      "CUDA_VISIBLE_DEVICES");
}

MachineError no_driver() {
  const char* const why = dlerror();  // nothing of a name that is there but null
  return none("there is no CUDA driver here", why ? why : "");
}

// Bytes of the host's memory that a program could get; 0 where nobody says.
std::size_t host_memory() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    if (line.compare(0, 13, "MemAvailable:") == 0) return std::stoull(line.substr(13)) << 10;
  }
  return 0;
}

}  // namespace

// These functions are the same from CUDA 11.4 on.
struct CudaCalls {
  int (*cuInit)(unsigned);
  int (*cuDeviceGet)(int*, int);
  int (*cuDeviceGetName)(char*, int, int);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuDevicePrimaryCtxRetain)(CUctx_st**, int);
  int (*cuCtxSetCurrent)(CUctx_st*);
  int (*cuMemGetInfo_v2)(std::size_t*, std::size_t*);
  int (*cuMemAlloc_v2)(std::uint64_t*, std::size_t);
  int (*cuMemFree_v2)(std::uint64_t);
  int (*cuMemHostAlloc)(void**, std::size_t, unsigned);
  int (*cuMemFreeHost)(void*);
  int (*cuMemcpyHtoDAsync_v2)(std::uint64_t, const void*, std::size_t, CUstream_st*);
  int (*cuMemcpyDtoHAsync_v2)(void*, std::uint64_t, std::size_t, CUstream_st*);
  int (*cuStreamCreate)(CUstream_st**, unsigned);
  int (*cuStreamSynchronize)(CUstream_st*);
  int (*cuStreamDestroy_v2)(CUstream_st*);
  int (*cuGetErrorName)(int, const char**);
  int (*cuGetErrorString)(int, const char**);
};

namespace {

template <typename Function>
void find(void* library, Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (!function) throw no_driver();
}

// It stays open: what it started ends with the process.
const CudaCalls& driver() {
  static const CudaCalls kCalls = [] {
    void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    if (!library) throw no_driver();
    CudaCalls calls{};
#define CONVEXPORT_FIND(name) find(library, calls.name, #name)
    CONVEXPORT_FIND(cuInit);
    CONVEXPORT_FIND(cuDeviceGet);
    CONVEXPORT_FIND(cuDeviceGetName);
    CONVEXPORT_FIND(cuDeviceGetAttribute);
    CONVEXPORT_FIND(cuDevicePrimaryCtxRetain);
    CONVEXPORT_FIND(cuCtxSetCurrent);
    CONVEXPORT_FIND(cuMemGetInfo_v2);
    CONVEXPORT_FIND(cuMemAlloc_v2);
    CONVEXPORT_FIND(cuMemFree_v2);
    CONVEXPORT_FIND(cuMemHostAlloc);
    CONVEXPORT_FIND(cuMemFreeHost);
    CONVEXPORT_FIND(cuMemcpyHtoDAsync_v2);
    CONVEXPORT_FIND(cuMemcpyDtoHAsync_v2);
    CONVEXPORT_FIND(cuStreamCreate);
    CONVEXPORT_FIND(cuStreamSynchronize);
    CONVEXPORT_FIND(cuStreamDestroy_v2);
    CONVEXPORT_FIND(cuGetErrorName);
    CONVEXPORT_FIND(cuGetErrorString);
#undef CONVEXPORT_FIND
    return calls;
  }();
  return kCalls;
}

}  // namespace

const Cuda& Cuda::get() {
  static const Cuda kCuda;
  return kCuda;
}

Cuda::Cuda() : calls_(&driver()) {
  if (const int code = calls_->cuInit(0)) {
    throw none("CUDA finds no usable GPU here", meaning(code));
  }
  int device = 0, integrated = 0, major = 0, minor = 0;
  call("cuDeviceGet", calls_->cuDeviceGet(&device, 0));
  call("cuDevicePrimaryCtxRetain", calls_->cuDevicePrimaryCtxRetain(&context_, device));
  std::array<char, 256> name{};
  call("cuDeviceGetName",
       calls_->cuDeviceGetName(name.data(), static_cast<int>(name.size()) - 1, device));
  const auto attribute = [&](int* value, int which) {
    call("cuDeviceGetAttribute", calls_->cuDeviceGetAttribute(value, which, device));
  };
  attribute(&integrated, kIntegrated);
  attribute(&major, kMajor);
  attribute(&minor, kMinor);
  gpu_ = {name.data(), std::to_string(major) + "." + std::to_string(minor), integrated != 0};
}

void Cuda::enter() const { call("cuCtxSetCurrent", calls_->cuCtxSetCurrent(context_)); }

std::size_t Cuda::free_memory() const {
  enter();
  std::size_t free = 0, total = 0;
  call("cuMemGetInfo_v2", calls_->cuMemGetInfo_v2(&free, &total));
  // The driver of a Jetson does not count what the kernel's caches would give back.
  return std::max(free, gpu_.integrated ? host_memory() : 0);
}

void Cuda::upload(std::uint64_t device, const void* host, std::size_t size,
                  CUstream_st* stream) const {
  call("cuMemcpyHtoDAsync_v2", calls_->cuMemcpyHtoDAsync_v2(device, host, size, stream));
}

void Cuda::download(void* host, std::uint64_t device, std::size_t size, CUstream_st* stream) const {
  call("cuMemcpyDtoHAsync_v2", calls_->cuMemcpyDtoHAsync_v2(host, device, size, stream));
}

void Cuda::synchronize(CUstream_st* stream) const {
  call("cuStreamSynchronize", calls_->cuStreamSynchronize(stream));
}

void Cuda::call(const char* name, int code) const {
  if (code == 0) return;
  if (code == kOutOfMemory) {
    std::size_t free = 0, total = 0;  // where they fail, the context still tells what is free
    if (calls_->cuMemGetInfo_v2(&free, &total) != 0) free = 0;
    throw short_of_memory(std::string(name) + " found no more", free);
  }
  const bool lost = std::find(kLost.begin(), kLost.end(), code) != kLost.end();
  throw MachineError("E0405", std::string("CUDA's ") + name + " failed: " + meaning(code), "",
                     lost ? "the GPU's context is lost to this process" : "",
                     lost ? "start a new process; nvidia-smi or dmesg may say more" : "");
}

std::string Cuda::meaning(int code) const {
  const char *name = nullptr, *text = nullptr;
  calls_->cuGetErrorName(code, &name);
  calls_->cuGetErrorString(code, &text);
  return std::string(name ? name : "?") + " (" + std::to_string(code) + "): " + (text ? text : "?");
}

CudaBuffer::CudaBuffer(const Cuda& cuda, std::size_t size) : cuda_(cuda) {
  cuda_.enter();
  cuda_.call("cuMemAlloc_v2", cuda_.calls_->cuMemAlloc_v2(&device_, size));
  if (const int code = cuda_.calls_->cuMemHostAlloc(&host_, size, 0)) {
    cuda_.calls_->cuMemFree_v2(device_);
    cuda_.call("cuMemHostAlloc", code);
  }
}

// A lost context has lost its memory too: nothing is asked of what these return.
CudaBuffer::~CudaBuffer() {
  cuda_.calls_->cuCtxSetCurrent(cuda_.context_);
  cuda_.calls_->cuMemFree_v2(device_);
  cuda_.calls_->cuMemFreeHost(host_);
}

CudaStream::CudaStream(const Cuda& cuda) : cuda_(cuda) {
  cuda_.enter();
  cuda_.call("cuStreamCreate", cuda_.calls_->cuStreamCreate(&stream_, kNonBlocking));
}

CudaStream::~CudaStream() {
  cuda_.calls_->cuCtxSetCurrent(cuda_.context_);
  cuda_.calls_->cuStreamDestroy_v2(stream_);
}

MachineError short_of_memory(const std::string& what, std::size_t free, std::size_t needed) {
  const auto mib = [](std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB are "; };
  return MachineError(
      "E0406", "the GPU has too little memory: " + what,
      (needed ? "at least " + mib(needed) + "needed, " : "") + mib(free) + "free", "",
      "close other programs that use the GPU, or build for a smaller batch or workspace");
}

}  // namespace convexport
