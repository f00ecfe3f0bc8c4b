#include <reel/autograd/engine/profile.h>

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include <reel/autograd/engine/table.h>
#include <reel/autograd/error.h>

namespace reel {
namespace {

struct Total {
  std::int64_t calls = 0, forward_ns = 0, backward_ns = 0, cpu_ns = 0, bytes = 0;

  void add(const Profile::Event& event) {
    const bool forward = event.pass == Profile::Pass::forward;
    calls += forward;
    (forward ? forward_ns : backward_ns) += event.duration_ns;
    cpu_ns += event.cpu_ns;
    bytes += event.bytes;
  }
  std::int64_t ns() const { return forward_ns + backward_ns; }
};

// A table of the totals of all events that have the same name, the longest time first.
template <class NameOf>
std::string totals(const char* title, const std::vector<Profile::Event>& events, NameOf name_of) {
  std::map<std::string_view, Total> by_name;
  Total all;
  for (const Profile::Event& event : events) {
    by_name[name_of(event)].add(event);
    all.add(event);
  }
  std::vector<std::pair<std::string_view, Total>> sorted(by_name.begin(), by_name.end());
  std::ranges::stable_sort(sorted, std::greater{}, [](const auto& row) { return row.second.ns(); });
  sorted.emplace_back("total", all);

  Table table({title, "calls", "forward ms", "backward ms", "share", "cpu ms", "MB"});
  for (const auto& [name, total] : sorted)
    table.add({std::string(name), std::to_string(total.calls),
               fmt::format("{:.3f}", 1e-6 * static_cast<double>(total.forward_ns)),
               fmt::format("{:.3f}", 1e-6 * static_cast<double>(total.backward_ns)),
               fmt::format("{:.1f}%", all.ns() == 0 ? 0.0
                                                    : 100 * static_cast<double>(total.ns()) /
                                                          static_cast<double>(all.ns())),
               fmt::format("{:.3f}", 1e-6 * static_cast<double>(total.cpu_ns)),
               fmt::format("{:.3f}", 1e-6 * static_cast<double>(total.bytes))});
  return table.str();
}

}  // namespace

namespace {

std::int64_t nanoseconds(Profile::Clock::duration d) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
}

}  // namespace

Profile::TimePoint Profile::TimePoint::now() {
  std::timespec cpu{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  return {Clock::now(), std::int64_t{cpu.tv_sec} * 1'000'000'000 + cpu.tv_nsec};
}

std::int32_t Profile::module_id(std::string_view name) {
  if (name.empty()) return -1;
  const auto id = std::ranges::find(modules_, name) - modules_.begin();
  if (id == std::ssize(modules_)) modules_.emplace_back(name);
  return static_cast<std::int32_t>(id);
}

void Profile::add(std::string_view op, Pass pass, std::string_view module, std::int32_t step,
                  const TimePoint& begin, std::int64_t bytes) {
  const TimePoint end = TimePoint::now();
  if (events_.empty()) start_ = begin.wall;
  events_.push_back({op, pass, module_id(module), step, nanoseconds(begin.wall - start_),
                     nanoseconds(end.wall - begin.wall), end.cpu_ns - begin.cpu_ns, bytes});
}

Profile& Profile::operator+=(const Profile& other) {
  if (events_.empty()) return *this = other;
  const std::int64_t later = nanoseconds(other.start_ - start_);
  const std::size_t count = other.events_.size();  // `other` may be *this
  for (std::size_t i = 0; i < count; ++i) {
    Event event = other.events_[i];
    event.begin_ns += later;
    if (event.module >= 0)
      event.module = module_id(std::string(other.modules_[static_cast<std::size_t>(event.module)]));
    events_.push_back(event);
  }
  return *this;
}

std::string Profile::str() const {
  return totals("op", events_, [](const Event& event) { return event.op; }) + '\n' +
         totals("module", events_, [this](const Event& event) -> std::string_view {
           if (event.module < 0) return "(none)";
           return modules_[static_cast<std::size_t>(event.module)];
         });
}

void Profile::save_chrome_trace(const std::string& path) const {
  nlohmann::json slices = nlohmann::json::array();
  for (const Event& event : events_) {
    nlohmann::json slice{{"name", event.op},
                         {"ph", "X"},  // a slice with begin and duration, in microseconds
                         {"pid", 1},
                         {"tid", event.pass == Pass::forward ? "forward" : "backward"},
                         {"ts", 1e-3 * static_cast<double>(event.begin_ns)},
                         {"dur", 1e-3 * static_cast<double>(event.duration_ns)}};
    if (event.module >= 0)
      slice["args"]["module"] = modules_[static_cast<std::size_t>(event.module)];
    if (event.step >= 0) slice["args"]["step"] = event.step;
    slice["args"]["cpu_ms"] = 1e-6 * static_cast<double>(event.cpu_ns);
    if (event.pass == Pass::forward) slice["args"]["bytes"] = event.bytes;
    slices.push_back(std::move(slice));
  }
  std::ofstream file(path);
  file << nlohmann::json{{"traceEvents", std::move(slices)}}.dump() << '\n';
  file.close();
  if (!file) throw FileError(fmt::format("{}: the trace cannot be written there", path));
}

}  // namespace reel
