#include <fmt/format.h>

#include <algorithm>
#include <new>

#include <reel/autograd/error.h>
#include <reel/datasets/windows.h>
#include <reel/nn/files/atomic_file.h>

#include "checkpoint.h"
#include "commands.h"
#include "corpus.h"
#include "diverged.h"
#include "interrupt.h"
#include "run_directory.h"
#include "search.h"
#include "tune_log.h"
#include "updates.h"

namespace reel::char_lm {
namespace {

Settings completed(const SearchSpace& space) {
  Settings settings = space.fixed;
  complete(settings, space.given);
  return settings;
}

// What training would refuse at its start is refused before the first trial.
void require_trainable(const std::vector<Trial>& trials, const Corpus& corpus) {
  for (const Trial& trial : trials) {
    const Settings& settings = trial.drawn.settings;
    require_storable(settings);
    const TextParts parts = split_for(corpus, settings);
    const datasets::Windows windows(parts.train, settings.batch, settings.tbptt_update);
    schedule_of(settings, windows.count());
  }
}

void require_vacant(const RunDirectory& directory) {
  if (search_file(directory).exists())
    throw FileError(fmt::format(
        "{}: there is a search in it already; go on with it (--resume), or give another --run",
        short_path(directory.path())));
  directory.require_vacant();
  const std::filesystem::path first = directory.path() / "trial-001";
  if (nn::Location(first).exists())
    throw FileError(short_path(first) + ": it exists already; give another --run");
}

Search begin(const TuneOptions& options, RunDirectory& directory) {
  require_vacant(directory);
  const std::filesystem::path path = options.text.value_or("");
  const Settings settings = completed(options.space);
  const Corpus corpus = corpus_of(find_text(path, settings, is_large(path, settings)), settings);
  Search search{.trials = options.trials.value(),
                .space = options.space,
                .text = corpus.id,
                .vocabulary = corpus.vocabulary};
  require_trainable(trials_of(search), corpus);
  directory.make();
  directory.lock();
  require_vacant(directory);
  try {
    write_search(directory, search);
  } catch (...) {
    directory.undo();
    throw;
  }
  return search;
}

// The text of the search, from its old path unless --text says where it is now.
Corpus same_corpus(const Search& search, const TuneOptions& options) {
  const Settings settings = completed(search.space);
  const Text text =
      find_text(options.text.value_or(search.text.path), settings, search.text.in_parts);
  if (!text.id.same_content(search.text))
    throw ValueError(
        fmt::format("{}: not the text that the search in {} was begun with; give that one with "
                    "--text, or another --run",
                    text.id.description(), short_path(options.run)));
  return corpus_of(text, settings, search.vocabulary);
}

Search resume(const TuneOptions& options, RunDirectory& directory) {
  const nn::Location file = search_file(directory);
  if (!file.exists())
    throw FileError(short_path(options.run) +
                    ": there is no search in it (no tune.json); tune without --resume begins one");
  directory.lock();
  nn::AtomicFile::remove_leftovers(file);
  directory.remove_leftovers();
  Search search = read_search(directory);
  const int trials = options.trials.value_or(search.trials);
  if (trials < search.trials)
    throw ValueError(
        fmt::format("--trials {} is less than the {} of the search in {}; leave it out", trials,
                    search.trials, short_path(options.run)));
  const Corpus corpus = same_corpus(search, options);
  const bool changes = trials != search.trials || corpus.id.path != search.text.path;
  search.trials = trials;
  search.text = corpus.id;
  require_trainable(trials_of(search), corpus);
  if (changes) write_search(directory, search);
  return search;
}

// A search at work. How it goes on depends on the files of the trials and on which failed, alone.
class Tuning {
 public:
  Tuning(const TuneOptions& options, double deadline, const RunDirectory& directory, Search& search)
      : options_(options),
        deadline_(deadline),
        directory_(directory),
        search_(search),
        trials_(trials_of(search)),
        rungs_(rungs_of(search.trials, search.space.fixed.epochs)),
        log_(options.log, search.space.fixed.epochs) {}

  int operator()() {
    log_.begin(directory_.path(), search_, rungs_);
    std::vector<Trial*> left;
    for (Trial& trial : trials_) {
      read_epochs(directory_.path(), search_, trial);
      left.push_back(&trial);
    }
    for (const int epoch : rungs_) {
      for (Trial* trial : left)
        if (!bring_to(epoch, *trial)) return stopped();
      keep_best_half(left);
    }
    return finished();
  }

 private:
  static void keep_best_half(std::vector<Trial*>& trials) {
    std::ranges::sort(trials, [](const Trial* a, const Trial* b) { return is_better(*a, *b); });
    trials.resize(kept_of(trials.size()));
    std::erase_if(trials, [](const Trial* trial) { return !trial->failure.empty(); });
  }

