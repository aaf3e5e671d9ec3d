// Load a bundle and run it.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "convexport/bundle.hpp"
#include "convexport/errors.hpp"
#include "convexport/preprocess.hpp"
#include "convexport/specs.hpp"

namespace convexport {

class Session;

struct LoadOptions {
  int threads = 0;        // intra-op; 0 lets the runtime choose
  bool self_test = true;  // run the golden sample once
  bool spin = true;       // whether idle threads spin between runs
};

// The most probable labels, best first, with their probabilities.
using Classified = std::vector<std::pair<std::string, float>>;

// A loaded bundle. It can be moved, not copied; one that was moved away throws UsageError E0207.
// All its const methods may be called by any number of threads at the same time; moving and
// destroying it is for one thread while no other uses it.
class Engine {
 public:
  // Load a bundle: hashes verified, runtime as the manifest says, golden sample run.
  // Throws InputError: it is incomplete or was changed; MachineError: what it needs is not here;
  // UnsupportedError E0600, E0605 or E0607: this library cannot load it; GateError E0500: the
  // golden sample's output is not what it was.
  static Engine load(const std::filesystem::path& bundle, const LoadOptions& options = {});

  // Logits NxC of a batch as manifest().input says. Throws UsageError E0201: it does not fit.
  Tensor run(const Tensor& batch) const;
  // The same for values that lie elsewhere; and into memory of the caller, which the logits have to
  // fill, then their shape is what comes back. Throws UsageError E0201: a length does not fit.
  Tensor run(Span<const float> values, const Shape& shape) const;
  Shape run(Span<const float> values, const Shape& shape, Span<float> logits) const;

  // The most probable labels of an image file, or of pixels. Throws as preprocess and to_tensor do.
  Classified classify(const std::filesystem::path& image, std::size_t top = 5) const;
  Classified classify(const Image& image, std::size_t top = 5) const;

  // Run the golden sample of the bundle; how far the output is off, relative to its largest
  // magnitude. Throws GateError E0500: farther than the manifest allows.
  double self_test(const std::filesystem::path& bundle) const;

  const Manifest& manifest() const noexcept { return manifest_; }
  const std::vector<std::string>& labels() const noexcept { return labels_; }
  // "onnxruntime 1.31.1"; "" once it was moved away.
  const std::string& runtime() const noexcept;
  // What the Python side would warn of: INT8 on another kind of CPU than it was checked on.
  const std::vector<std::string>& warnings() const noexcept { return warnings_; }

  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

 private:
  using Sink = std::function<void(const float* values, const Shape& shape)>;

  Engine(Manifest manifest, std::vector<std::string> labels, std::unique_ptr<Session> session);
  void compute(Span<const float> values, const Shape& shape, const Sink& sink) const;
  Classified classify_tensor(Tensor input, std::size_t top) const;
  void require_here() const;

  Manifest manifest_;
  std::vector<std::string> labels_, warnings_;
  std::unique_ptr<Session> session_;
};

}  // namespace convexport
