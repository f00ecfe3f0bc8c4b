#include <reel/optim/tbptt.h>

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/engine/backward.h>

namespace reel::optim {
namespace detail {
namespace {

constexpr Index longest = Index{1} << 60;  // so that no sum of positions overflows

void require_positive(const char* name, Index k, Site site) {
  if (k < 1)
    throw ValueError(
        fmt::format("Tbptt: {} is {}, but has to be at least 1, a number of time steps", name, k),
        site);
}

std::string kind(const Tensor& x) {
  return x.defined() ? fmt::format("{} {}", name_of(x.dtype()), x.shape().str()) : "undefined";
}

bool is_defined(const Tensor& x) { return x.defined(); }

// Whoever has a span of the numbers of a parameter may write to them at any time.
Tensor as_now(const Tensor& value) { return value.buffer().exposed() ? value.copy() : value; }

}  // namespace

// Consecutive time steps, computed by one call of the model, and their tape. Its inputs are the
// tensors of the state, as leaves.
struct TapeWindow::Stretch {
  explicit Stretch(Index begin) : begin(begin) {}

  Tape tape;
  Index begin, end = 0;
  Tensor loss = {};
  PoolVector<Backward::Join> joins = {};  // with the stretch before it
  PoolVector<std::int32_t> outputs = {};  // slots of the state after it; -1 for a constant
  // What replaying it takes:
  std::vector<Tensor> state = {};
  Rng::State rng = {};
  std::vector<Tensor> params = {};
};

TapeWindow::TapeWindow(const Params& params, const TbpttOptions& options, Site site)
    : params_(params), options_(options) {
  require_positive("k1", options.k1, site);
  require_positive("k2", options.k2, site);
  options_.k1 = std::min(options.k1, longest);
  options_.k2 = std::min(options.k2, longest);
}

TapeWindow::~TapeWindow() = default;
TapeWindow::TapeWindow(TapeWindow&&) noexcept = default;
TapeWindow& TapeWindow::operator=(TapeWindow&&) noexcept = default;

void TapeWindow::clear() {
  position_ = updated_at_ = 0;
  stretches_.clear();
  losses_.clear();
}

// Updates are at multiples of k1, and each looks back to a position k2 before it.
Index TapeWindow::next_part(Index available) const {
  const Index k1 = options_.k1;
  const Index to_update = k1 - position_ % k1;
  const Index to_edge = k1 - (position_ % k1 + options_.k2 % k1) % k1;
  return std::min({available, to_update, to_edge});
}

// Whether the next update looks back to here. If it does not, no later one does.
bool TapeWindow::is_recorded() const {
  const Index next_update = (position_ / options_.k1 + 1) * options_.k1;
  return next_update - options_.k2 <= position_;
}

void TapeWindow::run(Index steps, std::span<const Tensor> state, const Part& part, Site site) {
  if (!is_recorded()) {
    const NoRecord pause;
    const Result result = part(state);
    check(result, state, steps, site);
    losses_.push_back({result.loss.item(), steps});
    position_ += steps;
    return;
  }
  auto stretch = std::make_unique<Stretch>(position_);
  if (options_.k2 > options_.k1) {
    stretch->state.assign(state.begin(), state.end());
    if (options_.rng) stretch->rng = options_.rng->state();
    params_.each([&](const auto& entry) { stretch->params.push_back(as_now(entry->value)); });
  }
  const Result result = part(watch(*stretch, state));
  stretch->tape.pause();
  check(result, state, steps, site);
  for (const Tensor& x : result.state) {
    const bool is_recorded = x.defined() && x.trace().generation == stretch->tape.generation();
    stretch->outputs.push_back(is_recorded && is_real(x.dtype()) ? x.trace().slot : -1);
  }
  stretch->loss = result.loss;
  stretch->end = position_ += steps;
  losses_.push_back({result.loss.item(), steps});
  stretches_.push_back(std::move(stretch));
}

// The state on the tape of a new stretch: leaves, where a gradient may go on to the one before it.
std::vector<Tensor> TapeWindow::watch(Stretch& stretch, std::span<const Tensor> state) const {
  std::vector<Tensor> tensors(state.begin(), state.end());
  if (stretches_.empty()) return tensors;
  const PoolVector<std::int32_t>& outputs = stretches_.back()->outputs;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (outputs[i] < 0) continue;
    tensors[i] = stretch.tape.watch(tensors[i]);
    stretch.joins.push_back({outputs[i], tensors[i].trace().slot});
  }
  return tensors;
}

void TapeWindow::check(const Result& result, std::span<const Tensor> before, Index steps,
                       Site site) const {
  const std::string place = fmt::format("steps {} to {}", position_, position_ + steps - 1);
  if (!result.loss.defined())
    throw ValueError(fmt::format("Tbptt: the loss of {} is undefined", place), site);
  if (!is_real(result.loss.dtype()) || result.loss.size() != 1)
    throw ShapeError(
        fmt::format("Tbptt: the loss of {} is {}, not a single number of f32 or f64; reduce it "
                    "with mean() or sum()",
                    place, kind(result.loss)),
        site);
  if (std::ranges::none_of(before, is_defined)) return;  // a state of zeros may be empty
  const std::vector<Tensor>& after = result.state;
  if (after.size() != before.size())
    throw ShapeError(fmt::format("Tbptt: the state has {} tensors before {} and {} after them; a "
                                 "model returns a state like the one that it gets",
                                 before.size(), place, after.size()),
                     site);
  for (std::size_t i = 0; i < before.size(); ++i)
    if (before[i].defined() && kind(before[i]) != kind(after[i]))
      throw ShapeError(
          fmt::format("Tbptt: tensor {} of the state is {} before {} and {} after them; a model "
                      "returns a state like the one that it gets",
                      i, kind(before[i]), place, kind(after[i])),
          site);
}

double TapeWindow::weight(Index steps) const {
  if (options_.reduction == LossReduction::sum) return 1;
  return static_cast<double>(steps) / static_cast<double>(position_ - updated_at_);
}

std::optional<TapeWindow::Update> TapeWindow::update(bool is_last, Site site) {
  if (position_ == updated_at_) return std::nullopt;
  const Index k1 = options_.k1, next_update = ((position_ - 1) / k1 + 2) * k1;
  const Index edge = is_last ? position_ : next_update - options_.k2;  // of the next update
  PoolVector<Backward::Stretch> window;
  for (std::size_t i = stretches_.size(); i-- > 0;) {
    const Stretch& stretch = *stretches_[i];
    const bool is_new = stretch.begin >= updated_at_;
    window.push_back({.tape = &stretches_[i]->tape,
                      .joins = stretch.joins,
                      .loss = is_new ? stretch.loss : Tensor(),
                      .weight = weight(stretch.end - stretch.begin),
                      .keep = stretch.begin >= edge,
                      .updated_since = !is_new});
  }
  double loss = 0;
  for (const Loss& part : losses_) loss += weight(part.steps) * part.value;
  losses_.clear();
  const Index before = std::exchange(updated_at_, position_);
  if (window.empty() || stretches_.back()->begin < before) return std::nullopt;
  try {
    Gradients gradients = Backward::through(window, params_, site);
    forget_before(edge);
    return Update{std::move(gradients), loss};
  } catch (...) {
    stretches_.clear();
    throw;
  }
}

// What later updates do not need: stretches before a position, and the losses of the others.
void TapeWindow::forget_before(Index position) {
  while (!stretches_.empty() && stretches_.front()->begin < position) stretches_.pop_front();
  for (const auto& stretch : stretches_) stretch->loss = {};
}

std::int64_t TapeWindow::held_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& stretch : stretches_) bytes += stretch->tape.held_bytes();
  return bytes;
}

