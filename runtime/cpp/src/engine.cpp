#include "convexport/engine.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "cpu.hpp"
#include "session.hpp"

namespace convexport {
namespace {

std::string formatted(const char* format, double value) {
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

// In place: the exponents' shares of their sum.
void softmax(std::vector<float>& logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (float& value : logits) value = std::exp(value - largest);
  // In a float, many small shares beside a large one would be lost.
  const auto sum = static_cast<float>(std::accumulate(logits.begin(), logits.end(), 0.0));
  for (float& value : logits) value /= sum;
}

}  // namespace

Engine::Engine(Manifest manifest, std::vector<std::string> labels, std::unique_ptr<Session> session)
    : manifest_(std::move(manifest)), labels_(std::move(labels)), session_(std::move(session)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::load(const std::filesystem::path& bundle, const LoadOptions& options) {
  Manifest manifest = read_manifest(bundle);
  verify_files(bundle, manifest);
  const auto model = bundle / manifest.model;
  auto session = open_session(model, manifest.runtime, manifest.provider, options);
  if (!(session->input() == manifest.input && session->output() == manifest.output)) {
    throw InputError("E0315", "the model does not take and give what the manifest says",
                     model.string(), "", "build the bundle again");
  }
  if (manifest.input.dtype != "float32" || manifest.output.dtype != "float32") {
    throw UnsupportedError("E0607", "this library runs models from float32 to float32",
                           manifest.input.text() + ", " + manifest.output.text());
  }
  auto labels = read_labels(bundle, manifest);
  Engine engine(std::move(manifest), std::move(labels), std::move(session));
  const auto &checked = engine.manifest_.checked_on, here = std::optional(integer_kernels());
  if (checked && checked != here) {
    engine.warnings_.push_back(engine.manifest_.name + " was checked on " + *checked +
                               ", and this is " + *here +
                               ": INT8 may compute and cost something else. Run convexport verify "
                               "and convexport bench on this machine");
  }
  if (options.self_test) engine.self_test(bundle);
  return engine;
}

void Engine::compute(Span<const float> values, const Shape& shape, const Sink& sink) const {
  require_here();
  if (!manifest_.input.fits(shape)) {
    throw UsageError("E0201", "the input does not fit the model",
                     "expected " + manifest_.input.text() + ", given float32 " + text(shape));
  }
  if (values.size != count(shape)) {
    throw UsageError("E0201", "the input has another number of values than its shape says",
                     std::to_string(values.size) + " for " + text(shape));
  }
  session_->run(values.data, shape, sink);
}

Tensor Engine::run(const Tensor& batch) const {
  return run({batch.values.data(), batch.values.size()}, batch.shape);
}

Tensor Engine::run(Span<const float> values, const Shape& shape) const {
  Tensor logits;
  compute(values, shape, [&logits](const float* given, const Shape& dims) {
    logits = {dims, {given, given + count(dims)}};
  });
  return logits;
}

Shape Engine::run(Span<const float> values, const Shape& shape, Span<float> logits) const {
  Shape written;
  compute(values, shape, [&](const float* given, const Shape& dims) {
    if (logits.size != count(dims)) {
      throw UsageError("E0201", "the memory for the output has another number of values than that",
                       std::to_string(logits.size) + " for " + text(dims));
    }
    std::copy_n(given, logits.size, logits.data);
    written = dims;
  });
  return written;
}

Classified Engine::classify(const std::filesystem::path& image, std::size_t top) const {
  require_here();
  return classify_tensor(preprocess(image, manifest_.preprocess), top);
}

Classified Engine::classify(const Image& image, std::size_t top) const {
  require_here();
  return classify_tensor(to_tensor(image, manifest_.preprocess), top);
}

Classified Engine::classify_tensor(Tensor input, std::size_t top) const {
  // Where the batch is fixed it is filled up with the same image.
  if (const auto* batch = std::get_if<std::int64_t>(&manifest_.input.shape[0])) {
    const std::vector<float> one = input.values;
    for (; input.shape[0] < *batch; ++input.shape[0]) {
      input.values.insert(input.values.end(), one.begin(), one.end());
    }
  }
  std::vector<float> scores = run(input).values;
  if (labels_.empty() || scores.size() < labels_.size()) {
    throw InputError("E0315", "the model does not take and give what the manifest says",
                     manifest_.model, "", "build the bundle again");
  }
  scores.resize(labels_.size());
  if (manifest_.output_kind == "logits") softmax(scores);
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t one, std::size_t other) { return scores[one] > scores[other]; });
  Classified best;
  for (std::size_t i = 0; i < std::min(top, order.size()); ++i) {
    best.emplace_back(labels_[order[i]], scores[order[i]]);
  }
  return best;
}

double Engine::self_test(const std::filesystem::path& bundle) const {
  require_here();
  const auto [sample, expected] = read_golden(bundle, manifest_);
  const Tensor actual = run(sample);
  if (actual.shape != expected.shape) {
    throw InputError("E0308", "the golden sample's output is of another batch than its input",
                     bundle.string());
  }
  float off = 0, largest = 0;
  for (std::size_t i = 0; i < actual.values.size(); ++i) {
    const float error = std::fabs(actual.values[i] - expected.values[i]);
    if (std::isnan(error) || error > off) off = error;  // which nothing exceeds once it is NaN
    largest = std::max(largest, std::fabs(expected.values[i]));
  }
  const double error = std::fabs(off / largest);  // 0/0 may have a sign
  if (!(error <= manifest_.golden_tolerance)) {
    throw GateError("E0500",
                    "the golden sample's output is off by " + formatted("%.2g", error) +
                        " of its largest value",
                    bundle.string(),
                    formatted("%g", manifest_.golden_tolerance) +
                        " is allowed: this machine computes something else than the one that "
                        "built the bundle",
                    "convexport verify BUNDLE; build again on a machine like this one");
  }
  return error;
}

const std::string& Engine::runtime() const noexcept {
  static const std::string kNone;
  return session_ ? session_->runtime() : kNone;
}

void Engine::require_here() const {
  if (session_) return;
  throw UsageError("E0207", "the engine was moved away", "", "another object has its session now",
                   "use that one");
}

}  // namespace convexport
