#include "search.h"

#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/nn/files/atomic_file.h>

#include "json_lines.h"
#include "progress.h"
#include "words.h"

namespace reel::char_lm {
namespace {

constexpr std::size_t longest_search = longest_config + (1 << 20);

const Json& object_in(const Json& json, const std::string& key) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_object())
    throw ValueError(fmt::format("it has no object \"{}\"", key));
  return *found;
}

std::set<std::string> names_in(const Json& json, const std::string& key) {
  const auto found = json.find(key);
  const auto refuse = [&] { throw ValueError(fmt::format("it has no list of names \"{}\"", key)); };
  if (found == json.end() || !found->is_array()) refuse();
  std::set<std::string> names;
  for (const Json& name : *found) {
    if (!name.is_string()) refuse();
    names.insert(name.get<std::string>());
  }
  return names;
}

Search search_of(const Json& json, const nn::Location& vocabulary_file) {
  const Index trials = count_in(json, "trials");
  if (trials < 1 || trials > most_trials)
    throw ValueError(fmt::format("its \"trials\" is {}, not from 1 to {}", trials, most_trials));
  RunConfig config = parse_config(object_in(json, "config").dump(), vocabulary_file);
  Search search{.trials = static_cast<int>(trials),
                .space = {.fixed = config.settings, .given = names_in(json, "given"), .ranges = {}},
                .text = std::move(config.text),
                .vocabulary = std::move(config.vocabulary)};
  forget_completed(search.space.fixed, search.space.given);
  const Json& over = object_in(json, "over");
  for (const auto& [name, values] : over.items())

    search.space.ranges.emplace_back(fmt::format("{}={}", name, text_in(over, name)));
  const Json& failed = object_in(json, "failed");
  for (const auto& [name, why] : failed.items()) search.failed[name] = text_in(failed, name);
  return search;
}

// Its settings are those of the trial; a user may have trained it for more epochs since.
void require_run_of(const Trial& trial, const Search& search, const RunDirectory& run,
                    const RunConfig& config) {
  auto theirs = texts_of(config.settings), ours = texts_of(trial.drawn.settings);
  theirs.erase("epochs");
  ours.erase("epochs");
  for (const auto& [name, value] : ours)
    if (theirs.at(name) != value)
      throw FileError(
          fmt::format("{}: it is not the run of this trial, as its {} is {}, not {}; move it away "
                      "to train the trial anew",
                      short_path(run.path()), name, theirs.at(name), value));
  if (!config.text.same_content(search.text))
    throw FileError(fmt::format(
        "{}: it is a run on another text than that of the search; move it away to train the trial "
        "anew",
        short_path(run.path())));
}

}  // namespace

nn::Location search_file(const RunDirectory& directory) { return directory.path() / "tune.json"; }

void write_search(const RunDirectory& directory, const Search& search) {
  RunConfig config{search.space.fixed, search.text, search.vocabulary};
  complete(config.settings, search.space.given);
  Json json;
  json["trials"] = search.trials;
  json["over"] = Json::object();
  for (const Range& range : search.space.ranges) json["over"][range.name()] = range.values();
  json["given"] = search.space.given;
  json["failed"] = Json::object();
  for (const auto& [name, why] : search.failed) json["failed"][name] = why;
  json["config"] = Json::parse(config.json());
  if (!has_listing(config.settings)) config.vocabulary->save(directory.vocabulary_file());
  nn::write_file(search_file(directory),
                 json.dump(2, ' ', false, Json::error_handler_t::replace) + '\n');
}

Search read_search(const RunDirectory& directory) {
  const nn::Location where = search_file(directory);
  const std::string content = content_of(where, longest_search);
  try {
    return search_of(parse_object(content), directory.vocabulary_file());
  } catch (const ValueError& error) {
    throw FileError(fmt::format("{}: {}", where.str(), error.message()));
  }
}

double Trial::loss() const {
  return reached == 0 ? std::numeric_limits<double>::infinity() : *epochs.at(reached).valid_loss;
}

double Trial::seconds() const { return reached == 0 ? 0 : epochs.at(reached).elapsed_s; }

std::vector<Trial> trials_of(const Search& search) {
  std::vector<Trial> trials;
  for (Drawn& drawn : draw(search.space, search.trials))
    trials.push_back(
        {.name = fmt::format("trial-{:03}", trials.size() + 1), .drawn = std::move(drawn)});
  return trials;
}

void read_epochs(const std::filesystem::path& directory, const Search& search, Trial& trial) {
  const RunDirectory run(directory / trial.name);
  trial.epochs.clear();
  if (!run.config_file().exists()) return;
  const RunConfig config = run.read_config();
  require_run_of(trial, search, run, config);
  if (run.never_saved()) return;
  const optim::RunState checkpoint = run.load(config, run.model_file());
  const Progress at = progress_of(checkpoint);
  each_metrics(run.metrics_file(), [&](const Metrics& line) {
    if (line.valid_loss && line.epoch < at.epoch) trial.epochs[line.epoch] = line;
  });
  if (std::ssize(trial.epochs) != at.epoch - 1)
    throw FileError(fmt::format(
        "{}: it has the validation losses of {}, but {} are trained; move "
        "the directory away to train the trial anew",
        run.metrics_file().str(), counted(std::ssize(trial.epochs), "epoch"), at.epoch - 1));
}

bool is_better(const Trial& a, const Trial& b) {
  const auto rank = [](const Trial& t) {
    return std::tuple(!t.failure.empty(), -t.reached, t.loss(), std::string_view(t.name));
  };
  return rank(a) < rank(b);
}

}  // namespace reel::char_lm