// ---- Checkpoints.

TapeWindow::History TapeWindow::history(std::span<const Tensor> state, Site site) const {
  if (position_ != updated_at_)
    throw ValueError(
        fmt::format("Tbptt: step {} is not one of an update; save after an update", position_ - 1),
        site);
  History history{position_, 0, {state.begin(), state.end()}, {}, {}};
  if (options_.rng) history.rng = options_.rng->state();
  if (stretches_.empty()) return history;
  const Stretch& first = *stretches_.front();
  history.steps = position_ - first.begin;
  history.state = first.state;
  history.rng = first.rng;
  for (const auto& stretch : stretches_) {
    if (stretch != stretches_.front() && stretch->begin % options_.k1 != 0) continue;
    nn::NamedTensors& params = history.params.emplace_back();
    std::size_t i = 0;
    params_.each(
        [&](const auto& entry) { params.tensors.emplace(entry->name, stretch->params[i++]); });
  }
  return history;
}

void TapeWindow::require_replayed(const History& history, Index steps, Site site) const {
  const Index k1 = options_.k1, k2 = options_.k2;
  const auto refuse = [&](const std::string& why) {
    throw ValueError(
        fmt::format("Tbptt: the history is not one of k1 = {} and k2 = {}: {}", k1, k2, why), site);
  };
  if (history.position < 0 || history.position > longest || history.position % k1 != 0)
    refuse(fmt::format("there is no update at position {}", history.position));
  const Index looked_back = std::min(history.position, std::max<Index>(0, k2 - k1));
  if (history.steps != looked_back)
    refuse(fmt::format("{} of its steps are to be run again, not {}", history.steps, looked_back));
  const Index intervals = (looked_back + k1 - 1) / k1;
  if (std::ssize(history.params) != intervals)
    refuse(fmt::format("it has the parameters of {} intervals, not {}", history.params.size(),
                       intervals));
  if (steps != history.steps)
    throw ValueError(fmt::format("Tbptt: the data have {} time steps, but the history is of {}",
                                 steps, history.steps),
                     site);
}

void TapeWindow::replay(const History& history, const std::function<void(Index steps)>& part,
                        Site site) {
  struct Restored {
    const Params& params;
    nn::NamedTensors now = nn::from_params(params);
    ~Restored() { nn::load_params(now, params); }
  };
  if (options_.rng) *options_.rng = Rng(history.rng);
  position_ = updated_at_ = history.position - history.steps;
  const Restored restored{params_};
  std::size_t interval = 0;
  while (position_ < history.position) {
    if (interval == 0 || position_ % options_.k1 == 0)
      nn::load_params(history.params[interval++], params_, site);
    part(next_part(history.position - position_));
  }
  losses_.clear();
  updated_at_ = position_;
  forget_before(0);
}

// ---- The data.

Index time_steps(std::span<const Tensor> data, Site site) {
  for (const Tensor& x : data) {
    if (!x.defined()) throw ValueError("Tbptt: the data have an undefined tensor", site);
    if (x.rank() == 0)
      throw ShapeError("Tbptt: the data are a single number, without an axis of time steps", site);
    if (x.size(0) == 0)
      throw ShapeError(fmt::format("Tbptt: the sequence has no steps; it is {}", kind(x)), site);
    if (x.size(0) != data[0].size(0))
      throw ShapeError(fmt::format("Tbptt: the data have different numbers of time steps: {} and "
                                   "{}",
                                   kind(data[0]), kind(x)),
                       site);
  }
  return data[0].size(0);
}

Tensor steps_of(const Tensor& x, Index begin, Index end, Site site) {
  return begin == 0 && end == x.size(0) ? x : slice(x, 0, begin, end, 1, site);
}

}  // namespace detail
}  // namespace reel::optim
