#include "machine.h"

#include <fmt/format.h>

#include <CLI/Version.hpp>
#include <Eigen/Core>
#include <algorithm>
#include <nlohmann/json.hpp>

#include <reel/autograd/kernels/level.h>
#include <reel/autograd/threads.h>
#include <reel/version.h>

#include "../support/system.h"
#include "json_lines.h"

namespace reel::char_lm {
namespace {

std::string compiler() {
#if defined(__clang__)
  return fmt::format("clang++ {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

std::string libraries() {
  return fmt::format("Eigen {}.{}.{}, fmt {}.{}.{}, nlohmann-json {}.{}.{}, CLI11 {}",
                     EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION,
                     FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100,
                     NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR,
                     NLOHMANN_JSON_VERSION_PATCH, CLI11_VERSION);
}

Start start_of(const Json& object) {
  return {count_in(object, "step"),
          {.processor = text_in(object, "processor"),
           .threads = static_cast<int>(std::min<Index>(count_in(object, "threads"), 1 << 20)),
           .compiler = text_in(object, "compiler"),
           .instructions = text_in(object, "instructions"),
           .reel = text_in(object, "reel"),
           .libraries = text_in(object, "libraries")}};
}

}  // namespace

Machine this_machine() {
  return {.processor = examples::processor_name(),
          .threads = threads(),
          .compiler = compiler(),
          .instructions = kernels::name_of(kernels::level()),
          .reel = std::string(version()),
          .libraries = libraries()};
}

std::vector<Start> read_starts(const nn::Location& where) {
  std::vector<Start> starts;
  each_object(where, [&](const Json& object, std::uint64_t) {
    starts.push_back(start_of(object));
    if (starts.size() > 20) starts.erase(starts.begin());
    return true;
  });
  return starts;
}

void note_start(const nn::Location& where, const Start& start) {
  const std::vector<Start> starts = read_starts(where);
  if (!starts.empty() && starts.back().machine == start.machine) return;
  const Machine& m = start.machine;
  Json line;
  line["step"] = start.step;
  line["processor"] = m.processor;
  line["threads"] = m.threads;
  line["compiler"] = m.compiler;
  line["instructions"] = m.instructions;
  line["reel"] = m.reel;
  line["libraries"] = m.libraries;
  std::uint64_t whole = 0;  // of half a line, which a killed process may leave, nothing is kept
  each_object(where, [&](const Json&, std::uint64_t end) {
    whole = end;
    return true;
  });
  cut_off(where, whole);
  append_line(where, line.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n');
}

}  // namespace reel::char_lm
