#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace reel {

/// Where the time and the memory of a tape's ops went.
class Profile {
 public:
  using Clock = std::chrono::steady_clock;

  enum class Pass { forward, backward };
  /// One op, forward or backward.
  struct Event {
    std::string_view op;  ///< a name of the registry
    Pass pass;
    std::int32_t module;                 ///< place in `modules`; -1 outside of modules
    std::int32_t step;                   ///< time step; -1 outside of a sequence
    std::int64_t begin_ns, duration_ns;  ///< begin counts from the first event
    std::int64_t cpu_ns;                 ///< processor time of all threads meanwhile
    std::int64_t bytes;                  ///< of the outputs; 0 in the backward pass
  };
  /// A moment on the clock on the wall and on that of the process, which counts what its threads
  /// take together.
  struct Moment {
    Clock::time_point wall;
    std::int64_t cpu_ns;

    static Moment now();
  };

  const std::vector<Event>& events() const { return events_; }
  /// The names that events refer to: the prefixes of the parameters, "lstm.0".
  const std::vector<std::string>& modules() const { return modules_; }

  /// Adds the events of another tape, such as that of the next step: `Profile total; total += p`.
  Profile& operator+=(const Profile& other);

  /// Two tables, by op and by module: calls, milliseconds forward and backward, share of the time,
  /// milliseconds of processor time (more than the others where several threads work) and megabytes
  /// of outputs, the largest first.
  std::string str() const;
  /// The events in the trace format of Chrome, for chrome://tracing or ui.perfetto.dev: a track for
  /// each pass, a slice for each op. Throws FileError when the file cannot be written.
  void save_chrome_trace(const std::string& path) const;

  /// Adds an event. Called by the tape.
  void add(std::string_view op, Pass pass, std::string_view module, std::int32_t step,
           const Moment& begin, std::int64_t bytes);

 private:
  std::int32_t module_id(std::string_view name);

  std::vector<Event> events_;
  std::vector<std::string> modules_;
  Clock::time_point start_{};
};

}  // namespace reel
