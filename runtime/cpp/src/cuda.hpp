// The few calls of CUDA's driver that a TensorRT session makes. The driver's library is opened when
// it is first needed: it is on every machine with an NVIDIA GPU, a Jetson and a container too, so
// that a build needs no CUDA toolkit, and one program runs where there is no GPU as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "convexport/errors.hpp"

struct CUctx_st;
struct CUstream_st;

namespace convexport {

struct Gpu {
  std::string name;
  std::string compute_capability;  // "8.7"
  bool integrated = false;         // it shares the host's memory, as on a Jetson
};

struct CudaCalls;

// The first visible GPU, in its primary context, which TensorRT uses too.
class Cuda {
 public:
  // The one of this process. Throws MachineError E0404: there is no driver or no GPU.
  static const Cuda& get();

  const Gpu& gpu() const noexcept { return gpu_; }
  // Make the context the calling thread's own: each thread has to.
  void enter() const;
  // Bytes that are free.
  std::size_t free_memory() const;
  // Copy in the stream's order. All of these throw MachineError: E0405, the call fails.
  void upload(std::uint64_t device, const void* host, std::size_t size, CUstream_st* stream) const;
  void download(void* host, std::uint64_t device, std::size_t size, CUstream_st* stream) const;
  void synchronize(CUstream_st* stream) const;

 private:
  friend class CudaBuffer;
  friend class CudaStream;
  Cuda();
  void call(const char* name, int code) const;
  std::string meaning(int code) const;

  const CudaCalls* calls_;
  CUctx_st* context_ = nullptr;
  Gpu gpu_;
};

// As many bytes on the device as in pinned memory of the host.
// Throws MachineError E0406: there are not that many.
class CudaBuffer {
 public:
  CudaBuffer(const Cuda& cuda, std::size_t size);
  CudaBuffer(const CudaBuffer&) = delete;
  CudaBuffer& operator=(const CudaBuffer&) = delete;
  ~CudaBuffer();

  std::uint64_t device() const noexcept { return device_; }
  void* host() const noexcept { return host_; }

 private:
  const Cuda& cuda_;
  std::uint64_t device_ = 0;
  void* host_ = nullptr;
};

// A stream that does not wait for the default one.
class CudaStream {
 public:
  explicit CudaStream(const Cuda& cuda);
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  ~CudaStream();

  CUstream_st* get() const noexcept { return stream_; }

 private:
  const Cuda& cuda_;
  CUstream_st* stream_ = nullptr;
};

// The error of a GPU without room, with the figures in MiB; needed may be 0, unknown.
MachineError short_of_memory(const std::string& what, std::size_t free, std::size_t needed = 0);

}  // namespace convexport
