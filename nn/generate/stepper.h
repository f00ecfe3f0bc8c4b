#pragma once

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include <reel/nn/cells/gru.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/cells/rnn.h>
#include <reel/nn/embedding.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>

namespace reel::nn {

/// Runs a part of a trained model one step at a time, with its weights packed once: for generation.
///
///     const nn::Stepper step(embed, rnn);
///     const nn::Stepper predict(head);
///     auto last = step(token);                      // i32 [B]
///     ...  nn::sample(predict(last.y), ...)
///     last = step(token, last.state);
///
/// There are steppers of Linear, Rnn, Gru, Lstm and Stacked of these; a recurrent one may include
/// the preceding Embedding and then takes symbols. The values are bit-identical to those of the
/// part over the whole sequence, in its dtype and for any number of rows. Work is done on the
/// calling thread, without locks, and once warm without heap allocations. Copies share the packed
/// weights. A stepper is thread-safe.
///
/// A stepper remembers the versions of its parameters. Once one of them has changed, every call
/// throws StaleTensorError; construct a new one, which costs as much as a few steps. Nothing is
/// recorded: calls throw GradientError while a tape that is not used up is current (NoRecord
/// suspends it).
template <class Part>
class Stepper;

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
  PackedLayer(const CellSpec& cell, const CellParams& params, const Embedding* embed, Site site);

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
  Index input_size_, output_size_;
  Index symbols_ = 0;  // 0: inputs are vectors
  Step step_;
};

}  // namespace detail

template <>
class Stepper<Linear> {
 public:
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

template <class C>
class Stepper<Recurrent<C>> {
 public:
  using State = typename C::State;

  explicit Stepper(const Recurrent<C>& layer, Site site = {})
      : layer_(layer.cell.fused().spec, layer.cell.params(), nullptr, site) {}
  Stepper(const Embedding& embed, const Recurrent<C>& layer, Site site = {})
      : layer_(layer.cell.fused().spec, layer.cell.params(), &embed, site) {}

  /// One step: x [B, D], or with an embedding symbols i32 [B] -> y [B, H] and the next state.
  /// Throws ShapeError, DTypeError or ValueError for an input that does not fit, StaleTensorError
  /// and GradientError as described above.
  Output<State> operator()(const Tensor& x, const State& state = {}, Site site = {}) const {
    return layer_(x, state, site);
  }

 private:
  detail::PackedLayer layer_;
};

template <class L>
class Stepper<Stacked<L>> {
 public:
  using State = typename Stacked<L>::State;

  explicit Stepper(const Stacked<L>& stack, Site site = {}) {
    for (const L& layer : stack.layers) layers_.emplace_back(layer, site);
  }
  Stepper(const Embedding& embed, const Stacked<L>& stack, Site site = {}) {
    for (const L& layer : stack.layers)
      layers_.empty() ? layers_.emplace_back(embed, layer, site)
                      : layers_.emplace_back(layer, site);
  }

  /// One step through all layers; see the steppers of layers. Throws ShapeError also for a state of
  /// another number of layers.
  Output<State> operator()(const Tensor& x, const State& state = {}, Site site = {}) const {
    check_depth(state, layers_.size(), site);
    Output<State> result{x, {}};
    result.state.layers.reserve(layers_.size());
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      auto [y, next] =
          layers_[i](result.y, state.layers.empty() ? typename L::State{} : state.layers[i], site);
      result.y = std::move(y);
      result.state.layers.push_back(std::move(next));
    }
    return result;
  }

 private:
  std::vector<Stepper<L>> layers_;
};

}  // namespace reel::nn
