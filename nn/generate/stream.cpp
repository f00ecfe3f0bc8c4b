#include <reel/nn/generate/stream.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/interpolate.h>
#include <reel/autograd/kernels/layer_norm.h>
#include <reel/autograd/kernels/row_cell.h>
#include <reel/autograd/kernels/vector_math.h>
#include <reel/nn/generate/direction.h>

namespace reel::nn::detail {
namespace {

using kernels::MatrixView;
using kernels::RowCell;
using kernels::RowProduct;
using kernels::whole_vectors;

// y = f(x) for rows of numbers.
template <Real T>
using Loop = void (*)(const T* x, T* y, Index size);

template <Real T, class F>
void each(const T* x, T* y, Index size) {
  kernels::at_level([=] {
    for (Index j = 0; j < size; ++j) y[j] = F()(x[j]);
  });
}

struct PointwiseLoops {
  Pointwise op;
  Loop<float> of_f32;
  Loop<double> of_f64;
};

template <class F>
PointwiseLoops loops(Pointwise op, F) {
  return {op, each<float, F>, each<double, F>};
}

template <Real T>
Loop<T> loop_of(Pointwise op) {
  static const PointwiseLoops known[] = {
      loops(tanh, [](auto x) { return kernels::vtanh(x); }),
      loops(sigmoid, [](auto x) { return kernels::vsigmoid(x); }),
      loops(relu, [](auto x) { return x < 0 ? 0 : x; }),
  };
  const auto found = std::ranges::find(known, op, &PointwiseLoops::op);
  if (found == std::end(known))
    throw ValueError(
        "Stream: of the functions of every number it knows reel::tanh, reel::sigmoid and "
        "reel::relu alone; apply another one to what a step gives",
        SiteScope::current());
  if constexpr (std::is_same_v<T, float>)
    return found->of_f32;
  else
    return found->of_f64;
}

// Throws unless the parameter has the numbers of a Stream<T>.
template <Real T>
const T* numbers(const Param& p) {
  if (p.dtype() == dtype_of<T>) return p.value().begin<T>();
  throw DTypeError(fmt::format("Stream: {} is {}, but this is a stream of {} numbers; convert the "
                               "parameters with to(), or make it an nn::Stream<{}>",
                               p.name(), name_of(p.dtype()), name_of(dtype_of<T>),
                               p.dtype() == f64 ? "double" : "float"),
                   SiteScope::current());
}

// The numbers of a vector, followed by zeros up to `width`; all are if it is undefined.
template <Real T>
PoolVector<T> widened(const Param& p, Index width) {
  PoolVector<T> copy(static_cast<std::size_t>(width));
  if (p.defined()) std::copy_n(numbers<T>(p), p.shape().size(), copy.data());
  return copy;
}

template <Real T>
RowProduct<T> transposed(const Param& w) {
  return RowProduct<T>(
      MatrixView<T>::row_major(numbers<T>(w), w.shape()[0], w.shape()[1]).transposed());
}

// A stream is used where nothing may be thrown.
[[noreturn, gnu::cold]] void end_program(const std::string& message) {
  std::fputs(fmt::format("Stream: {}\n", message).c_str(), stderr);
  std::abort();
}

}  // namespace

/// Its numbers are at its own places in memory.
template <Real T>
struct StreamModel<T>::Part {
  Part() = default;
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  virtual ~Part() = default;
  virtual void step(const T* x, T* memory) const noexcept = 0;
};

template <Real T>
struct StreamModel<T>::Build {
  kernels::MemoryPlan plan{sizeof(T)};
  std::vector<Row> states;
  std::vector<std::pair<Row, const T*>> initial;
};

template <Real T>
struct StreamModel<T>::Cell : Part {
  Cell(const CellSpec& spec, const CellInputs& parameters, const kernels::StepOptions& options,
       kernels::MemoryPlan& plan)
      : cell(spec.kernels<T>(), parameters.sizes(spec.layout), direction_of<T>(parameters), options,
             plan) {}
  void step(const T* x, T* memory) const noexcept override { cell.step(x, memory); }

  RowCell<T> cell;
};

template <Real T>
struct StreamModel<T>::Affine : Part {
  Affine(Row, const Param& weights, const Param& bias, kernels::MemoryPlan& plan)
      : w(transposed<T>(weights)),
        b(widened<T>(bias, bias.defined() ? w.width() : 0)),
        y(plan.take(w.width())) {}
  void step(const T* x, T* memory) const noexcept override {
    w(x, b.empty() ? nullptr : b.data(), memory + y);
  }

