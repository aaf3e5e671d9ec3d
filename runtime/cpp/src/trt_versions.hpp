// All that differs between the headers of TensorRT 8.5 and 11 for a loader of plans.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

static_assert(NV_TENSORRT_MAJOR > 8 || (NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR >= 5),
              "named tensors and enqueueV3 came with TensorRT 8.5");

namespace convexport::trt {

using DimSize = std::remove_reference_t<decltype(nvinfer1::Dims::d[0])>;  // int32_t before 10

// How getInferLibVersion() tells a version: 8503 is 8.5.3, 100300 is 10.3.0.
inline std::string version_text(std::int32_t number) {
  const std::int32_t major = number < 10000 ? number / 1000 : number / 10000;
  const std::int32_t minor = number < 10000 ? number / 100 % 10 : number / 100 % 100;
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(number % 100);
}

// Bytes that an execution context takes, next to the weights.
inline std::size_t device_memory(const nvinfer1::ICudaEngine& engine) {
#if NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 1)
  return static_cast<std::size_t>(engine.getDeviceMemorySizeV2());
#else
  return engine.getDeviceMemorySize();
#endif
}

// A version-compatible plan holds code for the CPU too; 8.5 has no such plans.
inline void allow_host_code(nvinfer1::IRuntime& runtime) {
#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR >= 6
  runtime.setEngineHostCodeAllowed(true);
#else
  (void)runtime;
#endif
}

// NumPy's name of a type and its bytes; "" for those that no session handles.
struct Dtype {
  const char* name;
  std::size_t size;
};

inline Dtype dtype(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return {"float32", 4};
    case nvinfer1::DataType::kHALF:
      return {"float16", 2};
    case nvinfer1::DataType::kINT8:
      return {"int8", 1};
    case nvinfer1::DataType::kINT32:
      return {"int32", 4};
    case nvinfer1::DataType::kBOOL:
      return {"bool", 1};
    case nvinfer1::DataType::kUINT8:
      return {"uint8", 1};
#if NV_TENSORRT_MAJOR >= 10
    case nvinfer1::DataType::kINT64:
      return {"int64", 8};
#endif
    default:
      return {"", 0};
  }
}

}  // namespace convexport::trt
