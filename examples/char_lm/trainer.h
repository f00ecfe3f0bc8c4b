#pragma once

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <reel/autograd/tape.h>
#include <reel/datasets/windows.h>
#include <reel/nn/diagnostics.h>
#include <reel/optim/tbptt.h>

#include "commands.h"
#include "corpus.h"
#include "diverged.h"
#include "evaluation.h"
#include "interrupt.h"
#include "metrics.h"
#include "model.h"
#include "pace.h"
#include "progress.h"
#include "run_directory.h"
#include "samples.h"
#include "saves.h"
#include "tensorboard.h"
#include "trainer_parts.h"
#include "training_log.h"
#include "updates.h"
#include "writer.h"

namespace reel::char_lm {

/// Trains a CharLm over epochs of windows, each of the steps to the next update; the state is
/// carried from window to window.
template <nn::Layer L>
class Trainer {
 public:
  Trainer(const RunConfig& config, const TextParts& text, const RunDirectory& run, TrainingLog& log,
          const Extras& extras)
      : config_(config),
        run_(run),
        log_(log),
        extras_(extras),
        saves_(run, config),
        train_(text.train, config.settings.batch, config.settings.tbptt_update),
        params_(config.settings.seed, dtype_of(config.settings)),
        model_(params_, config.vocabulary->size(), config.settings),
        updates_(params_, config.settings, train_.count()),
        rng_(dropout_rng(config.settings)),
        tbptt_(params_, {.k1 = config.settings.tbptt_update,
                         .k2 = config.settings.tbptt_length,
                         .rng = &rng_}) {
    initialize(params_, config.settings);
    const auto windows_of = [&](const datasets::TokenRange& part) {
      return datasets::Windows(part, config.settings.batch, config.settings.seq_len);
    };
    if (has_validation(config.settings)) valid_ = windows_of(text.valid);
    if (config.settings.test_frac > 0) test_ = windows_of(text.test);
    if (extras.diagnose) diagnostics_.emplace();
  }

  const Params& params() const { return params_; }
  const Progress& progress() const { return at_; }
  /// What a symbol of the text is called.
  Unit unit() const { return unit_of(config_.settings.level); }
  /// The step of the last save; 0 if nothing that was trained is saved.
  Index saved_step() { return saves_.saved_step(); }

  /// Resumes from a checkpoint that RunDirectory::load returned. Throws Error if it does not match
  /// the model or the text.
  void restore(const optim::RunState& checkpoint);
  /// Takes these weights in place of random ones. Throws as nn::load_weights.
  void begin_with(const StartWeights& start) { take_weights(start, params_); }
  /// Saves the state before the first step.
  void save_begin() {
    save();
    saves_.wait();
  }
  /// Prepares the files that grow, dropping what is of later steps. Call before `run`.
  void open_files() {
    metrics_.emplace(run_.metrics_file(), at_.metrics_lines);
    samples_.emplace(run_.samples_file(), at_.step);
    if (extras_.tensorboard && !is_done()) board_.emplace(run_, at_.step);
  }
  /// Whether there is nothing left to train.
  bool is_done() const { return at_.epoch > config_.settings.epochs; }
  /// Trains to the end of the last epoch, or until a signal is received or one of the limits is
  /// reached; saves in either case. Returns the signal, or 0.
  int run(const Limits& limits);

 private:
  using State = typename CharLm<L>::State;
  /// After more steps without a finite loss in a row, or more returns, there is no hope.
  static constexpr Index most_skipped_in_row = 10, most_rollbacks = 10;

  struct Stopped {};
  void stop_if_asked() const {
    if (InterruptGuard::signal() != 0 || seconds_now() >= limits_.deadline) throw Stopped{};
  }
  bool goes_on() const { return !is_done() && at_.epoch <= limits_.epoch; }

