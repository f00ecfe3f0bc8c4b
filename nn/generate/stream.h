#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <reel/nn/cells/min_gru.h>
#include <reel/nn/cells/recurrent.h>
#include <reel/nn/dropout.h>
#include <reel/nn/embedding.h>
#include <reel/nn/layer_norm.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>
#include <reel/nn/with_initial_state.h>

namespace reel::nn {

/// A function of every number of a tensor: an op such as reel::tanh.
using Pointwise = Tensor (*)(const Tensor& x, Site site);

namespace detail {

/// The packed parts of a stream; what they compute is in a block of memory of the caller's.
template <Real T>
class StreamModel {
 public:
  /// One without parts.
  static std::shared_ptr<StreamModel> create();
  StreamModel();
  ~StreamModel();
  StreamModel(const StreamModel&) = delete;
  StreamModel& operator=(const StreamModel&) = delete;

  void add(const Embedding& embed);
  void add(const Linear& linear) { add_affine(linear.w, linear.b); }
  void add(const LayerNorm& norm);
  void add(const Dropout&) {}  // the identity, as a stream does not train
  void add(Pointwise op);
  void add(const MinGru& layer);
  template <class C>
  void add(const Recurrent<C>& layer) {
    add_cell(layer.cell.fused().spec, layer.cell.params(), layer.cell.step_options());
  }
  template <class L>
  requires(!is_bidirectional<L>) void add(const WithInitialState<L>& part) {
    const std::size_t first = states();
    add(part.layer);
    for (std::size_t i = 0; i < part.initial.size(); ++i) begin_with(first + i, part.initial[i]);
  }
  template <class... Ls>
  requires(!(is_bidirectional<Ls> || ...)) void add(const Stacked<Ls...>& stack) {
    each_layer(stack.layers, [&](std::size_t i, const auto& layer) {
      if (i > 0 && !stack.links.norms.empty()) add(stack.links.norms[i - 1]);
      const Row below = row_;
      add(layer);
      if (i > 0) connect(below, stack.links, i);
    });
  }
  template <class Part>
  void add(const Part&) {
    static_assert(!is_bidirectional<Part>,
                  "a bidirectional layer has no Stream: its backward direction begins at the end "
                  "of the sequence, which a step does not know; train a model without it");
    static_assert(is_bidirectional<Part>,
                  "there is no Stream of this: it takes what nn/generate/stream.h lists. A cell in "
                  "ops allocates memory in every step; written as the function of a unit it does "
                  "not: see docs/add_a_cell.md");
  }
  /// To be called after the last part. Throws ValueError if there is none.
  void finish();

  /// The memory at the beginning of a sequence.
  const PoolVector<T>& initial() const { return initial_; }
  Index symbols() const { return symbols_; }
  Index input_size() const { return input_size_; }
  Index output_size() const { return row_.size; }

  void step(std::span<const T> in, std::span<T> out, T* memory) const noexcept;
  void step(std::int32_t symbol, std::span<T> out, T* memory) const noexcept;

 private:
  struct Part;
  struct Cell;
  struct Affine;
  struct Function;
  struct Norm;
  struct MinGruStep;
  struct Link;
  struct Build;  // what is needed until all parts are there
  struct Row {   // a place in memory, and the numbers there
    Index place, size;
  };

  static constexpr Index outside = -1;  // the place of what a step is given
  struct PlacedPart {
    std::unique_ptr<const Part> part;
    Index input;
  };

  void add_affine(const Param& w, const Param& b);
  void add_cell(const CellSpec& spec, const CellParams& params,
                const kernels::StepOptions& options);
  void connect(const Row& below, const StackLinks& links, std::size_t layer);
  std::size_t states() const;
  void begin_with(std::size_t state, const Param& value);
  void require_input(const Param& p, Index size);
  template <class P, class... Args>
  void push(Index size, const Args&... arguments);
  void run(const T* in, std::span<T> out, T* memory) const noexcept;

  std::unique_ptr<Build> build_;
  std::vector<PlacedPart> parts_;
  Row row_{};  // the output of the parts so far
  PoolVector<T> table_, initial_;
  Index input_size_ = 0, symbols_ = 0;
};

extern template class StreamModel<float>;
extern template class StreamModel<double>;

}  // namespace detail

/// A trained model for one sequence in real time: it owns its packed weights and its state, and a
/// step takes and gives plain numbers.
///
///     nn::Stream stream(lstm, head, reel::tanh);  // runs them one after another, as in Eval
///     stream.reset();                             // the beginning of a sequence
///     stream.step(in, out);                       // in [input_size], out [output_size]
///
/// The parts are any of Embedding, which comes first and takes a symbol, Recurrent layers such as
/// Lstm, UnitCells of your own included, MinGru, Stacked and WithInitialState of these, Linear,
/// LayerNorm, Dropout, which does nothing, and the ops tanh, sigmoid and relu. The values are
/// bit-identical to those of the parts over the whole sequence.
///
/// After construction nothing locks, allocates or throws, and subnormal numbers, which would slow a
/// step down, are flushed to zero. That costs less where the thread's mode does so already. A copy
/// shares the weights and has a state of its own. One stream is for one thread at a time; several
/// may run side by side.
///
/// The weights are those at construction: after training on, construct a new stream.
template <Real T = float>
class Stream {
 public:
  /// Throws DTypeError unless all parameters are of type T, ShapeError for parts that do not fit on
  /// top of each other, and ValueError if there is none, an embedding is not the first one, or a
  /// function is not one of these.
  template <class... Parts>
  explicit Stream(const Parts&... parts) {
    const auto model = detail::StreamModel<T>::create();
    (model->add(parts), ...);
    model->finish();
    memory_ = model->initial();
    model_ = model;
  }

  /// Features of the input, or 0 if it is a symbol.
  Index input_size() const noexcept { return model_->input_size(); }
  Index output_size() const noexcept { return model_->output_size(); }

  /// Begins a sequence.
  void reset() noexcept {
    std::copy(model_->initial().begin(), model_->initial().end(), memory_.begin());
  }
  /// One step: in [input_size] -> out [output_size]. Another size ends the program with a message,
  /// as does a symbol below.
  void step(std::span<const T> in, std::span<T> out) noexcept {
    model_->step(in, out, memory_.data());
  }
  /// The same with an embedding: symbol, 0 <= symbol < count -> out [output_size].
  void step(std::int32_t symbol, std::span<T> out) noexcept {
    model_->step(symbol, out, memory_.data());
  }

 private:
  std::shared_ptr<const detail::StreamModel<T>> model_;
  PoolVector<T> memory_;
};

template <class... Parts>
Stream(const Parts&...) -> Stream<float>;

}  // namespace reel::nn
