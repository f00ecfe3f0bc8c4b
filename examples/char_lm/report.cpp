#include <fmt/format.h>

#include <set>

#include <reel/nn/files/atomic_file.h>

#include "commands.h"
#include "output.h"
#include "report_page.h"
#include "words.h"

namespace reel::char_lm {
namespace {

// Runs whose directories have the same name get the paths that they were given by.
void tell_apart(std::vector<ReportedRun>& runs, const std::vector<std::filesystem::path>& paths) {
  std::set<std::string> names;
  for (const ReportedRun& run : runs) names.insert(run.name);
  if (names.size() == runs.size()) return;
  for (std::size_t i = 0; i < runs.size(); ++i) runs[i].name = paths[i].string();
}

}  // namespace

int report(const ReportOptions& options) {
  std::vector<ReportedRun> runs;
  for (const auto& path : options.runs) runs.push_back(reported_run(RunDirectory(path)));
  tell_apart(runs, options.runs);
  if (options.profile)
    for (std::size_t i = 0; i < runs.size(); ++i)
      runs[i].ops = profile_step(RunDirectory(options.runs[i]));
  const std::filesystem::path output =
      options.output.value_or(options.runs.front() / "report.html");
  nn::write_file(output, report_page(runs));
  print(short_path(output) + '\n');
  return 0;
}

}  // namespace reel::char_lm
