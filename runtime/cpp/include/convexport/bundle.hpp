// A bundle's manifest: read, checked, and held against the files beside it.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "convexport/specs.hpp"

namespace convexport {

// What a loader needs to know of what manifest.json says.
struct Manifest {
  std::string name, precision, target, runtime, provider, model, reference;
  TensorSpec input, output;
  Preprocess preprocess;
  std::string output_kind;  // logits or probabilities
  double golden_tolerance = 0;
  std::map<std::string, std::string> files;  // name -> SHA-256
  std::optional<std::string> checked_on;     // the kind of CPU that INT8 was checked on
  bool random_weights = false;               // the net, or its last layer, was never trained

  std::size_t classes() const;
};

// Throws InputError: E0304, there is no bundle; E0302, E0301 or E0305, the manifest is not
// readable, has a bad field or is of another schema.
Manifest read_manifest(const std::filesystem::path& bundle);

// The same from the text of a manifest.
Manifest parse_manifest(const std::string& text, const std::string& where);

// Throws InputError E0306: a file is missing, is a link, or was changed after the build.
void verify_files(const std::filesystem::path& bundle, const Manifest& manifest);

// One label a class; "class 0", "class 1" and so on where the bundle has none.
// Throws InputError E0307: they are no UTF-8, or their number is not that of the classes.
std::vector<std::string> read_labels(const std::filesystem::path& bundle, const Manifest& manifest);

// The golden sample: an input and the output that it must give.
// Throws InputError E0308: the arrays cannot be read or do not fit the model.
std::pair<Tensor, Tensor> read_golden(const std::filesystem::path& bundle,
                                      const Manifest& manifest);

}  // namespace convexport
