#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include <reel/autograd/tape.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/cells/recurrent.h>
#include <reel/nn/embedding.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>
#include <reel/nn/unroll.h>
#include <reel/nn/with_initial_state.h>

namespace reel::nn {

/// Runs a part of a trained model one step at a time, with its weights packed once: for generation.
///
///     const nn::Stepper step(embed, rnn);
///     const nn::Stepper predict(head);
///     auto last = step(token);                      // i32 [B]
///     ...  nn::sample(predict(last.y), ...)
///     last = step(token, last.state);
///
/// There are steppers of Linear, Unroll and every Recurrent layer such as Lstm, and of Stacked and
/// WithInitialState of these; a recurrent one may include the preceding Embedding and then takes
/// symbols. A Bidirectional layer has none, as it needs the whole sequence. The values are
/// bit-identical to those of the part over the whole sequence, in its dtype and for any number of
/// rows. Work is done on the calling thread, without locks, and once warm without heap allocations.
/// Copies share the packed weights. A stepper is thread-safe.
///
/// A stepper remembers the versions of its parameters. Once one of them has changed, every call
/// throws StaleTensorError; construct a new one, which costs as much as a few steps. Nothing is
/// recorded: calls throw GradientError while a tape that is not used up is current (NoRecord
/// suspends it).
template <class Part>
class Stepper {
  static_assert(!is_bidirectional<Part>,
                "a bidirectional layer has no Stepper: its backward direction begins at the end of "
                "the sequence, which a step does not know");
  static_assert(is_bidirectional<Part>, "there is no Stepper of this: see nn/generate/stepper.h");

 public:
  explicit Stepper(const Part&, Site = {}) {}
  Stepper(const Embedding&, const Part&, Site = {}) {}
};

template <class Part>
Stepper(const Part& part) -> Stepper<Part>;
template <class Part>
Stepper(const Embedding& embed, const Part& part) -> Stepper<Part>;

namespace detail {

/// Parameters, and the versions of the values that were packed.
class PackedParams {
 public:
  void add(const Param& p) { packed_.push_back({p.entry(), p.entry()->version}); }
  /// Throws unless they are unchanged and no tape is current.
  void check(Site site) const;

 private:
  struct Packed {
    std::shared_ptr<const ParamEntry> entry;
    std::uint64_t version;
  };
  std::vector<Packed> packed_;
};

/// The packed layer of a cell; with an embedding, which may be null, it takes symbols.
class PackedLayer {
 public:
  PackedLayer(const CellSpec& cell, const CellParams& params, const kernels::StepOptions& options,
              const Embedding* embed, Site site);

  template <class State>
  Output<State> operator()(const Tensor& x, const State& state, Site site) const {
    std::array<Tensor, kernels::max_states> before, after;
    std::size_t count = 0;
    state.map([&](const Tensor& s) { return before[count++] = s; });
    run(x, std::span(before).first(count), std::span(after).first(count), site);
    return {after[0], state_of<State>(after.data())};
  }

 private:
  using Step =
      std::function<void(const Tensor& x, std::span<const Tensor> before, std::span<Tensor> after)>;
  void run(const Tensor& x, std::span<Tensor> before, std::span<Tensor> after, Site site) const;

  PackedParams params_;
  DType dtype_;
  kernels::CellSizes sizes_;
  Index symbols_ = 0;  // 0: inputs are vectors
  Step step_;
};

}  // namespace detail

/// Applies a linear layer to a few rows at a time.
template <>
class Stepper<Linear> {
 public:
  /// Packs the weights.
  explicit Stepper(const Linear& linear);

  /// x [..., input_size] -> y [..., output_size]. Throws ShapeError or DTypeError for another x,
  /// StaleTensorError and GradientError as described above.
  Tensor operator()(const Tensor& x, Site site = {}) const;

 private:
  using Product = std::function<void(const Tensor& x, Index rows, Tensor& y)>;

  detail::PackedParams params_;
  DType dtype_;
  Index input_size_, output_size_;
  Product product_;
};

/// Runs a recurrent layer step by step.
template <class C>
class Stepper<Recurrent<C>> {
 public:
  using State = typename C::State;

  explicit Stepper(const Recurrent<C>& layer, Site site = {}) : Stepper(nullptr, layer, site) {}
  Stepper(const Embedding& embed, const Recurrent<C>& layer, Site site = {})
      : Stepper(&embed, layer, site) {}

  /// One step: x [B, D], or with an embedding symbols i32 [B] -> y [B, H] and the next state.
  /// Throws ShapeError, DTypeError or ValueError for an input that does not fit, StaleTensorError
  /// and GradientError as described above.
  Output<State> operator()(const Tensor& x, const State& state = {}, Site site = {}) const {
    return layer_(x, state, site);
  }

 private:
  Stepper(const Embedding* embed, const Recurrent<C>& layer, Site site)
      : layer_(layer.cell.fused().spec, layer.cell.params(), layer.cell.step_options(), embed,
               site) {}

