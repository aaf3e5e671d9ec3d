// A double of TensorRT's headers: the names that src/trt_*.cpp use, and no other, so that they are
// compiled and run where NVIDIA's headers cannot be had. Which version it is, is defined before.
// It proves wiring alone; against NVIDIA's own headers the same sources are compiled apart.
#pragma once

#include <cstddef>
#include <cstdint>

using cudaStream_t = struct CUstream_st*;

#define NV_TENSORRT_VERSION                                                     \
  (NV_TENSORRT_MAJOR < 10                                                       \
       ? NV_TENSORRT_MAJOR * 1000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH \
       : NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH)
#define CONVEXPORT_SINCE(major, minor) \
  (NV_TENSORRT_MAJOR > (major) || (NV_TENSORRT_MAJOR == (major) && NV_TENSORRT_MINOR >= (minor)))

namespace nvinfer1 {

enum class DataType : std::int32_t {
  kFLOAT,
  kHALF,
  kINT8,
  kINT32,
  kBOOL,
  kUINT8,
  kFP8,
#if CONVEXPORT_SINCE(10, 0)
  kBF16,
  kINT64,
#endif
};
enum class TensorLocation : std::int32_t { kDEVICE, kHOST };
enum class TensorIOMode : std::int32_t { kNONE, kINPUT, kOUTPUT };

struct Dims {
  std::int32_t nbDims;
#if CONVEXPORT_SINCE(10, 0)
  std::int64_t d[8];
#else
  std::int32_t d[8];
#endif
};

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
  virtual void log(Severity severity, char const* text) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() = default;
  virtual bool setInputShape(char const* name, Dims const& dims) noexcept = 0;
  virtual Dims getTensorShape(char const* name) const noexcept = 0;
  virtual bool setTensorAddress(char const* name, void* address) noexcept = 0;
  virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
};

class ICudaEngine {
 public:
  virtual ~ICudaEngine() = default;
  virtual std::int32_t getNbIOTensors() const noexcept = 0;
  virtual char const* getIOTensorName(std::int32_t index) const noexcept = 0;
  virtual DataType getTensorDataType(char const* name) const noexcept = 0;
  virtual TensorLocation getTensorLocation(char const* name) const noexcept = 0;
  virtual TensorIOMode getTensorIOMode(char const* name) const noexcept = 0;
  virtual Dims getTensorShape(char const* name) const noexcept = 0;
#if CONVEXPORT_SINCE(10, 1)
  virtual std::int64_t getDeviceMemorySizeV2() const noexcept = 0;
#else
  virtual std::size_t getDeviceMemorySize() const noexcept = 0;
#endif
  virtual IExecutionContext* createExecutionContext() noexcept = 0;
};

class IRuntime {
 public:
  virtual ~IRuntime() = default;
  virtual ICudaEngine* deserializeCudaEngine(void const* bytes, std::size_t size) noexcept = 0;
  virtual void setDLACore(std::int32_t core) noexcept = 0;
#if CONVEXPORT_SINCE(8, 6)
  virtual void setEngineHostCodeAllowed(bool allowed) noexcept = 0;
#endif
};

}  // namespace nvinfer1
