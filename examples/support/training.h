#pragma once

#include <chrono>
#include <map>
#include <string>

#include <reel/datasets/loss_mean.h>
#include <reel/optim/early_stopping.h>
#include <reel/optim/optimizer.h>
#include <reel/optim/run_state.h>

#include "program.h"

namespace reel::examples {

struct TrainingOptions {
  Index epochs = 10;
  optim::Better better = optim::Better::smaller;  ///< which scores of epochs
  std::string save = {};      ///< the file of its state, replaced after every epoch; empty: none
  std::string settings = {};  ///< Program::settings; a state of other ones is refused
};

/// What --fast makes of some options.
struct FastTraining {
  Index epochs;
  double learning_rate;
};

/// Adds --epochs, --learning-rate, --seed and --save, which are members of the settings.
template <class Settings>
void add_training_options(Program& program, Settings& s, const FastTraining& fast) {
  program.option("--epochs", s.epochs, "epochs").fast(fast.epochs);
  program.option("--learning-rate", s.learning_rate, "of the optimizer, at first")
      .fast(fast.learning_rate);
  program.option("--seed", s.seed, "of all that is random", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
}

/// A training in epochs: their progress, the parameters after the best one, and a file with which
/// it continues where it was stopped, bit for bit. What an epoch does may depend on its number and
/// the generator alone.
///
///     Training training(params, adam, rng, {.epochs = 10, .save = s.save, .settings = ...});
///     while (training.next()) {
///       for (...) training.step(i, count, train_on(batch));
///       training.end_epoch(loss_of(valid), fmt::format("valid {:.3f}", ...));
///     }
///     training.load_best();
class Training {
 public:
  /// Continues with the state in the file if there is one. Throws FileError if it cannot be read or
  /// none can be written there, ValueError if it is of other settings or does not fit the
  /// parameters.
  Training(const Params& params, optim::Optimizer& optimizer, Rng& rng, TrainingOptions options);

  /// Begins the next epoch; false after the last one.
  bool next();
  /// The current epoch, from 1 on.
  Index epoch() const { return epoch_; }

  /// After a step of an epoch, the i-th from 0 on, with its mean loss over `weight` positions.
  /// Throws ValueError for a loss that is not finite.
  void step(Index i, Index steps, double loss, double weight = 1);
  /// Ends an epoch: prints its line, the mean training loss and `what`, keeps the parameters if its
  /// score is the best so far, and writes the file.
  void end_epoch(double score, const std::string& what);

  /// The best score, and its epoch. Throws ValueError before the first epoch's end.
  double best() const;
  Index best_epoch() const { return best_epoch_; }
  /// Sets the parameters to those after the best epoch.
  void load_best();

  /// Further numbers of the program that the file keeps.
  std::map<std::string, double, std::less<>>& numbers() { return numbers_; }
  /// Seconds of training, those before an interruption included.
  double seconds() const;

 private:
  void load();
  void save() const;

  Params params_;
  optim::Optimizer& optimizer_;
  Rng& rng_;
  TrainingOptions options_;
  Index epoch_ = 0, best_epoch_ = 0;
  double best_score_ = 0, seconds_before_ = 0;
  nn::NamedTensors best_;
  datasets::LossMean losses_;
  std::map<std::string, double, std::less<>> numbers_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(),
                                        epoch_start_ = start_, shown_ = start_;
};

/// The parameters after the best epoch of a training that was saved. Throws FileError if the file
/// cannot be read, ValueError if it is of something else.
nn::NamedTensors best_params_in(const std::string& save);

}  // namespace reel::examples
