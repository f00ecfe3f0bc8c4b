#pragma once

#include <string_view>
#include <utility>

#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

namespace reel {

/// Where in a model the ops of a thread run: the tape stores it in every record, for tables,
/// profiles and error messages.
struct ModelPlace {
  std::string_view module = {};  ///< "lstm.0"; empty outside of modules
  std::int32_t step = -1;        ///< the time step; -1 outside of a sequence
};

[[gnu::visibility("default")]] inline constinit thread_local ModelPlace current_place;

/// The module in the name of a parameter: "lstm.0" of "lstm.0.w_hh".
inline std::string_view module_of(std::string_view parameter) {
  const std::size_t dot = parameter.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : parameter.substr(0, dot);
}

/// Sets the place of the ops in its lifetime.
class PlaceScope {
 public:
  explicit PlaceScope(const ModelPlace& place) : previous_(std::exchange(current_place, place)) {}
  ~PlaceScope() { current_place = previous_; }
  PlaceScope(const PlaceScope&) = delete;
  PlaceScope& operator=(const PlaceScope&) = delete;

 private:
  ModelPlace previous_;
};

/// Names the module whose ops run in its lifetime, by one of its parameters, and gives them the
/// site of the call as SiteScope does. The name must outlive the scope.
class ModuleScope {
 public:
  ModuleScope(std::string_view parameter, Site site)
      : site_(site), place_({module_of(parameter), current_place.step}) {}

 private:
  SiteScope site_;
  PlaceScope place_;
};

/// Sets the time step of a sequence to which the ops in its lifetime belong.
class StepScope : PlaceScope {
 public:
  explicit StepScope(Index step)
      : PlaceScope({current_place.module, static_cast<std::int32_t>(step)}) {}
};

}  // namespace reel
