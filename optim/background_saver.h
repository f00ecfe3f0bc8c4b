#pragma once

#include <functional>
#include <future>

#include <reel/optim/run_state.h>
#include <reel/optim/step_files.h>

namespace reel::optim {

/// Saves the states of a run on a thread of its own, beside the training.
///
/// A save copies no numbers: the tensors of a state are handles of the parameters and moments as
/// they are, and the next step of the optimizer copies those that the save still holds (copy on
/// write). At most one save runs at a time, so no file has two writers; it takes the memory of one
/// more set of parameters and moments until it is done.
///
/// Not for several threads at once. A Location's directory has to outlive the save.
class BackgroundSaver {
 public:
  BackgroundSaver() = default;
  BackgroundSaver(BackgroundSaver&&) = default;
  BackgroundSaver& operator=(BackgroundSaver&&) = delete;
  /// Waits. An error of the last save is lost: call `wait` before.
  ~BackgroundSaver() = default;

  /// Begins to save as save_run_state or StepFiles::save does, after waiting for the save before.
  /// Throws what that one threw, if it failed, having begun nothing.
  void save(const nn::Location& where, RunState state, Site site = {});
  void save(const StepFiles& files, Arg<Index> step, RunState state, Site site = {});
  /// Begins likewise to call `write` with the state, which may save it in any way. What `write`
  /// captures by reference has to outlive the save.
  void save(RunState state, std::function<void(const RunState&)> write);

  /// Waits until the save is done. Throws what it threw if it failed.
  void wait();

 private:
  std::future<void> saving_;
};

}  // namespace reel::optim