  RowProduct<T> w;
  PoolVector<T> b;
  Index y;
};

template <Real T>
struct StreamModel<T>::Function : Part {
  Function(Row from, Loop<T> loop, kernels::MemoryPlan& plan)
      : size(from.size), loop(loop), y(plan.take(size)) {}
  void step(const T* x, T* memory) const noexcept override { loop(x, memory + y, size); }

  Index size;
  Loop<T> loop;
  Index y;
};

template <Real T>
struct StreamModel<T>::Norm : Part {
  Norm(Row from, const LayerNorm& norm, kernels::MemoryPlan& plan)
      : size(from.size),
        epsilon(norm.epsilon),
        gain(widened<T>(norm.gain, size)),
        bias(widened<T>(norm.bias, size)),
        y(plan.take(size)) {}
  void step(const T* x, T* memory) const noexcept override {
    kernels::normalize<true>(x, size, epsilon, gain.data(), bias.data(), memory + y);
  }

  Index size;
  double epsilon;
  PoolVector<T> gain, bias;
  Index y;
};

// From the projections of z and n, which take no part of the state.
template <Real T>
struct StreamModel<T>::MinGruStep : Part {
  MinGruStep(Row from, MinCandidate form, kernels::MemoryPlan& plan)
      : size(from.size / 2), candidate(form), y(plan.take(size)) {}
  void step(const T* x, T* memory) const noexcept override {
    switch (candidate) {
      case MinCandidate::positive:
        return run(x, memory, [](T p) { return p >= 0 ? p + T(0.5) : kernels::vsigmoid(p); });
      case MinCandidate::linear:
        return run(x, memory, [](T p) { return p; });
      case MinCandidate::tanh:
        return run(x, memory, [](T p) { return kernels::vtanh(p); });
    }
  }
  template <class F>
  void run(const T* gate, T* memory, F n) const noexcept {
    const T* const projection = gate + size;
    T* const h = memory + y;
    kernels::at_level([=, count = size] {
      for (Index j = 0; j < count; ++j) {
        const T z = kernels::vsigmoid(gate[j]), one_minus_z = kernels::vsigmoid(-gate[j]);
        h[j] = one_minus_z * h[j] + z * n(projection[j]);
      }
    });
  }

  Index size;
  MinCandidate candidate;
  Index y;  // its state
};

// A connection past a layer from its input x to its output: + x, or from x to it by the gate t.
template <Real T>
struct StreamModel<T>::Link : Part {
  Link(Row from, Row output, std::optional<Row> gate, kernels::MemoryPlan& plan)
      : layer(output.place), size(from.size), gate(gate ? gate->place : -1), y(plan.take(size)) {}
  void step(const T* x, T* memory) const noexcept override {
    const T *b = memory + layer, *t = gate < 0 ? nullptr : memory + gate;
    T* const to = memory + y;
    for (Index j = 0; j < size; ++j)
      to[j] = t == nullptr ? b[j] + x[j] : kernels::interpolate(x[j], b[j], t[j]);
  }