  detail::PackedLayer layer_;
};

/// Of a cell that is run step by step: nothing is packed, a step is a call of the cell, with the
/// current values of its parameters.
template <class C>
class Stepper<Unroll<C>> {
 public:
  using State = StateOf<C>;

  explicit Stepper(const Unroll<C>& layer, Site = {}) : layer_(layer) {}
  Stepper(const Embedding& embed, const Unroll<C>& layer, Site = {})
      : layer_(layer), embed_(embed) {}

  /// One step: x [B, D], or with an embedding symbols i32 [B] -> y [B, H] and the next state.
  /// Throws GradientError as described above, and what the cell throws.
  Output<State> operator()(const Tensor& x, const State& state = {}, Site site = {}) const {
    params_.check(site);
    const NoRecord pause;
    const SiteScope scope(site);
    return layer_.step(embed_ ? (*embed_)(x) : x, state, Eval{});
  }

 private:
  detail::PackedParams params_;
  Unroll<C> layer_;
  std::optional<Embedding> embed_;
};

/// Runs a layer with a trained initial state step by step.
template <class L>
requires(!is_bidirectional<L>) class Stepper<WithInitialState<L>> {
 public:
  using State = StateOf<L>;

  explicit Stepper(const WithInitialState<L>& part, Site site = {})
      : Stepper(Stepper<L>(part.layer, site), part) {}
  Stepper(const Embedding& embed, const WithInitialState<L>& part, Site site = {})
      : Stepper(Stepper<L>(embed, part.layer, site), part) {}

  /// One step of the layer, from its initial state where the given one is undefined.
  Output<State> operator()(const Tensor& x, const State& state = {}, Site site = {}) const {
    params_.check(site);
    const NoRecord pause;
    const bool has_rows = x.defined() && x.rank() > 0;
    return step_(x, has_rows ? part_.completed(state, x.size(0)) : state, site);
  }

 private:
  Stepper(Stepper<L> step, const WithInitialState<L>& part) : step_(std::move(step)), part_(part) {
    for (const Param& p : part.initial) params_.add(p);
  }

  Stepper<L> step_;
  WithInitialState<L> part_;
  detail::PackedParams params_;
};

namespace detail {

template <class L>
Stepper<L> packed(const L& layer, const Embedding* embed, Site site) {
  return embed ? Stepper<L>(*embed, layer, site) : Stepper<L>(layer, site);
}

template <class L>
std::vector<Stepper<L>> pack_layers(const std::vector<L>& layers, const Embedding* embed,
                                    Site site) {
  std::vector<Stepper<L>> result;
  for (const L& layer : layers)
    result.push_back(packed(layer, result.empty() ? embed : nullptr, site));
  return result;
}
template <class... Ls>
std::tuple<Stepper<Ls>...> pack_layers(const std::tuple<Ls...>& layers, const Embedding* embed,
                                       Site site) {
  const auto next = [&] { return std::exchange(embed, nullptr); };
  return std::apply(
      [&](const Ls&... each) { return std::tuple<Stepper<Ls>...>{packed(each, next(), site)...}; },
      layers);
}

}  // namespace detail

/// Runs a stack step by step.
template <class... Ls>
requires(!is_bidirectional<Stacked<Ls...>>) class Stepper<Stacked<Ls...>> {
 public:
  using State = typename Stacked<Ls...>::State;

  explicit Stepper(const Stacked<Ls...>& stack, Site site = {}) : Stepper(stack, nullptr, site) {}
  Stepper(const Embedding& embed, const Stacked<Ls...>& stack, Site site = {})
      : Stepper(stack, &embed, site) {}

  /// One step through all layers; see the steppers of layers. Throws ShapeError also for a state of
  /// another number of layers.
  Output<State> operator()(const Tensor& x, const State& state = {}, Site site = {}) const {
    params_.check(site);
    const NoRecord pause;
    const SiteScope scope(site);
    check_depth(state, detail::layer_count(layers_), site);
    Output<State> result{x, {}};
    detail::each_layer(layers_, [&](auto i, const auto& step) {
      const Tensor below = links_.input(i, result.y);
      auto output = step(below, detail::state_of_layer(state, i), site);
      result.y = links_.output(i, below, output.y);
      detail::set_state_of_layer(result.state, i, std::move(output.state));
    });
    return result;
  }

 private:
  Stepper(const Stacked<Ls...>& stack, const Embedding* embed, Site site)
      : layers_(detail::pack_layers(stack.layers, embed, site)), links_(stack.links) {
    for (const LayerNorm& norm : links_.norms) {
      params_.add(norm.gain);
      params_.add(norm.bias);
    }
    for (const Linear& gate : links_.gates) {
      params_.add(gate.w);
      params_.add(gate.b);
    }
  }

  detail::LayersOf<Stepper<Ls>...> layers_;
  StackLinks links_;
  detail::PackedParams params_;
};

}  // namespace reel::nn
