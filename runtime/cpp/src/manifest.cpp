#include <algorithm>
#include <cmath>
#include <set>

#include "convexport/bundle.hpp"
#include "convexport/errors.hpp"
#include "files.hpp"
#include "json.hpp"
#include "unicode.hpp"

namespace convexport {
namespace {

namespace fs = std::filesystem;

constexpr int kSchemaVersion = 1;
constexpr std::size_t kLargest = std::size_t{64} << 20;
constexpr std::size_t kLongestName = 255;  // bytes, of a file on Linux

InputError bad(const std::string& field, const std::string& value, const std::string& expected) {
  return InputError("E0305", "the manifest has a bad " + field + ": " + quoted(shown(value)),
                    "manifest.json", "", "expected " + expected + "; build the bundle again");
}

InputError bad_field(const std::string& kind, const std::string& field, const Json& value,
                     const std::string& expected = {}, bool tuples = true) {
  return InputError("E0301", kind + " has a bad field " + field + ": " + shown(value, tuples), "",
                    "", expected.empty() ? "" : "expected " + expected);
}

Json at(const Json& data, const std::string& key) {
  const auto found = data.find(key);
  return found == data.end() ? Json() : *found;
}

bool one_of(const Json& value, std::initializer_list<const char*> known) {
  return std::any_of(known.begin(), known.end(), [&](const char* each) { return value == each; });
}

void check_keys(const std::string& kind, const Json& data, const std::set<std::string>& known) {
  std::set<std::string> odd = known;
  for (const auto& [key, value] : data.items()) {
    if (!odd.erase(key)) odd.insert(key);
  }
  if (odd.empty()) return;
  std::string names;
  for (const std::string& key : odd) names += (names.empty() ? "" : ", ") + key;
  throw bad_field(kind, names, "missing or unknown", "exactly " + shown(Json(known)));
}

TensorSpec tensor(const Json& data) {
  check_keys("tensorspec", data, {"name", "shape", "dtype"});
  const Json& shape = data["shape"];
  TensorSpec spec{shown(data["name"]), {}, shown(data["dtype"])};
  if (data["name"].is_string()) spec.name = data["name"].get<std::string>();
  if (!shape.is_array()) throw bad_field("tensorspec", "shape", shape, "", false);
  for (const Json& dim : shape) {
    if (dim.is_number_integer()) {
      spec.shape.emplace_back(dim.get<std::int64_t>());
    } else if (dim.is_string()) {
      spec.shape.emplace_back(dim.get<std::string>());
    } else {
      throw bad_field("tensorspec", "shape", shape, "", false);
    }
  }
  if (spec.shape.size() < 2 || spec.shape.back().index() != 0) {
    throw bad("shape", shown(shape, true), "a batch and fixed dimensions");
  }
  return spec;
}

bool all_of(const Json& list, bool (*holds)(const Json&)) {
  return list.is_array() && std::all_of(list.begin(), list.end(), holds);
}

void check_preprocess(const Json& data) {
  const std::string kind = "preprocess";
  if (!one_of(data["interpolation"], {"bilinear", "bicubic"})) {
    throw bad_field(kind, "interpolation", data["interpolation"], "one of ('bilinear', 'bicubic')");
  }
  if (!one_of(data["channels"], {"RGB", "BGR", "L"})) {
    throw bad_field(kind, "channels", data["channels"], "one of ('RGB', 'BGR', 'L')");
  }
  if (!one_of(data["exif"], {"apply", "ignore"})) {
    throw bad_field(kind, "exif", data["exif"], "one of ('apply', 'ignore')");
  }
  const Json sizes = Json::array({data["crop"], data["resize"]});
  const Json numbers = Json::array({data["mean"], data["std"]});
  const auto whole = [](const Json& each) { return each.is_number_integer(); };
  // What JSON calls a number is finite: the parser refuses what no double holds.
  const auto number = [](const Json& each) { return each.is_number(); };
  if (!all_of(sizes[0], whole) || !all_of(sizes[1], whole)) {
    throw bad_field(kind, "crop, resize", sizes, "integers");
  }
  if (!all_of(numbers[0], number) || !all_of(numbers[1], number)) {
    throw bad_field(kind, "mean, std", numbers, "finite numbers");
  }
  const std::size_t channels = data["channels"] == "L" ? 1 : 3;
  const auto positive = [](const Json& each) { return each.get<double>() > 0; };
  if (numbers[0].size() != channels || numbers[1].size() != channels ||
      !all_of(numbers[1], positive)) {
    throw bad_field(kind, "mean, std", numbers, std::to_string(channels) + " numbers each");
  }
  if (sizes[0].size() != 2 || sizes[1].empty() || sizes[1].size() > 2) {
    throw bad_field(kind, "crop, resize", sizes, "(h, w)");
  }
  const auto crop = sizes[0].get<std::vector<std::int64_t>>();
  const auto resize = sizes[1].get<std::vector<std::int64_t>>();
  const auto least = *std::min_element(resize.begin(), resize.end());
  if (std::min(crop[0], crop[1]) < 1 || least < std::min(crop[0], crop[1])) {
    throw bad_field(kind, "crop, resize", sizes, "crop <= resize");
  }
}

Preprocess preprocess_of(const Json& data) {
  check_keys("preprocess", data,
             {"crop", "resize", "interpolation", "channels", "mean", "std", "exif"});
  check_preprocess(data);
  Preprocess spec;
  spec.crop = data["crop"].get<std::array<std::int64_t, 2>>();
  spec.resize = data["resize"].get<std::vector<std::int64_t>>();
  spec.bicubic = data["interpolation"] == "bicubic";
  spec.channels = data["channels"].get<std::string>();
  // Read as double and rounded once more, as numpy does.
  for (const Json& value : data["mean"])
    spec.mean.push_back(static_cast<float>(value.get<double>()));
  for (const Json& value : data["std"]) spec.std.push_back(static_cast<float>(value.get<double>()));
  spec.exif = data["exif"] == "apply";
  return spec;
}

bool inside(const std::string& name) {
  const auto codes = decode_utf8(name);
  const fs::path path(name);
  if (!codes || !printable(*codes) || name.size() > kLongestName) return false;
  if (name.find('\\') != std::string::npos || path.is_absolute()) return false;
  bool some = false;
  for (const fs::path& part : path) {
    if (part == "..") return false;
    some = some || (part != "." && !part.empty());
  }
  return some;
}

bool is_sha256(const Json& digest) {
  if (!digest.is_string()) return false;
  const auto text = digest.get<std::string>();
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::map<std::string, std::string> files_of(const Json& data, const Manifest& manifest) {
  std::map<std::string, std::string> files;
  for (const auto& [name, digest] : data.items()) {
    if (!inside(name)) throw bad("files", shown(Json(name)), "names inside the bundle");
    if (!is_sha256(digest)) throw bad("files." + name, shown(digest), "a SHA-256 in hex");
    files.emplace(name, digest.get<std::string>());
  }
  for (const std::string& name : {manifest.model, manifest.reference, std::string(kSampleInput),
                                  std::string(kSampleExpected)}) {
    if (!files.count(name)) throw bad("files", "no " + name, "every file that the bundle needs");
  }
  return files;
}

void check_kinds(const Json& data) {
  for (const char* key :
       {"name", "precision", "target", "runtime", "provider", "model", "reference"}) {
    if (!at(data, key).is_string()) throw bad(key, shown(at(data, key)), "a text");
  }
  for (const char* key : {"files", "weights", "input", "output", "preprocess"}) {
    if (!at(data, key).is_object()) throw bad(key, shown(at(data, key)), "an object");
  }
  for (const char* key : {"graph", "layers"}) {
    if (data.contains(key) && !data[key].is_object()) throw bad(key, shown(data[key]), "an object");
  }
}

Manifest manifest_of(const Json& data) {
  check_kinds(data);
  if (!one_of(data["precision"], {"fp32", "bf16", "fp16", "int8"})) {
    throw bad("precision", shown(data["precision"]), "one of fp32, bf16, fp16, int8");
  }
  const Json tolerance = at(data, "golden_tolerance"), kind = at(data["weights"], "kind");
  const bool sane = tolerance.is_number_float() && tolerance > 0.0 && tolerance < 1.0;
  if (!sane) throw bad("golden_tolerance", shown(tolerance), "a number between 0 and 1");
  if (!one_of(kind, {"pretrained", "file", "digits", "random"})) {
    throw bad("weights.kind", shown(kind), "a kind of weights");
  }
  Manifest manifest;
  manifest.input = tensor(data["input"]);
  manifest.preprocess = preprocess_of(data["preprocess"]);
  const auto shape = manifest.preprocess.shape();
  const auto& taken = manifest.input.shape;
  if (taken.size() != 4 ||
      !std::equal(shape.begin(), shape.end(), taken.begin() + 1,
                  [](std::int64_t size, const Dim& dim) { return dim == Dim(size); })) {
    throw bad("preprocess", shown(Json(shape), true), "images for " + manifest.input.text());
  }
  if (!one_of(at(data, "output_kind"), {"logits", "probabilities"})) {
    throw bad("output_kind", shown(at(data, "output_kind")), "logits or probabilities");
  }
  manifest.name = data["name"].get<std::string>();
  manifest.precision = data["precision"].get<std::string>();
  manifest.target = data["target"].get<std::string>();
  manifest.runtime = data["runtime"].get<std::string>();
  manifest.provider = data["provider"].get<std::string>();
  manifest.model = data["model"].get<std::string>();
  manifest.reference = data["reference"].get<std::string>();
  manifest.output = tensor(data["output"]);
  manifest.output_kind = data["output_kind"].get<std::string>();
  manifest.golden_tolerance = tolerance.get<double>();
  manifest.files = files_of(data["files"], manifest);
  const Json checked = at(data, "checked_on");
  if (!checked.is_null()) manifest.checked_on = shown(checked);
  manifest.random_weights = kind == "random" || at(data["weights"], "classifier") == "random";
  return manifest;
}

}  // namespace

std::size_t Manifest::classes() const {
  return static_cast<std::size_t>(std::get<std::int64_t>(output.shape.back()));
}

Manifest parse_manifest(const std::string& text, const std::string& where) {
  const Json data = parse_json(text, "manifest.json", where);
  const Json version = data.is_object() ? at(data, "schema_version") : Json();
  if (!version.is_number_integer() || version != kSchemaVersion) {
    throw bad("schema_version", shown(version), "1, which this version reads");
  }
  return manifest_of(data);
}

Manifest read_manifest(const fs::path& bundle) {
  const fs::path path = bundle / "manifest.json";
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) {
    const fs::path name =
        bundle.has_filename() ? bundle.filename() : bundle.parent_path().filename();
    const bool exists = fs::exists(bundle, ignored);
    throw InputError("E0304",
                     (name.empty() ? bundle : name).string() +
                         (exists ? " is not a bundle: it has no manifest.json" : " does not exist"),
                     bundle.string(), "", "convexport build MODEL -o DIR writes one");
  }
  std::string reason;
  const auto text = read_file(path, kLargest, reason);
  if (!text) {
    throw InputError("E0302", "manifest.json is not readable JSON: " + reason, path.string());
  }
  return parse_manifest(*text, path.string());
}

}  // namespace convexport
