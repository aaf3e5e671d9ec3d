// A plan and the file beside it: what it was built from, on and for.
//
// A plan is code for one GPU and one version of TensorRT, and is run as such: nothing of it is
// given to TensorRT before the file beside it says that it is ours, whole, and for this machine.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "cuda.hpp"

namespace convexport {

// What is known of a plan, as far as a loader needs it.
struct PlanFacts {
  std::string sha256, onnx_sha256;  // of the plan, and of the graph that it was built from
  std::string tensorrt;             // the version that built it, with all its parts
  std::string gpu, compute_capability, platform;
  std::array<std::int64_t, 3> batch{};  // smallest, usual, largest
  std::string hardware;                 // which other GPUs it runs on
  bool version_compatible = false;      // it runs on later versions too, and holds code of the host
  std::optional<std::int64_t> dla;      // the core to run on

  // What of this machine it does not run on, both sides named; "" if it does. Versions are
  // compared in the parts that both have: the last is told neither by the library before 10 nor by
  // Python from 10 on.
  std::string mismatch(const std::string& version, const Gpu& here) const;
};

// The plan of a bundle's model: the file itself, or what this device built from the ONNX.
// Throws MachineError E0409: no engine was built here yet.
std::filesystem::path find_plan(const std::filesystem::path& model);

// The facts beside a plan, and the plan's bytes, held against them and the model.
// Throws InputError: E0317, the facts are missing or no such facts; E0302, they are no JSON; E0318,
// what they say of the build makes no sense; E0316, the plan is another one.
std::pair<PlanFacts, std::string> read_plan(const std::filesystem::path& plan,
                                            const std::filesystem::path& model);

// Throws MachineError E0407: the plan was built for another machine; both sides are named.
void require_fitting_plan(const PlanFacts& facts, const std::string& version, const Gpu& here);

}  // namespace convexport
