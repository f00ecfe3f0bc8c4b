#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "search.h"
#include "terminal.h"
#include "training_log.h"

namespace reel::char_lm {

/// What `tune` prints on standard output: as text a line for each trial that ends a rung, and a
/// table at the end; quietly the last line alone; or an object of JSON for each of these lines, and
/// one for the end.
class TuneLog {
 public:
  TuneLog(LogKind kind, int epochs) : kind_(kind), epochs_(epochs), terminal_(stdout) {}

  void begin(const std::filesystem::path& path, const Search& search,
             const std::vector<int>& rungs);
  void note(std::string_view text);
  /// After a trial ended a rung, or failed.
  void trial(const Trial& trial);
  /// How the search ended, "finished" or "stopped", with all trials, the best one first; `what`
  /// says it in words, `command` what to do next.
  void end(std::string_view end, const std::vector<Trial>& ranked, std::string_view what,
           const std::string& command);

 private:
  LogKind kind_;
  int epochs_;
  Terminal terminal_;
};

/// The page that compares the best trials, and has a table of all of them, the best one first.
std::string tune_page(const std::filesystem::path& directory, const std::vector<Trial>& ranked);

}  // namespace reel::char_lm
