#include "ort_failures.hpp"

#include <algorithm>

namespace convexport {
namespace {

bool says(const std::string& why, std::initializer_list<const char*> texts) {
  return std::any_of(texts.begin(), texts.end(),
                     [&why](const char* text) { return why.find(text) != std::string::npos; });
}

}  // namespace

MachineError missing_provider(const std::string& provider, const std::string& available) {
  return MachineError(
      "E0402", "ONNX Runtime has no " + provider + " here that works and takes the whole model",
      "available: " + available,
      "running on another provider would give other numbers under this one's name",
      "convexport doctor tells what this machine can run");
}

void throw_ort_failure(const std::string& why, const std::string& provider,
                       const std::string& available, const std::filesystem::path& model) {
  const bool cuda = provider == "CUDAExecutionProvider";
  if (cuda && says(why, {"CUDA failure 100", "CUDA failure 35:", "no CUDA-capable device"})) {
    throw MachineError("E0404", "CUDA finds no usable GPU here", "", why,
                       "install NVIDIA's driver, give a container the GPU (--gpus all), or look "
                       "at CUDA_VISIBLE_DEVICES");
  }
  if (cuda && says(why, {"Failed to load", "cannot open shared object"})) {
    throw MachineError("E0402", "a library that " + provider + " needs is not here", "", why,
                       "CUDA and cuDNN, of the versions that this ONNX Runtime was built for, "
                       "have to be where the loader looks: LD_LIBRARY_PATH");
  }
  // What it says when a node found no place but the CPU.
  if (says(why, {"fallback to CPU EP has been explicitly disabled"})) {
    throw missing_provider(provider, available);
  }
  throw InputError("E0303", "ONNX Runtime cannot load the model", model.string(), why);
}

}  // namespace convexport
