#include "convexport/errors.hpp"

namespace convexport {
namespace {

std::string joined(const std::string& code, const std::string& problem, const std::string& where,
                   const std::string& why, const std::string& hint) {
  std::string text = code + " " + problem;
  if (!where.empty()) text += "\nwhere: " + where;
  if (!why.empty()) text += "\nwhy: " + why;
  if (!hint.empty()) text += "\nhint: " + hint;
  return text;
}

}  // namespace

Error::Error(std::string code, std::string problem, std::string where, std::string why,
             std::string hint)
    : std::runtime_error(joined(code, problem, where, why, hint)),
      code_(std::move(code)),
      problem_(std::move(problem)),
      where_(std::move(where)),
      why_(std::move(why)),
      hint_(std::move(hint)) {}

}  // namespace convexport