  auto model_with_loss();
  void train_epoch();
  std::optional<double> step();
  void skip(const Diverged& found);
  void roll_back(const Diverged& found);
  void save(bool is_best = false, bool is_point = false);
  void after_step(std::optional<double> loss, double seconds);
  void write_hundred();
  void append(Metrics& line);
  template <class Write>
  void write_or_save(Write&& write);
  void sample_if_due();
  void report();
  ObserverScope watch_if_due();
  std::optional<Diagnosis> diagnosis();
  void end_epoch();
  std::optional<double> validate() const;
  void test();

  void require_below(double limit, const char* what, double value, Index step) {
    if (!(value < limit))
      throw saves_.diverged(fmt::format("the {} is {}", what, number(value)), step);
  }
  Metrics metrics(double train_loss, const optim::ClipCount& clips, const Pace& pace) const;
  Position position() const {
    return position_of(at_, config_.settings, train_.count(), updates_.learning_rate());
  }
  double seconds_left() const;

  const RunConfig& config_;
  const RunDirectory& run_;
  TrainingLog& log_;
  const Extras& extras_;
  Saves saves_;
  Limits limits_;
  datasets::Windows train_;
  std::optional<datasets::Windows> valid_, test_;

  Params params_;
  CharLm<L> model_;
  Updates updates_;
  Rng rng_;
  optim::Tbptt<State> tbptt_;
  Progress at_;

