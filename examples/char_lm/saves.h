#pragma once

#include <exception>
#include <optional>

#include <reel/optim/background_saver.h>

#include "commands.h"
#include "diverged.h"
#include "progress.h"
#include "run_directory.h"

namespace reel::char_lm {

/// The saves of a training, which are written beside it: the state itself, which a run resumes
/// from; that of the best epoch; and those of --keep, which `--on-nan rollback` returns to.
class Saves {
 public:
  Saves(const RunDirectory& run, const RunConfig& config) : run_(run), config_(config) {}

  /// Begins to save. `is_point` says that the step is one where every training like this saves,
  /// however long it takes: these are the ones to keep. Throws FileError if the save before failed,
  /// after this one.
  void begin(optim::RunState state, const Progress& at, bool is_best, bool is_point);
  /// Waits until it is on the disk. Throws FileError if it failed.
  void wait();
  /// Whether the last one was begun longer than a minute ago.
  bool is_due() const;
  /// Begins to count that minute.
  void restart_clock() { begun_at_ = seconds_now(); }

  /// Whether the step is a point to save at: with --save-every each of these is, and if points are
  /// kept without it every hundredth.
  bool is_point(Index step) const;
  /// Whether points are to be kept but that of this step is not, or if it is none, no earlier one.
  bool lacks_point(Index step) const;
  /// The newest of the points at most at this step, if there is one.
  std::optional<optim::RunState> newest_point(Index step);

  /// The step of the last save on the disk, after waiting for one that is under way; 0 if nothing
  /// that was trained is saved. A training that resumes begins with `set_saved_step`.
  Index saved_step();
  void set_saved_step(Index step) { saved_step_ = begun_step_ = step; }
  /// The error of a training that diverged, which says what is kept.
  Diverged diverged(const std::string& how, Index step);

 private:
  int kept() const;

  const RunDirectory& run_;
  const RunConfig& config_;
  optim::BackgroundSaver saver_;
  double begun_at_ = 0;
  Index saved_step_ = 0, begun_step_ = 0;
  std::exception_ptr failure_;  // of a save, until `wait` throws it
};

}  // namespace reel::char_lm
