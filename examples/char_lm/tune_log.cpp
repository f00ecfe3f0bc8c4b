#include "tune_log.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include <reel/autograd/engine/table.h>

#include "commands.h"
#include "json_lines.h"
#include "report_page.h"
#include "words.h"

namespace reel::char_lm {
namespace {

// "lr 0.00349  model gru".
std::string values_of(const Trial& trial) {
  std::vector<std::string> values;
  for (const auto& [name, value] : trial.drawn.values)
    values.push_back(fmt::format("{} {}", name, value));
  return fmt::format("{}", fmt::join(values, "  "));
}

// The settings as in config.json.
Json json_of(const Trial& trial) {
  Json settings;
  for (const auto& drawn : trial.drawn.values)
    each_setting(trial.drawn.settings, [&](const Setting& setting, const auto& value) {
      if (setting.name == drawn.first) settings[key_of(setting)] = value;
    });
  Json json{{"trial", trial.name}, {"settings", settings}};
  if (trial.reached > 0) {
    json["epoch"] = trial.reached;
    json["valid_loss"] = trial.loss();
    json["elapsed_s"] = trial.seconds();
  }
  if (!trial.failure.empty()) json["failed"] = trial.failure;
  return json;
}

// A header and the rows of a table of all trials.
std::vector<std::vector<std::string>> rows_of(const std::vector<Trial>& ranked) {
  std::vector<std::string> header{"trial"};
  for (const auto& [name, value] : ranked.front().drawn.values) header.push_back(name);
  header.insert(header.end(), {"epochs", "valid loss", "time"});
  std::vector<std::vector<std::string>> rows{header};
  for (const Trial& trial : ranked) {
    std::vector<std::string> row{trial.name};
    for (const auto& [name, value] : trial.drawn.values) row.push_back(value);
    row.push_back(fmt::format("{}", trial.reached));
    if (!trial.failure.empty())
      row.insert(row.end(), {"failed", trial.failure});
    else if (trial.reached == 0)
      row.insert(row.end(), {"", ""});
    else
      row.insert(row.end(), {fmt::format("{:.4f}", trial.loss()), duration(trial.seconds())});
    rows.push_back(row);
  }
  return rows;
}

std::string table_of(const std::vector<Trial>& ranked) {
  const auto rows = rows_of(ranked);
  Table table(rows.front());
  for (std::size_t i = 1; i < rows.size(); ++i) table.add(rows[i]);
  return table.str();
}

html::Section section_of(const std::vector<Trial>& ranked, std::size_t shown) {
  const auto rows = rows_of(ranked);
  html::Table table(
      "All trials: those that were trained for longer first, and the lower loss first",
      rows.front());
  for (std::size_t i = 1; i < rows.size(); ++i) table.add(rows[i]);
  const std::string text =
      shown == ranked.size() ? "" : fmt::format("<p>Below are the best {}.</p>\n", shown);
  return {"trials", "Trials", text + table.str()};
}

}  // namespace

void TuneLog::begin(const std::filesystem::path& path, const Search& search,
                    const std::vector<int>& rungs) {
  note(fmt::format("search {}: {}; Ctrl-C saves and stops", short_path(path),
                   counted(search.trials, "trial")));
  note(fmt::format("text   {}", search.text.description()));
  std::string label = "over ";
  for (const Range& range : search.space.ranges) {
    note(fmt::format("{}  {} {}, {}", label, range.name(), range.values(), range.distribution()));
    label = "     ";
  }
  std::vector<std::string> halvings;
  auto left = static_cast<std::size_t>(search.trials);
  for (const int epoch : rungs) {
    halvings.push_back(fmt::format("{} to epoch {}", left, epoch));
    left = kept_of(left);
  }
  note(fmt::format("train  {}", fmt::join(halvings, ", ")));
}

void TuneLog::note(std::string_view text) {
  if (kind_ == LogKind::text) terminal_.line(text);
}

void TuneLog::trial(const Trial& trial) {
  if (kind_ == LogKind::json) terminal_.raw_line(json_of(trial).dump());
  if (!trial.failure.empty())
    note(fmt::format("{}  failed: {}  {}", trial.name, trial.failure, values_of(trial)));
  else
    note(fmt::format("{}  epoch {:>{}}/{}  valid {:.4f}  {}  {}", trial.name, trial.reached,
                     fmt::formatted_size("{}", epochs_), epochs_, trial.loss(),
                     duration(trial.seconds()), values_of(trial)));
}

void TuneLog::end(std::string_view end, const std::vector<Trial>& ranked, std::string_view what,
                  const std::string& command) {
  if (kind_ == LogKind::text) {
    terminal_.raw_line("");
    terminal_.raw_line(table_of(ranked));
    terminal_.line(what);
    terminal_.line("  " + command);
  }
  if (kind_ == LogKind::quiet) terminal_.line(fmt::format("{}: {}", what, command));
  if (kind_ != LogKind::json) return;
  Json json{{"end", end}};
  const Trial& best = ranked.front();
  json["best"] = best.reached > 0 && best.failure.empty() ? json_of(best) : Json();
  terminal_.raw_line(json.dump());
}

std::string tune_page(const std::filesystem::path& directory, const std::vector<Trial>& ranked) {
  std::vector<ReportedRun> runs;
  for (const Trial& trial : ranked)
    if (trial.reached > 0 && trial.failure.empty() && runs.size() < most_runs)
      runs.push_back(reported_run(RunDirectory(directory / trial.name)));
  if (runs.empty()) return "";
  return report_page(runs, {section_of(ranked, runs.size())});
}

}  // namespace reel::char_lm
