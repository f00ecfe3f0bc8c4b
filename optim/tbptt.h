#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <reel/autograd/gradients.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/nn/named_tensors.h>
#include <reel/nn/state.h>

namespace reel::optim {

/// The options of Tbptt.
struct TbpttOptions {
  Index k1 = 0;  ///< time steps from one update to the next
  Index k2 = 0;  ///< time steps that an update looks back
  /// What a model's loss of some steps is. An update's steps may be computed in two parts; the loss
  /// of the update is then the mean of theirs, weighted by their steps, or their sum.
  LossReduction reduction = LossReduction::mean;
  /// The generator that the model draws from, such as that of dropout; only for `Tbptt::history`.
  Rng* rng = nullptr;
};

/// What a checkpoint needs in addition to the current parameters, so that truncated backpropagation
/// goes on bit for bit: the steps before `position` that later updates still look back over are run
/// again, with the parameters of then.
template <nn::RecurrentState State>
struct TbpttHistory {
  Index position = 0;   ///< time steps since the beginning of the sequence
  Index steps = 0;      ///< the last ones of them, which are run again: data[position - steps ..)
  State state = {};     ///< before those
  Rng::State rng = {};  ///< of TbpttOptions::rng before those
  /// The parameters during those, from one update to the next, the earliest first.
  std::vector<nn::NamedTensors> params = {};
};

namespace detail {

/// The part of Tbptt that does not depend on types: positions, tapes and gradients.
class TapeWindow {
 public:
  struct Result {
    Tensor loss;
    std::vector<Tensor> state;
  };
  using Part = std::function<Result(std::span<const Tensor> state)>;
  struct Update {
    Gradients gradients;
    double loss;
  };
  struct History {
    Index position, steps;
    std::vector<Tensor> state;
    Rng::State rng;
    std::vector<nn::NamedTensors> params;
  };

  TapeWindow(const Params& params, const TbpttOptions& options, Site site);
  ~TapeWindow();
  TapeWindow(TapeWindow&&) noexcept;
  TapeWindow& operator=(TapeWindow&&) noexcept;

  /// How many of the next steps are computed together: those up to the next update or to the place
  /// where a later one stops looking back.
  Index next_part(Index available) const;
  /// Computes them.
  void run(Index steps, std::span<const Tensor> state, const Part& part, Site site);
  bool update_is_due() const { return position_ > updated_at_ && position_ % options_.k1 == 0; }
  /// The gradients at an update; none if no step since the last one is looked back over, as may be
  /// at the end of a sequence if k2 < k1.
  std::optional<Update> update(bool is_last, Site site);
  void clear();
  /// `state` is the current one.
  History history(std::span<const Tensor> state, Site site) const;
  /// Runs the steps of a history again: calls `part` for each part of them.
  void replay(const History& history, const std::function<void(Index steps)>& part, Site site);
  void require_replayed(const History& history, Index steps, Site site) const;

  Index position() const { return position_; }
  std::int64_t held_bytes() const;
  std::size_t tapes() const { return stretches_.size(); }

 private:
  struct Stretch;
  struct Loss {
    double value;
    Index steps;
  };

  bool is_recorded() const;
  std::vector<Tensor> watch(Stretch& stretch, std::span<const Tensor> state) const;
  void check(const Result& result, std::span<const Tensor> before, Index steps, Site site) const;
  double weight(Index steps) const;
  void forget_before(Index position);

  Params params_;
  TbpttOptions options_;
  Index position_ = 0;    // time steps so far
  Index updated_at_ = 0;  // those at the last update
  std::deque<std::unique_ptr<Stretch>> stretches_;
  PoolVector<Loss> losses_;  // since the last update
};

/// The number of time steps of tensors [T, ...]. Throws ShapeError or ValueError unless all have
/// the same, at least one.
Index time_steps(std::span<const Tensor> data, Site site);
/// Time steps [begin, end) of a tensor; itself if these are all.
Tensor steps_of(const Tensor& x, Index begin, Index end, Site site);

/// Whether a model can be called with `count` tensors and a state.
template <class Model, class State, std::size_t count>
constexpr bool takes_tensors_and_state() {
  return []<std::size_t... i>(std::index_sequence<i...>) {
    return std::is_invocable_v<const Model&, decltype((i, std::declval<const Tensor&>()))...,
                               const State&>;
  }
  (std::make_index_sequence<count>());
}

}  // namespace detail

/// Truncated backpropagation through time, TBPTT(k1, k2): a sequence is processed in order with a
/// carried state; after every k1 time steps there is an update, whose gradient goes back k2 steps.
/// At the update after step n
///
///     E = mean of the losses of steps n - k1 + 1 .. n
///     gradient = dE/dθ with the state before step n - k2 + 1 as a constant
///
/// (Williams and Peng, "An efficient gradient-based algorithm for on-line training of recurrent
/// network trajectories", 1990, with the names of Sutskever, "Training recurrent neural networks",
/// 2013.) k1 = k2 is the usual training in windows with `detach` between them, k2 of the length of
/// the sequence backpropagation to its beginning. If k1 < k2, an update looks back over steps whose
/// losses counted in earlier ones. If k1 > k2, all losses are reported but only those of the last
/// k2 steps contribute; the steps before are run without a tape.
///
/// No step is computed twice, and memory is that of the records of k2 steps. As the parameters
/// change at every update, steps that an update looks back over may have run with earlier values.
/// Those are the values in their part of the gradient: it is Σ over the steps of the derivative at
/// the values that each ran with, as if the parameters of each time were the same variable. Their
/// numbers stay in memory for as long, up to k2 / k1 copies of the parameters.
///
///     optim::Tbptt<nn::LstmState> tbptt(params, {.k1 = 10, .k2 = 40});
///     const auto model = [&](const Tensor& x, const Tensor& targets, const nn::LstmState& state) {
///       const auto [y, next] = lstm(embed(x), state);
///       return std::pair(cross_entropy(head(y), targets), next);
///     };
///     const auto update = [&](const Gradients& gradients, double loss) { adam.step(gradients); };
///     for (const auto& [x, targets] : windows) tbptt.run({x, targets}, model, update);
///
/// The data may arrive in pieces of any length, and the object carries everything from one to the
/// next. Each call of the model is for consecutive steps that end at the latest at an update, or
/// where a later update stops looking back: if k2 is no multiple of k1, it is called twice for each
/// update.
template <nn::RecurrentState State>
class Tbptt {
 public:
  /// For the gradients of these parameters. Throws ValueError unless k1 and k2 are at least 1.
  Tbptt(const Params& params, const TbpttOptions& options, Site site = {})
      : window_(params, options, site) {}

