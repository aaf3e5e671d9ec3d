// ONNX Runtime's library, opened when a bundle asks for it: one program runs where there is none,
// and with any release that is new enough.
#pragma once

#include <onnxruntime_c_api.h>

#include <string>

namespace convexport {

struct OrtLibrary {
  const OrtApi* api;
  std::string version;

  // The one of this process. Throws MachineError E0401: there is none, or it is too old.
  static const OrtLibrary& get();
};

}  // namespace convexport