  // Trains a trial to the end of an epoch, if it is not there yet; false if the search stops
  // before.
  bool bring_to(int epoch, Trial& trial) {
    if (trial.epochs.contains(epoch)) {
      trial.reached = epoch;
      return true;
    }
    if (const auto failed = search_.failed.find(trial.name); failed != search_.failed.end()) {
      trial.failure = failed->second;
      return true;
    }
    if (is_over()) return false;
    train_to(epoch, trial);
    if (trial.failure.empty()) {
      if (!trial.epochs.contains(epoch)) return false;
      trial.reached = epoch;
    }
    log_.trial(trial);
    return true;
  }

  bool is_over() const { return InterruptGuard::signal() != 0 || seconds_now() >= deadline_; }

  void train_to(int epoch, Trial& trial) {
    try {
      train(options_for(trial, epoch));
      read_epochs(directory_.path(), search_, trial);
    } catch (const Diverged& error) {
      fail(trial, fmt::format("step {}: {}", error.step(), error.how()));
    } catch (const MemoryError&) {
      fail(trial, "there is not enough memory");
    } catch (const std::bad_alloc&) {
      fail(trial, "there is not enough memory");
    }
  }

  void fail(Trial& trial, const std::string& why) {
    trial.failure = why;
    search_.failed[trial.name] = why;
    write_search(directory_, search_);
  }

  TrainOptions options_for(const Trial& trial, int epoch) const {
    TrainOptions options{.run = directory_.path() / trial.name,
                         .text = {},
                         .settings = trial.drawn.settings,
                         .given = {},
                         .threads = options_.threads,
                         .force = options_.force,
                         .log = options_.log == LogKind::text ? LogKind::redrawn : LogKind::none,
                         .extras = {},
                         .limits = {.epoch = epoch, .deadline = deadline_},
                         .program = options_.program};
    options.resume = RunDirectory(options.run).config_file().exists();
    if (!search_.text.path.empty()) options.text = search_.text.path;
    return options;
  }

  // Each at the last rung that it was ever trained to: of a search that got more trials since, one
  // that would not go on any more may still be the best.
  std::vector<Trial> ranked() const {
    std::vector<Trial> all = trials_;
    for (Trial& trial : all) {
      for (const int epoch : rungs_)
        if (trial.epochs.contains(epoch)) trial.reached = epoch;
      if (const auto failed = search_.failed.find(trial.name); failed != search_.failed.end())
        trial.failure = failed->second;
    }
    std::ranges::sort(all, is_better);
    return all;
  }

  int stopped() {
    const std::vector<Trial> all = ranked();
    write_page(all);
    const int signal = InterruptGuard::signal();
    log_.end("stopped", all,
             signal == 0 ? "the time is over; go on with" : "stopped and saved; go on with",
             command_on("tune --resume", directory_.path()));
    return signal == 0 ? 0 : 128 + signal;
  }

  int finished() {
    const std::vector<Trial> all = ranked();
    write_page(all);
    const Trial& best = all.front();
    if (!best.failure.empty())
      throw Error(
          fmt::format("every trial failed, the first with \"{}\"; search other ranges in a "
                      "new --run, such as a smaller lr",
                      trials_.front().failure));
    log_.end("finished", all,
             fmt::format("best validation loss {:.4f} nats/{}: {} after epoch {}; sample it with",
                         best.loss(), unit_of(completed(search_.space).level).brief, best.name,
                         best.reached),
             command_on("sample", directory_.path() / best.name));
    return 0;
  }

  // A failure is noted, as the search is worth more.
  void write_page(const std::vector<Trial>& all) {
    try {
      const std::string page = tune_page(directory_.path(), all);
      if (page.empty()) return;
      nn::write_file(directory_.report_file(), page);
      log_.note("report " + directory_.report_file().str());
    } catch (const Error& error) {
      log_.note(fmt::format("note   there is no new report: {}", error.message()));
    }
  }

  std::string command_on(std::string_view command, const std::filesystem::path& run) const {
    return fmt::format("{} {} --run {}", shell_word(options_.program), command,
                       shell_word(run.string()));
  }

  const TuneOptions& options_;
  double deadline_;
  const RunDirectory& directory_;
  Search& search_;
  std::vector<Trial> trials_;
  std::vector<int> rungs_;
  TuneLog log_;
};

}  // namespace

int tune(const TuneOptions& options) {
  const double deadline = seconds_now() + options.time_budget;
  RunDirectory directory(options.run);
  Search search = options.resume ? resume(options, directory) : begin(options, directory);
  const InterruptGuard guard;  // also between two trials
  return Tuning(options, deadline, directory, search)();
}

}  // namespace reel::char_lm
