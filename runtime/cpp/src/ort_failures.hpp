// What ONNX Runtime's words mean when a session cannot be made.
#pragma once

#include <filesystem>
#include <string>

#include "convexport/errors.hpp"

namespace convexport {

// Throws MachineError: E0404, there is no GPU; E0402, the provider's libraries are missing, or it
// does not take the whole model. InputError E0303: anything else, which is about the file.
[[noreturn]] void throw_ort_failure(const std::string& why, const std::string& provider,
                                    const std::string& available,
                                    const std::filesystem::path& model);

// Its code is E0402.
MachineError missing_provider(const std::string& provider, const std::string& available);

}  // namespace convexport
