#include <reel/nn/generate/stepper.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/ops/check_indices.h>
#include <reel/autograd/tape.h>

namespace reel::nn {
namespace {

using kernels::MatrixView;
using kernels::PackedMatrix;

// For up to this many symbols, W x + b is precomputed in a lookup table when packing.
constexpr Index largest_table = 1024;

// y = W x + b, where there may be no b.
template <Real T>
class Affine {
 public:
  Affine(const Tensor& w, const Tensor& b)
      : w_(MatrixView<T>::row_major(w.begin<T>(), w.size(0), w.size(1)).transposed()) {
    if (b.defined()) b_.assign(b.begin<T>(), b.begin<T>() + b.size());
  }

  void operator()(const T* x, Index rows, T* y) const {
    const auto a = MatrixView<T>::row_major(x, rows, w_.rows());
    multiply(a, w_, b_.empty() ? nullptr : b_.data(), 0, y, w_.cols());
  }

 private:
  PackedMatrix<T> w_;
  PoolVector<T> b_;
};

template <Real T>
void copy_rows(const Tensor& table, const Tensor& rows, T* to) {
  const Index size = table.size(1);
  for (std::int32_t row : rows.values<std::int32_t>())
    to = std::copy_n(table.begin<T>() + row * size, size, to);
}

// The part of the sums of one step that its input makes: W x and the biases.
template <Real T>
using InputPart = std::function<void(const Tensor& x, T* sums)>;

template <Real T>
InputPart<T> pack_input(const CellSpec& cell, const CellInputs& parameters, Index n,
                        const Embedding* embed) {
  const Tensor& w = parameters.w_ih;
  const auto start = [](const Tensor& x) { return x.defined() ? x.begin<T>() : nullptr; };
  PoolVector<T> biases(static_cast<std::size_t>(cell.layout.sums * n));
  kernels::sum_biases(cell.layout, n, start(parameters.b), start(parameters.recurrent_bias),
                      biases.data());
  if (embed && embed->w.shape()[0] <= largest_table) {
    const Tensor& vectors = embed->w.value();
    Tensor table({vectors.size(0), cell.layout.sums * n}, w.dtype());
    kernels::input_sums(cell.layout, n, vectors.begin<T>(), vectors.size(0), vectors.size(1),
                        w.begin<T>(), biases.data(), table.begin_update<T>().data());
    return [table](const Tensor& symbols, T* sums) { copy_rows(table, symbols, sums); };
  }
  const auto product = std::make_shared<const kernels::PackedInput<T>>(
      cell.layout, n, w.begin<T>(), w.size(1), std::move(biases));
  if (!embed)
    return [product](const Tensor& x, T* sums) { (*product)(x.begin<T>(), x.size(0), sums); };
  return [product, vectors = embed->w](const Tensor& symbols, T* sums) {
    const Scratch<T> x(symbols.size() * vectors.shape()[1]);
    copy_rows(vectors.value(), symbols, x.data());
    (*product)(x.data(), symbols.size(), sums);
  };
}

void require(const Tensor& x, const char* what, DType dtype, const Shape& shape, Site site) {
  if (x.dtype() == dtype && x.shape() == shape && x.defined()) return;
  if (!x.defined())
    throw ValueError(fmt::format("Stepper: {} is undefined: it was never given a value", what),
                     site);
  const std::string message =
      fmt::format("Stepper: {} must be {} {}, not {} {}", what, name_of(dtype), shape.str(),
                  name_of(x.dtype()), x.shape().str());
  if (x.dtype() != dtype) throw DTypeError(message, site);
  throw ShapeError(message, site);
}

void require_symbols(const Tensor& x, Index count, Site site) try {
  check_indices("Stepper", "symbol", "symbols", x.values<std::int32_t>(), count);
} catch (const ValueError& e) {
  throw ValueError(e.what(), site);
}

void check_embedding(const Embedding& embed, Index input_size, DType dtype, Site site) {
  if (embed.w.dtype() != dtype)
    throw DTypeError(fmt::format("Stepper: the embedding is {}, the layer {}",
                                 name_of(embed.w.dtype()), name_of(dtype)),
                     site);
  if (embed.w.shape()[1] != input_size)
    throw ShapeError(fmt::format("Stepper: the embedding gives {} features, the layer takes {}",
                                 embed.w.shape()[1], input_size),
                     site);
}

// A step of the packed cell: its input part, then the cell's own.
template <Real T>
std::function<void(const Tensor& x, std::span<const Tensor> before, std::span<Tensor> after)>
pack_step(const CellSpec& cell, const CellInputs& parameters, const Embedding* embed) {
  const Index n = parameters.w_hh.size(1);
  using Packed = kernels::PackedCell<T>;
  return [input = pack_input<T>(cell, parameters, n, embed), weights = parameters.weights, n,
          packed = std::make_shared<const Packed>(cell.kernels<T>(), parameters.w_hh.begin<T>(), n,
                                                  Packed::Pass::forward)](
             const Tensor& x, std::span<const Tensor> before, std::span<Tensor> after) {
    const Index rows = x.shape()[0], width = packed->cell.layout.sums * n;
    const Scratch<T> sums(rows * width), not_kept(n), operands(rows * n);
    input(x, sums.data());
    kernels::UnitRow<T> first{
        n, sums.data(), {}, {}, operands.data(), weights.defined() ? weights.begin<T>() : nullptr};
    for (std::size_t k = 0; k < after.size(); ++k) {
      first.states[k] = after[k].begin_update<T>().data();
      first.kept[k] = not_kept.data();
      std::copy_n(before[k].begin<T>(), rows * n, first.states[k]);
    }
    packed->step(before[0].begin<T>(), rows, sums.data(), operands.data(), [&](Index r) {
      kernels::UnitRow<T> row = first;
      row.sums += r * width;
      row.operand += r * n;
      for (std::size_t k = 0; k < after.size(); ++k) row.states[k] += r * n;
      return row;
    });
  };
}

}  // namespace

namespace detail {

void PackedParams::check(Site site) const {
  for (const Packed& p : packed_)
    if (p.entry->version != p.version)
      throw StaleTensorError(
          fmt::format(
              "Stepper: parameter {} has changed since it was packed; construct the stepper anew",
              p.entry->name),
          site);
  if (const Tape* tape = Tape::current(); tape && !tape->used_up())
    throw GradientError(
        "Stepper: a tape is current, but steps are never recorded; call the layer "
        "itself, or suspend the tape with NoRecord",
        site);
}

PackedLayer::PackedLayer(const CellSpec& cell, const CellParams& params, const Embedding* embed,
                         Site site)
    : dtype_(params.w_hh.dtype()),
      input_size_(params.w_ih.shape()[1]),
      output_size_(params.w_hh.shape()[1]) {
  for (const Param* p : params.all())
    if (p->defined()) params_.add(*p);
  if (embed) {
    check_embedding(*embed, input_size_, dtype_, site);
    params_.add(embed->w);
    symbols_ = embed->w.shape()[0];
  }
  const kernels::FlushSubnormals flush;
  step_ = dispatch_real(
      dtype_, [&]<class T>() -> Step { return pack_step<T>(cell, params.values(), embed); });
}

void PackedLayer::run(const Tensor& x, std::span<Tensor> before, std::span<Tensor> after,
                      Site site) const {
  params_.check(site);
  const Index rows = x.rank() == 0 ? 1 : x.shape()[0];
  if (symbols_ > 0) {
    require(x, "x", i32, {rows}, site);
    require_symbols(x, symbols_, site);
  } else {
    require(x, "x", dtype_, {rows, input_size_}, site);
  }
  const Shape shape{rows, output_size_};
  for (Tensor& state : before)
    if (state.defined())
      require(state, "the state", dtype_, shape, site);
    else
      state = zeros(shape, dtype_);
  for (Tensor& state : after) state = Tensor(shape, dtype_);
  const kernels::FlushSubnormals flush;
  step_(x, before, after);
}

}  // namespace detail

Stepper<Linear>::Stepper(const Linear& linear)
    : dtype_(linear.w.dtype()),
      input_size_(linear.w.shape()[1]),
      output_size_(linear.w.shape()[0]) {
  params_.add(linear.w);
  if (linear.b.defined()) params_.add(linear.b);
  const Tensor bias = linear.b.defined() ? linear.b.value() : Tensor();
  product_ = dispatch_real(dtype_, [&]<class T>() -> Product {
    const auto affine = std::make_shared<const Affine<T>>(linear.w.value(), bias);
    return [affine](const Tensor& x, Index rows, Tensor& y) {
      (*affine)(x.begin<T>(), rows, y.begin_update<T>().data());
    };
  });
}

Tensor Stepper<Linear>::operator()(const Tensor& x, Site site) const {
  params_.check(site);
  const int last = std::max(x.rank() - 1, 0);
  const Shape shape = x.rank() == 0 ? Shape{0} : x.shape();
  require(x, "x", dtype_, shape.with(last, input_size_), site);
  Tensor y(shape.with(last, output_size_), dtype_);
  const kernels::FlushSubnormals flush;
  product_(x, x.size() / input_size_, y);
  return y;
}

}  // namespace reel::nn
