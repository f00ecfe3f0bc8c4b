#include <reel/nn/generate/stepper.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/ops/check_indices.h>
#include <reel/autograd/tape.h>
#include <reel/nn/generate/direction.h>

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
using InputPart = std::function<void(const Tensor& x, T* sums, T* kept)>;

template <Real T>
InputPart<T> pack_input(const CellSpec& cell, const CellInputs& parameters,
                        const Embedding* embed) {
  const kernels::CellSizes sizes = parameters.sizes(cell.layout);
  const auto product = std::make_shared<const kernels::PackedInput<T>>(cell.layout, sizes,
                                                                       direction_of<T>(parameters));
  if (embed && embed->w.shape()[0] <= largest_table) {
    const Tensor& vectors = embed->w.value();
    Tensor table({vectors.size(0), cell.layout.sums * sizes.units}, vectors.dtype());
    const Scratch<T> kept(vectors.size(0) * kernels::KeptNumbers(cell.layout, sizes).width);
    (*product)(vectors.begin<T>(), vectors.size(0), table.begin_update<T>().data(), kept.data());
    return [table](const Tensor& symbols, T* sums, T*) { copy_rows(table, symbols, sums); };
  }
  if (!embed)
    return [product](const Tensor& x, T* sums, T* kept) {
      (*product)(x.begin<T>(), x.size(0), sums, kept);
    };
  return [product, vectors = embed->w](const Tensor& symbols, T* sums, T* kept) {
    const Scratch<T> x(symbols.size() * vectors.shape()[1]);
    copy_rows(vectors.value(), symbols, x.data());
    (*product)(x.data(), symbols.size(), sums, kept);
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

// The cell with what it refers to.
template <Real T>
struct PackedStep {
  kernels::StepOptions options;
  Tensor numbers;
  kernels::CellSizes sizes;
  kernels::Masks<T> masks;
  kernels::PackedCell<T> cell;

  PackedStep(const CellSpec& spec, const CellInputs& parameters,
             const kernels::StepOptions& in_step)
      : options(in_step),
        numbers(parameters.numbers),
        sizes(parameters.sizes(spec.layout)),
        masks(options, 0, sizes.units, 0),
        cell(spec.kernels<T>(), sizes, direction_of<T>(parameters), options, masks) {}
};

// A step of the packed cell: its input part, then the cell's own.
template <Real T>
std::function<void(const Tensor& x, std::span<const Tensor> before, std::span<Tensor> after)>
pack_step(const CellSpec& spec, const CellInputs& parameters, const kernels::StepOptions& options,
          const Embedding* embed) {
  const Index n = parameters.sizes(spec.layout).units;
  return [input = pack_input<T>(spec, parameters, embed), n,
          packed = std::make_shared<const PackedStep<T>>(spec, parameters, options)](
             const Tensor& x, std::span<const Tensor> before, std::span<Tensor> after) {
    const kernels::PackedCell<T>& cell = packed->cell;
    const Index rows = x.shape()[0];
    const Scratch<T> sums(rows * cell.layout().sums * n), operands(rows * n),
        kept(rows * cell.kept().width);
    input(x, sums.data(), kept.data());
    kernels::StepRows<T> block{.count = rows,
                               .sums = sums.data(),
                               .kept = kept.data(),
                               .h = before[0].begin<T>(),
                               .operands = operands.data()};
    for (std::size_t k = 0; k < after.size(); ++k) {
      block.states[k] = after[k].begin_update<T>().data();
      if (k > 0) std::copy_n(before[k].begin<T>(), before[k].size(), block.states[k]);
    }
    cell.step(block);
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

PackedLayer::PackedLayer(const CellSpec& cell, const CellParams& params,
                         const kernels::StepOptions& options, const Embedding* embed, Site site)
    : dtype_(params.w_ih.dtype()), sizes_(params.values().sizes(cell.layout)) {
  params.each([&](const Param& p) { params_.add(p); });
  if (embed) {
    check_embedding(*embed, sizes_.features, dtype_, site);
    params_.add(embed->w);
    symbols_ = embed->w.shape()[0];
  }
  const kernels::FlushSubnormals flush;
  step_ = dispatch_real(dtype_, [&]<class T>() -> Step {
    return pack_step<T>(cell, params.values(), options, embed);
  });
}

void PackedLayer::run(const Tensor& x, std::span<Tensor> before, std::span<Tensor> after,
                      Site site) const {
  params_.check(site);
  const Index rows = x.rank() == 0 ? 1 : x.shape()[0];
  if (symbols_ > 0) {
    require(x, "x", i32, {rows}, site);
    check_indices("Stepper", "symbol", "symbols", x.values<std::int32_t>(), symbols_, {}, site);
  } else {
    require(x, "x", dtype_, {rows, sizes_.features}, site);
  }
  for (std::size_t k = 0; k < before.size(); ++k) {
    const Shape shape{rows, sizes_.state(k)};
    if (before[k].defined())
      require(before[k], "the state", dtype_, shape, site);
    else
      before[k] = zeros(shape, dtype_);
    after[k] = Tensor(shape, dtype_);
  }
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