  Index layer, size, gate, y;
};

template <Real T>
std::shared_ptr<StreamModel<T>> StreamModel<T>::create() {
  return std::make_shared<StreamModel>();
}
template <Real T>
StreamModel<T>::StreamModel() : build_(std::make_unique<Build>()) {}
template <Real T>
StreamModel<T>::~StreamModel() = default;

// The next part takes the output of the parts so far; it goes on with its own, of this size.
template <Real T>
template <class P, class... Args>
void StreamModel<T>::push(Index size, const Args&... arguments) {
  auto part = std::make_unique<P>(row_, arguments..., build_->plan);
  const Index input = row_.place;
  row_ = {part->y, size};
  parts_.push_back({std::move(part), input});
}

template <Real T>
void StreamModel<T>::require_input(const Param& p, Index size) {
  if (row_.size == 0) {
    row_ = {outside, size};
    input_size_ = size;
  } else if (row_.size != size) {
    throw ShapeError(fmt::format("Stream: {} takes {} features, but what comes before it gives {}",
                                 module_of(p.name()), size, row_.size),
                     SiteScope::current());
  }
}

template <Real T>
void StreamModel<T>::add(const Embedding& embed) {
  if (row_.size > 0)
    throw ValueError(fmt::format("Stream: the embedding {} is not the first part, but only a step "
                                 "takes symbols",
                                 module_of(embed.w.name())),
                     SiteScope::current());
  const Shape& shape = embed.w.shape();
  table_ = widened<T>(embed.w, shape.size());
  symbols_ = shape[0];
  row_ = {outside, shape[1]};
}

template <Real T>
void StreamModel<T>::add_affine(const Param& w, const Param& b) {
  require_input(w, w.shape()[1]);
  push<Affine>(w.shape()[0], w, b);
}

template <Real T>
void StreamModel<T>::add(const MinGru& layer) {
  add_affine(layer.w_ih, layer.b);
  push<MinGruStep>(layer.output_size(), layer.candidate);
  build_->states.push_back(row_);
}

template <Real T>
void StreamModel<T>::add(const LayerNorm& norm) {
  require_input(norm.gain, norm.gain.shape()[0]);
  push<Norm>(row_.size, norm);
}

template <Real T>
void StreamModel<T>::add(Pointwise op) {
  const Loop<T> loop = loop_of<T>(op);
  if (row_.size == 0)
    throw ValueError(
        "Stream: the first part is a function, which has numbers of any size; begin "
        "with a layer",
        SiteScope::current());
  push<Function>(row_.size, loop);
}

template <Real T>
void StreamModel<T>::add_cell(const CellSpec& spec, const CellParams& params,
                              const kernels::StepOptions& options) {
  params.each([](const Param& p) { numbers<T>(p); });
  require_input(params.w_ih, params.w_ih.shape()[1]);
  auto part = std::make_unique<Cell>(spec, params.values(), options, build_->plan);
  const RowCell<T>& cell = part->cell;
  for (std::size_t k = 0; k < static_cast<std::size_t>(spec.layout.states); ++k)
    build_->states.push_back({cell.state(k), cell.sizes().state(k)});
  const Index input = row_.place;
  row_ = {cell.state(0), cell.sizes().output};
  parts_.push_back({std::move(part), input});
}

template <Real T>
void StreamModel<T>::connect(const Row& below, const StackLinks& links, std::size_t layer) {
  if (links.connection == Connection::none) return;
  const Row output = row_;
  std::optional<Row> gate;
  row_ = below;
  if (links.connection == Connection::highway) {
    add(links.gates[layer - 1]);
    add(sigmoid);
    gate = std::exchange(row_, below);
  }
  push<Link>(output.size, output, gate);
}

template <Real T>
std::size_t StreamModel<T>::states() const {
  return build_->states.size();
}

template <Real T>
void StreamModel<T>::begin_with(std::size_t state, const Param& value) {
  build_->initial.push_back({build_->states[state], numbers<T>(value)});
}

template <Real T>
void StreamModel<T>::finish() {
  if (parts_.empty())
    throw ValueError("Stream: there is no part that computes; give it a layer",
                     SiteScope::current());
  initial_.resize(static_cast<std::size_t>(build_->plan.size()));
  for (const auto& [state, value] : build_->initial)
    std::copy_n(value, state.size, initial_.data() + state.place);
  build_.reset();
}

template <Real T>
void StreamModel<T>::step(std::span<const T> in, std::span<T> out, T* memory) const noexcept {
  if (std::ssize(in) != input_size_ || std::ssize(out) != row_.size || symbols_ > 0) [[unlikely]]
    end_program(symbols_ > 0
                    ? "a step takes a symbol, not a span, as the first part is an embedding"
                    : fmt::format("in has {} numbers and out {}, but a step takes {} and gives {}",
                                  in.size(), out.size(), input_size_, row_.size));
  run(in.data(), out, memory);
}

template <Real T>
void StreamModel<T>::step(std::int32_t symbol, std::span<T> out, T* memory) const noexcept {
  if (symbol < 0 || symbol >= symbols_ || std::ssize(out) != row_.size) [[unlikely]]
    end_program(
        symbols_ == 0
            ? "a step takes a span, not a symbol, as there is no embedding"
            : fmt::format("symbol {} of {} symbols; out has {} numbers, but a step gives {}",
                          symbol, symbols_, out.size(), row_.size));
  run(table_.data() + symbol * (std::ssize(table_) / symbols_), out, memory);
}

template <Real T>
void StreamModel<T>::run(const T* in, std::span<T> out, T* memory) const noexcept {
  const kernels::FlushSubnormals flush;
  for (const auto& [part, input] : parts_)
    part->step(input == outside ? in : memory + input, memory);
  std::copy_n(memory + row_.place, row_.size, out.data());
}

template class StreamModel<float>;
template class StreamModel<double>;

}  // namespace reel::nn::detail