  std::optional<nn::Diagnostics> diagnostics_;
  std::optional<MetricsFile> metrics_;
  std::optional<SamplesFile> samples_;
  std::optional<TensorBoard> board_;
  nn::NamedTensors shown_gradients_;  // for it
  double start_ = 0;                  // start of the run on this clock, without interruptions
  double reported_at_ = 0, report_took_ = 0;
  Pace epoch_pace_, recent_pace_, shown_pace_;
  double shown_loss_ = NAN;  // a moving average
};

// The model as the training wants it: with the loss of some steps and the state after them.
template <nn::Layer L>
auto Trainer<L>::model_with_loss() {
  return [this](const Tensor& inputs, const Tensor& targets, const State& state) {
    auto [loss, next] = model_.loss(inputs, targets, state, nn::Train{rng_});
    require_below(largest_loss, "loss", loss.item(), at_.step + 1);
    return std::pair(std::move(loss), std::move(next));
  };
}

template <nn::Layer L>
void Trainer<L>::restore(const optim::RunState& checkpoint) {
  const Progress at = progress_of(checkpoint);
  if (at.window > train_.count() || at.step != (at.epoch - 1) * train_.count() + at.window)
    throw ValueError(fmt::format(
        "its place, step {} and window {} of epoch {}, is not one in this text of {} windows",
        at.step, at.window, at.epoch, train_.count()));
  optim::TbpttHistory<State> history{.position = (at.window - at.carried_from) * train_.seq_len(),
                                     .rng = checkpoint.rng,
                                     .params = checkpoint.earlier};
  history.steps = steps_looked_back(config_.settings, history.position);
  if (!checkpoint.carried.empty()) {
    history.state.layers.resize(model_.rnn.layers.size());
    history.state = nn::unflatten(history.state, checkpoint.carried);
  }
  updates_.restore(checkpoint, at.step, at.rate_factor);
  nn::load_params(checkpoint.params, params_);
  const auto [inputs, targets] = last_steps(train_, at.window, history.steps);
  tbptt_.restore(history, {inputs, targets}, model_with_loss());
  at_ = at;
  saves_.set_saved_step(at.step);
}

// Begins to write the current state.
template <nn::Layer L>
void Trainer<L>::save(bool is_best, bool is_point) {
  const nn::NamedTensors params = nn::from_params(params_);
  if (const std::string name = first_not_finite(params); !name.empty())
    throw saves_.diverged(name + " is no longer finite", at_.step);
  const optim::TbpttHistory<State> history = tbptt_.history();
  optim::RunState state{.params = params,
                        .carried = nn::flatten(history.state),
                        .earlier = history.params,
                        .rng = history.rng,
                        .numbers = numbers_of(at_)};
  updates_.save(state);
  if (const std::string name = first_not_finite(state.optimizer); !name.empty())
    throw saves_.diverged(name + " is no longer finite", at_.step);
  saves_.begin(std::move(state), at_, is_best, is_point);
}

template <nn::Layer L>
int Trainer<L>::run(const Limits& limits) {
  limits_ = limits;
  saves_.restart_clock();
  start_ = seconds_now() - metrics_->elapsed_s();
  if (!is_done()) at_.test_loss = Progress::none;
  try {
    // What could not be written earlier.
    if (at_.metrics_lines < lines_due(at_)) write_hundred();
    sample_if_due();
    if (saves_.lacks_point(at_.step)) save(false, true);
    while (goes_on()) {
      try {
        train_epoch();
        end_epoch();
      } catch (const Diverged& found) {
        if (config_.settings.on_nan != "rollback") throw;
        roll_back(found);
      }
    }
    saves_.wait();
    if (is_done() && test_ && !at_.is_tested()) test();
    return 0;
  } catch (const Stopped&) {
    save();
    saves_.wait();
    report();
    return InterruptGuard::signal();
  }
}

template <nn::Layer L>
void Trainer<L>::train_epoch() {
  epoch_pace_ = {};
  while (at_.window < train_.count()) {
    stop_if_asked();
    const double before = seconds_now();
    const std::optional<double> loss = step();
    after_step(loss, seconds_now() - before);
  }
}

// One window: forward pass, backward pass and parameter update. None if it was skipped.
template <nn::Layer L>
std::optional<double> Trainer<L>::step() try {
  const auto [inputs, targets] = train_[at_.window];
  const ObserverScope watch = watch_if_due();
  double mean = 0;
  tbptt_.run({inputs, targets}, model_with_loss(), [&](Gradients& gradients, double loss) {
    const double clip = config_.settings.clip;
    const Updates::Norms norms = updates_.clip(gradients);
    require_below(INFINITY, "norm of the gradient", norms.whole, at_.step + 1);
    at_.grad_norm = norms.whole;
    if (clip > 0)
      for (optim::ClipCount* count : {&at_.epoch_clips, &at_.recent_clips})
        count->add(norms.limited, clip);
    updates_.step(gradients, at_.step + 1);
    if (board_ && (at_.step + 1) % 100 == 0) shown_gradients_ = by_name(gradients);
    mean = loss;
  });
  at_.skipped_in_row = 0;
  return mean;
} catch (const Diverged& found) {
  if (config_.settings.on_nan != "skip") throw;
  skip(found);
  return std::nullopt;
}

// The window counts as read, and the next one begins with a state of zeros: that of this one may be
// what is not finite.
template <nn::Layer L>
void Trainer<L>::skip(const Diverged& found) {
  tbptt_.reset();
  at_.carried_from = at_.window + 1;
  for (Index* count : {&at_.skipped, &at_.epoch_skipped, &at_.recent_skipped, &at_.skipped_in_row})
    ++*count;
  updates_.follow_schedule(found.step());
  if (at_.epoch_skipped == train_.count()) throw found;
  if (at_.skipped_in_row == most_skipped_in_row)
    throw saves_.diverged(fmt::format("{}, after {} skipped in a row", found.how(),
                                      counted(at_.skipped_in_row - 1, "step")),
                          found.step());
  log_.note(fmt::format("step {}: {}; skipped, {} so far", found.step(), found.how(), at_.skipped));
}

// Training goes on from the newest point that was saved, with half the learning rate; not from that
// of the last step, as no rate changes the loss that follows from it. What is best stays: it is in
// best.safetensors.
template <nn::Layer L>
void Trainer<L>::roll_back(const Diverged& found) {
  const Progress before = at_;
  if (before.rollbacks == most_rollbacks)
    throw saves_.diverged(
        fmt::format("{}, after {}", found.how(), counted(before.rollbacks, "rollback")),
        found.step());
  std::optional<optim::RunState> point = saves_.newest_point(before.step - 1);
  if (!point) throw found;
  point->numbers["rollbacks"] = static_cast<double>(before.rollbacks + 1);
  point->numbers["rate_factor"] = before.rate_factor / 2;
  point->numbers["best_loss"] = before.best_loss;
  point->numbers["best_epoch"] = static_cast<double>(before.best_epoch);
  restore(*point);
  save();
  saves_.wait();
  open_files();
  epoch_pace_ = recent_pace_ = shown_pace_ = {};
  shown_loss_ = NAN;
  log_.note(fmt::format("step {}: {}; back to step {}, with {} of the learning rate", found.step(),
                        found.how(), at_.step, number(at_.rate_factor)));
}

// The step before a line of metrics is the one to look into.
template <nn::Layer L>
ObserverScope Trainer<L>::watch_if_due() {
  const bool due = (at_.step + 1) % 100 == 0 || at_.window + 1 == train_.count();
  return diagnostics_ && due ? diagnostics_->watch() : ObserverScope(nullptr);
}

template <nn::Layer L>
std::optional<Diagnosis> Trainer<L>::diagnosis() {
  if (!diagnostics_) return {};
  Diagnosis found{diagnostics_->layers()};  // none in a line of before the run was resumed
  return found.layers.empty() ? std::nullopt : std::optional(std::move(found));
}

template <nn::Layer L>
void Trainer<L>::after_step(std::optional<double> loss, double seconds) {
  const auto chars = static_cast<double>(train_.batch() * train_.seq_len());
  at_.epoch_loss += loss.value_or(0);
  at_.recent_loss += loss.value_or(0);
  ++at_.step;
  ++at_.window;
  epoch_pace_.add(chars, seconds);
  recent_pace_.add(chars, seconds);
  shown_pace_ = {0.98 * shown_pace_.chars + chars, 0.98 * shown_pace_.seconds + seconds};

  if (loss) shown_loss_ = std::isnan(shown_loss_) ? *loss : 0.95 * shown_loss_ + 0.05 * *loss;
  log_.step(position(), shown_loss_, shown_pace_.chars_per_s(), seconds_left());
  if (at_.step % 100 == 0) write_hundred();
  sample_if_due();
  if (const bool is_point = saves_.is_point(at_.step); is_point || saves_.is_due())
    save(false, is_point);
}

template <nn::Layer L>
void Trainer<L>::write_hundred() {
  const auto updates = static_cast<double>(100 - at_.recent_skipped);
  Metrics line = metrics(at_.recent_loss / updates, at_.recent_clips, recent_pace_);
  append(line);
  log_.hundred(position(), line, seconds_left());
  at_.begin_hundred();
  recent_pace_ = {};
  if (board_)
    write_or_save([&] {
      board_->metrics(line, false);
      board_->histograms("gradients/", at_.step, std::exchange(shown_gradients_, {}));
    });
}

// The model is worth more than a line: it is saved before the error propagates.
template <nn::Layer L>
template <class Write>
void Trainer<L>::write_or_save(Write&& write) {
  try {
    write();
  } catch (const FileError& error) {
    try {
      save();
      saves_.wait();
    } catch (const FileError& second) {
      throw FileError(
          fmt::format("{}; nor can the state be saved: {}", error.message(), second.message()));
    }
    throw;
  }
}

template <nn::Layer L>
void Trainer<L>::append(Metrics& line) {
  line.diagnosis = diagnosis();
  write_or_save([&] { metrics_->append(line); });
  ++at_.metrics_lines;
}

// A sample draws from a stream of its own for each step, and one that could not be written is
// written when training resumes.
template <nn::Layer L>
void Trainer<L>::sample_if_due() {
  if (extras_.sample_every == 0 || is_done() || at_.step == 0 ||
      at_.step % extras_.sample_every != 0 || samples_->step() == at_.step)
    return;
  Rng rng = Rng(config_.settings.seed).stream("sample").stream(std::to_string(at_.step));
  std::vector<std::int32_t> tokens;
  updates_.with_average([&] {
    Writer<CharLm<L>> writer(model_);
    writer.read(config_.vocabulary->first());
    for (int i = 0; i < extras_.sample_length; ++i) {
      stop_if_asked();
      tokens.push_back(writer.write({.temperature = 0.8}, rng));
    }
  });
  const Sample sample{at_.step, static_cast<int>(at_.epoch), config_.vocabulary->readable(tokens)};
  write_or_save([&] {
    samples_->append(sample);
    if (board_) board_->sample(sample);
  });
  log_.sample(sample);
}

template <nn::Layer L>
void Trainer<L>::report() {
  const double begin = seconds_now();
  write_report(run_, config_, at_, params_, log_);
  reported_at_ = seconds_now();
  report_took_ = reported_at_ - begin;
}

template <nn::Layer L>
void Trainer<L>::end_epoch() {
  const std::optional<double> valid_loss = validate();
  if (valid_loss) require_below(largest_loss, "validation loss", *valid_loss, at_.step);
  const auto updates = static_cast<double>(train_.count() - at_.epoch_skipped);
  Metrics line = metrics(at_.epoch_loss / updates, at_.epoch_clips, epoch_pace_);
  line.valid_loss = valid_loss;
  append(line);
  log_.epoch(position(), line);
  const bool is_best = valid_loss && *valid_loss < at_.best_loss;
  if (is_best) {
    at_.best_loss = *valid_loss;
    at_.best_epoch = at_.epoch;
  }
  at_.begin_epoch();
  tbptt_.reset();
  updates_.end_epoch(valid_loss);
  save(is_best, true);
  if (board_)
    write_or_save([&] {
      board_->metrics(line, true);
      board_->histograms("weights/", at_.step, nn::from_params(params_));
    });
  // Where epochs are short, reports are to take at most a fiftieth of the time.
  if (!goes_on() || seconds_now() - reported_at_ > 50 * report_took_) report();
}

template <nn::Layer L>
std::optional<double> Trainer<L>::validate() const {
  if (!valid_) return std::nullopt;
  return updates_.with_average(
      [&] { return mean_loss(model_, *valid_, [&] { stop_if_asked(); }); });
}

// Of the best weights, or if there is no validation the last. They are read from the file, as later
// commands read them.
template <nn::Layer L>
void Trainer<L>::test() {
  const nn::Location file = at_.best_epoch > 0 ? run_.best_file() : run_.model_file();
  const nn::NamedTensors weights = weights_of(run_.load(config_, file), params_);
  const double loss = nn::functional_call(
      params_, weights, [&] { return mean_loss(model_, *test_, [&] { stop_if_asked(); }); });
  require_below(largest_loss, "test loss", loss, at_.step);
  at_.test_loss = loss;
  save();
  saves_.wait();
  report();
}

template <nn::Layer L>
Metrics Trainer<L>::metrics(double train_loss, const optim::ClipCount& clips,
                            const Pace& pace) const {
  return {.step = at_.step,
          .epoch = static_cast<int>(at_.epoch),
          .train_loss = train_loss,
          .lr = updates_.learning_rate(),
          .grad_norm = at_.grad_norm,
          .chars_per_s = pace.chars_per_s(),
          .elapsed_s = seconds_now() - start_,
          .clip = clips.steps > 0 ? std::optional(clips) : std::nullopt,
          .skipped = at_.skipped};
}

template <nn::Layer L>
double Trainer<L>::seconds_left() const {
  const Position p = position();
  const auto chars = static_cast<double>((p.steps - p.step) * train_.batch() * train_.seq_len());
  return chars / shown_pace_.chars_per_s();
}

}  // namespace reel::char_lm
