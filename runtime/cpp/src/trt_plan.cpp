#include "trt_plan.hpp"

#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <vector>

#include "files.hpp"
#include "json.hpp"
#include "unicode.hpp"

namespace convexport {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLargestFacts = std::size_t{64} << 20;
constexpr std::size_t kHead = std::size_t{1} << 16;
constexpr std::size_t kMostMetadata = std::size_t{1} << 20;
constexpr std::size_t kAuthor = 40, kOptionsShown = 200;  // characters
constexpr int kAmpere = 8, kParts = 3;

std::string this_platform() {
  utsname names{};
  return uname(&names) == 0 ? std::string("linux-") + names.machine : "linux";
}

// The numbers that a version such as 10.3.0.26 or 10.2.0.post1 begins with.
std::vector<int> numbers(const std::string& version) {
  std::vector<int> found;
  std::istringstream text(version);
  for (int number = 0; text >> number;) {
    found.push_back(number);
    if (text.get() != '.') break;
  }
  found.resize(std::max<std::size_t>(found.size(), 2));
  return found;
}

bool same_version(const std::string& was, const std::string& now) {
  if (was == now) return true;
  const auto old = numbers(was), here = numbers(now);
  const auto both = static_cast<std::ptrdiff_t>(std::min(old.size(), here.size()));
  return both >= kParts && std::equal(old.begin(), old.begin() + both, here.begin());
}

// Whether that version runs version-compatible plans of the other.
bool runs_later(const std::string& was, const std::string& now) {
  const auto old = numbers(was), here = numbers(now);
  const bool one_up = (old[0] == 8 && here[0] == 10) || (old[0] == 10 && here[0] == 11);
  const bool known = here[0] > 8 || here[1] >= 6;
  return known && (one_up || (old[0] == here[0] && old[1] <= here[1]));
}

// What a file that calls itself a plan begins like.
std::string kind(const fs::path& plan) {
  std::ifstream file(plan, std::ios::binary);
  std::string head(kHead, '\0');
  file.read(head.data(), static_cast<std::streamsize>(kHead));
  head.resize(static_cast<std::size_t>(file.gcount()));
  if (head.empty()) return "the file is empty";
  std::size_t length = 0;
  for (std::size_t i = 0; i < 4 && i < head.size(); ++i) {
    length |= std::size_t{static_cast<unsigned char>(head[i])} << (8 * i);
  }
  if (head.size() > 4 && head[4] == '{' && length > 1 && length < kMostMetadata) {
    try {
      const Json about = parse_json(head.substr(4, length), "", "");
      const auto author = about.find("author");
      const bool named = author != about.end() && author->is_string();
      auto who = decode_utf8(named ? author->get<std::string>() : "another tool").value();
      who.resize(std::min(who.size(), kAuthor));
      return std::to_string(length + 4) + " bytes of metadata by " + encode_utf8(who) +
             " stand before the plan";
    } catch (const InputError&) {  // it is something else that begins like that
    }
  }
  std::error_code ignored;
  return "it has " + std::to_string(fs::file_size(plan, ignored)) + " bytes";
}

InputError no_facts(const fs::path& file, const std::string& why) {
  return InputError("E0317", file.filename().string() + " is no plan's facts", file.string(), why);
}

InputError no_options(const std::string& what, const Json& options) {
  return InputError("E0318", "these are no options for TensorRT: " + what,
                    shown(options, false, kOptionsShown), "", "build the bundle again");
}

UsageError bad_option(const std::string& field, const Json& value, const std::string& expected) {
  return UsageError("E0204", field + " cannot be " + shown(value, true) + " for TensorRT", "", "",
                    "expected " + expected);
}

void read_options(const Json& options, PlanFacts& facts) {
  static const std::set<std::string> kFields = {
      "typed", "fp16", "int8",        "batch",    "workspace_mib",
      "level", "tf32", "own_kernels", "hardware", "version_compatible",
      "refit", "dla",  "fp32_layers"};
  std::set<std::string> given;
  if (options.is_object()) {
    for (const auto& [key, value] : options.items()) given.insert(key);
  }
  if (given != kFields) throw no_options("fields are missing or unknown", options);
  const Json &batch = options["batch"], &hardware = options["hardware"], &dla = options["dla"];
  const auto whole = [](const Json& each) { return each.is_number_integer(); };
  if (!batch.is_array() || !std::all_of(batch.begin(), batch.end(), whole) ||
      !options["version_compatible"].is_boolean() || !(dla.is_null() || whole(dla))) {
    throw no_options("a value is of another kind", options);
  }
  if (batch.size() != 3 || batch[0] < 1 || batch[1] < batch[0] || batch[2] < batch[1]) {
    throw bad_option("batch", batch, "MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX");
  }
  if (hardware != "same" && hardware != "same_compute_capability" && hardware != "ampere_plus") {
    throw bad_option("hardware", hardware, "one of same, same_compute_capability, ampere_plus");
  }
  if (!dla.is_null() && dla < 0) throw bad_option("dla", dla, "the number of a core");
  facts.batch = batch.get<std::array<std::int64_t, 3>>();
  facts.hardware = hardware.get<std::string>();
  facts.version_compatible = options["version_compatible"].get<bool>();
  if (!dla.is_null()) facts.dla = dla.get<std::int64_t>();
}

PlanFacts parsed(const fs::path& file) {
  std::string reason;
  const auto text = read_file(file, kLargestFacts, reason);
  const std::string name = file.filename().string();
  if (!text) throw InputError("E0302", name + " is not readable JSON: " + reason, file.string());
  const Json data = parse_json(*text, name, file.string());
  const auto field = [&](const char* key) {
    if (!data.is_object()) throw no_facts(file, "TypeError: it is no object");
    const auto found = data.find(key);
    if (found == data.end()) throw no_facts(file, std::string("KeyError: '") + key + "'");
    return *found;
  };
  PlanFacts facts;
  read_options(field("options"), facts);
  std::string driver;  // told, not compared
  const std::pair<const char*, std::string*> texts[] = {
      {"sha256", &facts.sha256},
      {"onnx_sha256", &facts.onnx_sha256},
      {"tensorrt", &facts.tensorrt},
      {"gpu", &facts.gpu},
      {"compute_capability", &facts.compute_capability},
      {"platform", &facts.platform},
      {"driver", &driver}};
  for (const auto& [key, into] : texts) field(key);
  for (const auto& [key, into] : texts) {
    const Json value = field(key);
    if (!value.is_string()) throw no_facts(file, "ValueError: a field is no text");
    *into = value.get<std::string>();
  }
  return facts;
}

}  // namespace

