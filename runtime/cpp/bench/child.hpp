// This program once more, in a fresh process that answers one request.
#pragma once

#include <string>
#include <vector>

#include "json.hpp"

namespace convexport::bench {

// The answer of a fresh worker: this program with that one argument. What the worker throws is
// thrown here again. Throws MachineError: E0410, it crashed; E0411, it took longer than allowed;
// E0462, it gave no answer.
Json ask(const std::string& request, double timeout_s);

// The worker's side: run a job and write what it gives, or its error, to what was stdout; what a
// library prints meanwhile goes to stderr.
int answer(Json (*job)(const Json& request), const std::string& request);

// Take variables out of the environment that change threads, memory or numbers behind our back,
// for this process and its children; their names.
std::vector<std::string> drop_variables();

}  // namespace convexport::bench
