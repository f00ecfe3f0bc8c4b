#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace reel {

/// Time and memory taken by a tape's ops.
class Profile {
 public:
  using Clock = std::chrono::steady_clock;

  enum class Pass { forward, backward };
  /// One op, forward or backward.
  struct Event {
    std::string_view op;  ///< a name of the registry
    Pass pass;
    std::int32_t module;                 ///< index in `modules`; -1 outside of modules
    std::int32_t step;                   ///< time step; -1 outside of a sequence
    std::int64_t begin_ns, duration_ns;  ///< begin is relative to the first event
    std::int64_t cpu_ns;                 ///< CPU time of all threads in that interval
    std::int64_t bytes;                  ///< of the outputs; 0 in the backward pass
  };
  /// A point in wall-clock time and in the process's CPU time, which is summed over its threads.
  struct TimePoint {
    Clock::time_point wall;
    std::int64_t cpu_ns;

    /// This moment.
    static TimePoint now();
  };

  const std::vector<Event>& events() const { return events_; }
  /// The names that events refer to: the prefixes of the parameters, "lstm.0".
  const std::vector<std::string>& modules() const { return modules_; }

  /// Adds the events of another tape, such as the next step's: `Profile total; total += p`.
  Profile& operator+=(const Profile& other);

  /// Two tables, by op and by module: calls, milliseconds forward and backward, share of the time,
  /// milliseconds of CPU time (more than wall-clock time where several threads work) and megabytes
  /// of outputs, largest first.
  std::string str() const;
  /// Writes the events in Chrome's trace format, for chrome://tracing or ui.perfetto.dev: a track
  /// for each pass, a slice for each op. Throws FileError if the file cannot be written.
  void save_chrome_trace(const std::string& path) const;

  /// Adds an event. Called by the tape.
  void add(std::string_view op, Pass pass, std::string_view module, std::int32_t step,
           const TimePoint& begin, std::int64_t bytes);

 private:
  std::int32_t module_id(std::string_view name);

  std::vector<Event> events_;
  std::vector<std::string> modules_;
  Clock::time_point start_{};
};

}  // namespace reel