std::string PlanFacts::mismatch(const std::string& version, const Gpu& here) const {
  std::string odd;
  const auto differ = [&odd](const std::string& what, const std::string& was,
                             const std::string& now) {
    if (was == now) return;
    odd += (odd.empty() ? "built for " : "; built for ") + what + " " + was + ", here is " + now;
  };
  differ("platform", platform, this_platform());
  if (!same_version(tensorrt, version) && !(version_compatible && runs_later(tensorrt, version))) {
    differ("TensorRT", tensorrt, version);
  }
  const bool same = compute_capability == here.compute_capability;
  const bool runs = hardware == "ampere_plus" ? numbers(here.compute_capability)[0] >= kAmpere
                    : hardware == "same"      ? same && gpu == here.name
                                              : same;
  if (!runs) {
    differ("GPU", gpu + " (" + compute_capability + ")",
           here.name + " (" + here.compute_capability + ")");
  }
  return odd;
}

fs::path find_plan(const fs::path& model) {
  const bool onnx = model.extension() == ".onnx";
  const fs::path plan = onnx ? model.parent_path() / "engine/model.plan" : model;
  std::error_code ignored;
  if (!fs::is_regular_file(plan, ignored)) {
    throw MachineError(
        "E0409", "the bundle has no TensorRT engine yet", plan.string(),
        "an engine is built by the machine that runs it",
        "on that machine: python3 " + (model.parent_path() / "build_on_device.py").string());
  }
  return plan;
}

std::pair<PlanFacts, std::string> read_plan(const fs::path& plan, const fs::path& model) {
  fs::path beside = plan;
  beside += ".json";
  const std::string name = plan.filename().string();
  std::error_code ignored;
  if (!fs::is_regular_file(beside, ignored)) {
    throw InputError("E0317", "nothing says where " + name + " comes from", beside.string(),
                     "a plan is code: " + kind(plan),
                     "build it with convexport, from its ONNX file");
  }
  PlanFacts facts = parsed(beside);
  std::string reason;
  // Read once: what was hashed is what runs, even if the file is exchanged meanwhile.
  auto bytes = read_file(plan, std::numeric_limits<std::size_t>::max(), reason);
  if (!bytes) throw InputError("E0316", name + " cannot be read: " + reason, plan.string());
  if (sha256_of_bytes(*bytes) != facts.sha256) {
    throw InputError(
        "E0316", name + " is not the plan that " + beside.filename().string() + " tells of",
        plan.string(), "it was cut, changed or exchanged: " + kind(plan), "build it again");
  }
  if (model != plan && sha256_of(model) != facts.onnx_sha256) {
    throw InputError("E0316",
                     name + " was built from another file than " + model.filename().string(),
                     model.string(), "", "build it again");
  }
  return {std::move(facts), std::move(*bytes)};
}

void require_fitting_plan(const PlanFacts& facts, const std::string& version, const Gpu& here) {
  const std::string odd = facts.mismatch(version, here);
  if (odd.empty()) return;
  throw MachineError("E0407", "the engine was built for another machine", odd,
                     "a plan holds code for one GPU and one version of TensorRT",
                     "build it again here: build_on_device.py, or convexport build");
}

}  // namespace convexport
