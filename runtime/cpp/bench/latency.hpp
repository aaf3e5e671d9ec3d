// Latency of a bundle beside its own FP32 reference, over fresh processes.
#pragma once

#include <filesystem>
#include <functional>

#include "result.hpp"

namespace convexport::bench {

// The result as the Python side writes it. Closed loop, one stream, host to host; the models are
// interleaved in each process, and peak memory comes from one more process a model. A bundle for
// TensorRT is measured alone: it has no engine of its FP32 graph.
// Throws as Engine::load does, before anything is measured, and as ask does; UsageError: E0201,
// the batch does not fit a model; E0264 or E0278, the bundle's name is that of its reference, or no
// UTF-8; UnsupportedError E0607: a model gives something else than float32.
Json measure_bundle(const std::filesystem::path& bundle, const Options& options,
                    const std::function<void(const std::string&)>& report);

// What a worker is asked for.
Json work(const Json& request);

}  // namespace convexport::bench
