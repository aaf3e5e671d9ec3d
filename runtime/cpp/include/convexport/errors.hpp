// The errors that a user meets: the codes, words and exit codes of the Python side.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace convexport {

// What went wrong, in the parts that a person needs to put it right. The first digit of the code
// is the exit code; what() is the whole message, one part a line.
class Error : public std::runtime_error {
 public:
  Error(std::string code, std::string problem, std::string where = {}, std::string why = {},
        std::string hint = {});

  const std::string& code() const noexcept { return code_; }
  const std::string& problem() const noexcept { return problem_; }
  const std::string& where() const noexcept { return where_; }
  const std::string& why() const noexcept { return why_; }
  const std::string& hint() const noexcept { return hint_; }
  int exit_code() const noexcept { return code_[2] - '0'; }

 private:
  std::string code_, problem_, where_, why_, hint_;
};

// The request makes no sense: 2.
class UsageError : public Error {
  using Error::Error;
};
// A file or data that cannot be used: 3.
class InputError : public Error {
  using Error::Error;
};
// This machine lacks what is needed: 4.
class MachineError : public Error {
  using Error::Error;
};
// The golden sample gives something else here: 5.
class GateError : public Error {
  using Error::Error;
};
// This library cannot load such a bundle: 6.
class UnsupportedError : public Error {
  using Error::Error;
};

}  // namespace convexport
