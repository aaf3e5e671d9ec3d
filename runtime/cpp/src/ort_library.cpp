#include "ort_library.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "convexport/errors.hpp"

// Where it was when this was built, unless that is where the loader looks anyway.
#ifndef CONVEXPORT_ONNXRUNTIME_FOLDER
#define CONVEXPORT_ONNXRUNTIME_FOLDER ""
#endif

namespace convexport {
namespace {

// What is called here is in all releases since 1.17, with headers of any release since then.
constexpr std::uint32_t kApi = 17;
static_assert(kApi <= ORT_API_VERSION, "the headers of ONNX Runtime are older than 1.17");

constexpr const char* kName = "libonnxruntime.so.1";

// Tried one after the other, and why none will do.
class Search {
 public:
  // Whether the library of that name is there and new enough; then it stays open.
  bool open(const std::string& name) {
    void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    auto* const base =
        library ? reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"))
                : nullptr;
    if (!base) {
      const char* const text = dlerror();
      if (text && why_.empty()) why_ = text;
      if (library) dlclose(library);
      return false;
    }
    found_ = {base()->GetApi(kApi), base()->GetVersionString()};
    if (!found_.api) dlclose(library);
    return found_.api != nullptr;
  }

  const OrtLibrary& found() const {
    if (found_.api) return found_;
    const bool old = !found_.version.empty();
    throw MachineError("E0401", "loading a bundle needs ONNX Runtime 1.17 or newer",
                       old ? "found: " + found_.version : kName, old ? "" : why_,
                       "install it where the loader looks for libraries, or say LD_LIBRARY_PATH");
  }

 private:
  OrtLibrary found_{};
  std::string why_;
};

}  // namespace

const OrtLibrary& OrtLibrary::get() {
  static const OrtLibrary kLibrary = [] {
    // Official builds since 1.31 write a device id into the home and report to their maker, unless
    // this is said before the environment is made. Who wants it may set 0.
    ::setenv("ORT_DISABLE_TELEMETRY", "1", 0);
    const std::string folder = CONVEXPORT_ONNXRUNTIME_FOLDER;
    Search search;
    if (!search.open(kName) && !folder.empty()) search.open(folder + "/" + kName);
    return search.found();
  }();
  return kLibrary;
}

}  // namespace convexport