  /// Goes on over tensors [T, ...]. `model(x..., state)` gets the same steps [k, ...] of each of
  /// them and the state before, and returns the loss of these steps, a single number, and the state
  /// after them: a pair or another struct of two members. `update(gradients, loss)` is called at
  /// every update with its gradients, which it may change, and the loss E.
  ///
  /// Throws ShapeError or ValueError for data without steps or of different lengths, or a loss that
  /// is not a single number; ShapeError for a state with other tensors than that before it;
  /// StaleTensorError if a parameter changes between two updates; and what the functions throw. The
  /// parts before are done then, and the state is theirs. If a gradient fails, its update is left
  /// out and later ones do not look back beyond it.
  template <std::size_t count, class Model, class F>
  void run(const Tensor (&data)[count], const Model& model, F&& update, Site site = {}) {
    const Index steps = detail::time_steps(data, site);
    for (Index done = 0; done < steps;) {
      const Index part = window_.next_part(steps - done);
      run_part(data, done, done + part, model, site);
      done += part;
      if (!window_.update_is_due()) continue;
      if (auto result = window_.update(false, site)) update(result->gradients, result->loss);
    }
  }

  /// The end of the sequence: an update for the steps since the last one, if there are any, which
  /// looks back as far as the next one would have; then `reset()`.
  template <class F>
  void finish(F&& update, Site site = {}) {
    auto result = window_.update(true, site);
    reset();
    if (result) update(result->gradients, result->loss);
  }
  /// Begins a sequence, without an update for the steps since the last one.
  void reset(State state = {}) {
    window_.clear();
    state_ = nn::detach(state);
  }

  /// The current state, without a history.
  const State& state() const { return state_; }
  /// Time steps since the beginning of the sequence.
  Index position() const { return window_.position(); }
  /// The bytes of ops' results that the tapes hold.
  std::int64_t held_bytes() const { return window_.held_bytes(); }

  /// What a checkpoint stores so that `restore` continues from here bit for bit. Copies no numbers.
  /// Throws ValueError unless the last step was one of an update.
  TbpttHistory<State> history(Site site = {}) const {
    auto [position, steps, state, rng, params] = window_.history(nn::flatten(state_), site);
    // At the beginning of the sequence the state may have no tensors.
    const State before = state.empty() ? State{} : nn::unflatten(state_, state, site);
    return {position, steps, before, rng, std::move(params)};
  }
  /// Continues from there: runs the model over `data`, the last `history.steps` steps, without
  /// updates; nothing if there are none. Throws ValueError, having changed nothing, if the history
  /// is not one of these k1 and k2 or the data have another number of steps; and what
  /// nn::load_params and the model throw, after which it is at the beginning of a sequence.
  template <std::size_t count, class Model>
  void restore(const TbpttHistory<State>& history, const Tensor (&data)[count], const Model& model,
               Site site = {}) {
    const detail::TapeWindow::History past{history.position, history.steps,
                                           nn::flatten(history.state), history.rng, history.params};
    window_.require_replayed(past, history.steps == 0 ? 0 : detail::time_steps(data, site), site);
    reset(history.state);
    Index done = 0;
    const auto run_next = [&](Index part) {
      run_part(data, done, done + part, model, site);
      done += part;
    };
    try {
      window_.replay(past, run_next, site);
    } catch (...) {
      reset();
      throw;
    }
  }

 private:
  template <std::size_t count, class Model>
  void run_part(const Tensor (&data)[count], Index begin, Index end, const Model& model,
                Site site) {
    constexpr bool fits = detail::takes_tensors_and_state<Model, State, count>();
    static_assert(fits, "the model is called with a tensor for each of the data and a State");
    if constexpr (fits) {
      State after;
      const auto part = [&](std::span<const Tensor> tensors) {
        const State before = nn::unflatten(state_, tensors, site);
        const auto call = [&]<std::size_t... i>(std::index_sequence<i...>) {
          return model(detail::steps_of(data[i], begin, end, site)..., before);
        };
        const auto [loss, next] = call(std::make_index_sequence<count>());
        after = next;
        return detail::TapeWindow::Result{loss, nn::flatten(after)};
      };
      window_.run(end - begin, nn::flatten(state_), part, site);
      state_ = nn::detach(after);
    }
  }

  detail::TapeWindow window_;
  State state_;
};

}  // namespace reel::optim
