#include "saves.h"

#include <algorithm>
#include <utility>

namespace reel::char_lm {

// A rollback needs two: if the process is killed when the second is written but not yet the state
// itself, it resumes from before the second.
int Saves::kept() const {
  const Settings& s = config_.settings;
  return s.on_nan == "rollback" ? std::max(s.keep, 2) : s.keep;
}

bool Saves::is_point(Index step) const {
  const Settings& s = config_.settings;
  const int every = s.save_every > 0 ? s.save_every : kept() > 0 ? 100 : 0;
  return every > 0 && step % every == 0;
}

// The state itself comes last: what it does not know of yet is written again when it resumes.
void Saves::begin(optim::RunState state, const Progress& at, bool is_best, bool is_point) {
  std::exception_ptr earlier;
  try {
    wait();
  } catch (const FileError&) {
    earlier = std::current_exception();
  }
  const int keep = is_point ? kept() : 0;
  saver_.save(std::move(state), [this, step = at.step, is_best, keep](const optim::RunState& held) {
    if (is_best) run_.save(run_.best_file(), config_, held);
    if (keep > 0) run_.save_step(step, keep, config_, held);
    run_.save(run_.model_file(), config_, held);
  });
  begun_step_ = at.step;
  begun_at_ = seconds_now();
  if (!earlier) return;
  saved_step();
  std::rethrow_exception(earlier);
}

void Saves::wait() {
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  const Index step = std::exchange(begun_step_, saved_step_);
  saver_.wait();
  saved_step_ = begun_step_ = step;
}

bool Saves::is_due() const { return seconds_now() - begun_at_ > 60; }

bool Saves::lacks_point(Index step) const {
  if (kept() == 0) return false;
  const auto newest = run_.newest_step(step);
  return !newest || (is_point(step) && *newest != step);
}

std::optional<optim::RunState> Saves::newest_point(Index step) {
  wait();
  const auto newest = run_.newest_step(step);
  return newest ? std::optional(run_.load(config_, run_.step_file(*newest))) : std::nullopt;
}

Diverged Saves::diverged(const std::string& how, Index step) {
  const Index saved = saved_step();
  const std::string kept =
      saved == 0 ? "nothing was saved yet"
                 : fmt::format("{} keeps the state of step {}", run_.model_file().str(), saved);
  const bool may_help = saved > 0 && config_.settings.on_nan == "stop";
  return {fmt::format("step {}: {}, so training stopped; {}; {}try a smaller --lr or --clip in a "
                      "new run",
                      step, how, kept,
                      may_help ? "go on with --resume --on-nan rollback or skip, or " : ""),
          how, step};
}

Index Saves::saved_step() {
  try {
    wait();
  } catch (...) {  // then the one before is there
    failure_ = std::current_exception();
  }
  return saved_step_;
}

}  // namespace reel::char_lm
