#pragma once

#include <nlohmann/json.hpp>

#include <string>

#include <reel/autograd/error.h>

/// What the driver is asked to run: a JSON object of which each setting is taken once.
namespace third_party {

using Json = nlohmann::json;

/// Moves a setting out of the task; the fallback if there is none.
template <class T>
T take(Json& task, const char* name, T fallback) {
  const auto found = task.find(name);
  if (found == task.end()) return fallback;
  T value = found->template get<T>();
  task.erase(found);
  return value;
}
/// The same, in place of the value's default.
template <class T>
void take_into(Json& task, const char* name, T& value) {
  value = take<T>(task, name, T(value));
}

/// Throws ValueError for settings that nothing took.
inline void require_empty(const Json& task) {
  if (!task.empty()) throw reel::ValueError("the driver does not know the settings " + task.dump());
}

}  // namespace third_party
