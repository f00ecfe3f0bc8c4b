#include <reel/autograd/gradients.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <mutex>
#include <numeric>
#include <utility>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/pieces.h>

namespace reel {
namespace {

using kernels::Piece;

// The numbers whose squares a norm adds.
struct Summands {
  Tensors arrays = {};
  PoolVector<Piece> pieces = {};

  explicit Summands(const Gradients& gradients);
  void add(const Tensor& whole);
  void add(const RowGradient& gradient, Index whole_size);
};

Summands::Summands(const Gradients& gradients) {
  gradients.each_part([&](const auto& entry, const Tensor& values, const Tensor& rows) {
    rows.defined() ? add({rows, values}, entry->value.size()) : add(values);
  });
}

void Summands::add(const Tensor& whole) {
  kernels::cut(arrays.size(), whole.size(), pieces);
  arrays.push_back(whole);
}

// Of a gradient by rows only the blocks of the whole one that a row reaches into, cut where that is
// cut: what sum_of adds for a block of zeros is 0, so the bits are those of the whole one's norm.
void Summands::add(const RowGradient& gradient, Index whole_size) {
  constexpr Index size = kernels::sum_block;
  static_assert(kernels::longest_piece % size == 0);
  const Index width = gradient.values.size(1);
  PoolVector<Index> blocks, begins;  // of the rows in these blocks
  for (std::int32_t row : gradient.rows.values<std::int32_t>()) {
    const Index begin = row * width, first = begin / size;
    const bool is_new = blocks.empty() || blocks.back() < first;
    begins.push_back((std::ssize(blocks) - (is_new ? 0 : 1)) * size + begin % size);
    for (Index block = is_new ? first : first + 1; block * size < begin + width; ++block)
      blocks.push_back(block);
  }
  Index end = 0, last_piece = -1;
  for (Index block : blocks) {
    const Index piece = block * size / kernels::longest_piece;
    if (piece != std::exchange(last_piece, piece)) pieces.push_back({arrays.size(), end, end});
    pieces.back().end = end += std::min(size, whole_size - block * size);
  }
  Tensor numbers = zeros({end}, gradient.values.dtype());
  dispatch_real(numbers.dtype(), [&]<class T>() {
    T* const to = numbers.begin_update<T>().data();
    const T* from = gradient.values.begin<T>();
    for (Index begin : begins) {
      std::copy_n(from, width, to + begin);
      from += width;
    }
  });
  arrays.push_back(std::move(numbers));
}

// Σ (x / scale)², in double; the sums of the pieces are added in order.
double sum_of_squares(const Summands& summands, double scale) {
  const double factor = 1 / scale;
  PoolVector<double> sums(summands.pieces.size());
  kernels::each_piece(summands.pieces, [&](std::size_t k, const Piece& piece) {
    const Tensor& array = summands.arrays[piece.array];
    dispatch_real(array.dtype(), [&]<class T>() {
      const T* x = array.begin<T>() + piece.begin;
      sums[k] = kernels::sum_of<double>(piece.end - piece.begin, [=](Index i) {
        const double part = static_cast<double>(x[i]) * factor;
        return part * part;
      });
    });
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

double largest_magnitude(const Tensors& arrays) {
  double largest = 0;
  for (const Tensor& array : arrays)
    dispatch_real(array.dtype(), [&]<class T>() {
      for (T x : array.values<T>()) largest = std::max(largest, static_cast<double>(std::abs(x)));
    });
  return largest;
}

// Held while a whole gradient is made of one by rows, as several threads may read gradients.
std::mutex making;

}  // namespace

Gradients::Gradients(const Params& params)
    : has_store_(true), params_(params), rows_(params.store_size()), values_(params.store_size()) {}

Gradients::Gradients(const Gradients& other)
    : has_store_(other.has_store_), params_(other.params_), rows_(other.rows_) {
  const std::lock_guard lock(making);
  values_ = other.values_;
}

namespace {
std::string no_gradient(const Param& param) {
  return fmt::format("there is no gradient of parameter {}: the loss did not depend on it",
                     param.name());
}
}  // namespace

const Tensor& Gradients::operator[](const ParamName& name) const {
  const Param param = params_[name];
  if (const Tensor* gradient = find(param)) return *gradient;
  throw GradientError(no_gradient(param), name.site());
}

const Tensor& Gradients::operator[](const Place& place) const {
  if (const Tensor* gradient = find(place.param)) return *gradient;
  throw GradientError(no_gradient(place.param), place.site);
}

// The whole gradient of one by rows may be made by another thread meanwhile, so it is looked at
// last.
bool Gradients::has(const ParamEntry& entry) const {
  return entry.index < values_.size() && params_.contains(entry) &&
         (rows_[entry.index].defined() || values_[entry.index].defined());
}

const Tensor* Gradients::find(const ParamEntry& entry) const {
  if (!has(entry)) return nullptr;
  Tensor& whole = values_[entry.index];
  if (const RowGradient& rows = rows_[entry.index]; rows.defined()) {
    const std::lock_guard lock(making);
    if (!whole.defined()) whole = rows.whole(entry.value.shape());
  }
  return &whole;
}

Tensor* Gradients::find(const ParamEntry& entry) {
  if (!std::as_const(*this).find(entry)) return nullptr;
  rows_[entry.index] = {};
  return &values_[entry.index];
}

const RowGradient* Gradients::find_rows(const ParamEntry& entry) const {
  return has(entry) && rows_[entry.index].defined() ? &rows_[entry.index] : nullptr;
}

RowGradient* Gradients::find_rows(const ParamEntry& entry) {
  if (!std::as_const(*this).find_rows(entry)) return nullptr;
  RowGradient& rows = rows_[entry.index];
  if (values_[entry.index].defined()) rows = {};
  return rows.defined() ? &rows : nullptr;
}

void Gradients::require(const ParamEntry& entry) const {
  if (!params_.contains(entry))
    throw ValueError(fmt::format("parameter {} is not of these gradients' store", entry.name));
}

void Gradients::prepare(const ParamEntry& entry) {
  require(entry);
  if (entry.index < values_.size()) return;
  rows_.resize(params_.store_size());
  values_.resize(params_.store_size());
}

void Gradients::set(const ParamEntry& entry, Tensor gradient) {
  prepare(entry);
  if (gradient.shape() != entry.value.shape() || gradient.dtype() != entry.value.dtype())
    throw ShapeError(fmt::format("parameter {} is {} {}, its gradient cannot be {} {}", entry.name,
                                 name_of(entry.value.dtype()), entry.value.shape().str(),
                                 name_of(gradient.dtype()), gradient.shape().str()));
  rows_[entry.index] = {};
  values_[entry.index] = std::move(gradient);
}

void Gradients::set(const ParamEntry& entry, RowGradient gradient) {
  prepare(entry);
  const Shape& shape = entry.value.shape();
  const auto& [rows, values] = gradient;
  if (!rows.defined() || !values.defined() || rows.dtype() != i32 || rows.rank() != 1 ||
      shape.rank() != 2 || values.shape() != Shape{rows.size(), shape[1]} ||
      values.dtype() != entry.value.dtype())
    throw ShapeError(fmt::format(
        "parameter {} is {} {}, its gradient by rows takes i32 [n] and {} [n, columns of a matrix]",
        entry.name, name_of(entry.value.dtype()), shape.str(), name_of(entry.value.dtype())));
  std::int32_t least = 0;
  for (std::int32_t row : rows.values<std::int32_t>()) {
    if (row < least || row >= shape[0])
      throw ValueError(fmt::format(
          "the gradient of parameter {} has row {}{}, but its rows have to ascend from "
          "0 to {} at most",
          entry.name, row, row < least && least > 0 ? fmt::format(" after {}", least - 1) : "",
          shape[0] - 1));
    least = row + 1;
  }
  rows_[entry.index] = std::move(gradient);
  values_[entry.index] = {};
}

void Gradients::move_to(Gradients& other, const ParamEntry& entry) {
  if (!has(entry)) return;
  other.prepare(entry);
  other.rows_[entry.index] = std::exchange(rows_[entry.index], {});
  other.values_[entry.index] = std::exchange(values_[entry.index], {});
}

Gradients& Gradients::operator+=(const Gradients& other) {
  if (!has_store_) return *this = other;
  const auto each_entry = [&](auto f) {
    other.each_part([&](const auto& entry, const Tensor&, const Tensor&) { f(*entry); });
  };
  each_entry([&](const ParamEntry& entry) { require(entry); });
  each_entry([&](const ParamEntry& entry) { add(entry, other); });
  return *this;
}

void Gradients::add(const ParamEntry& entry, const Gradients& other) {
  const RowGradient* const their_rows = other.find_rows(entry);
  if (!has(entry)) return their_rows ? set(entry, *their_rows) : set(entry, *other.find(entry));
  const kernels::FlushSubnormals flush;
  const RowGradient* const our_rows = find_rows(entry);
  if (our_rows && their_rows) return set(entry, *our_rows + *their_rows);
  const Tensor* const theirs = other.find(entry);
  Tensor* const ours = find(entry);
  dispatch_real(theirs->dtype(), [&]<class T>() {
    const std::span<const T> from = theirs->values<T>();
    std::ranges::transform(ours->begin_update<T>(), from, ours->begin_update<T>().begin(),
                           std::plus{});
  });
}

Gradients& Gradients::operator*=(Arg<double> factor) {
  // 0 times such a factor is not 0, or has another sign.
  if (std::signbit(double(factor)) || !std::isfinite(double(factor))) each([](auto&&...) {});
  PoolVector<Tensor*> gradients;
  each_part([&](const auto&, Tensor& gradient, const Tensor&) {
    // Shared buffers are copied here, not in the tasks.
    dispatch_real(gradient.dtype(), [&]<class T>() { gradient.begin_update<T>(); });
    gradients.push_back(&gradient);
  });
  const kernels::FlushSubnormals flush;
  kernels::each_piece(kernels::cut(gradients), [&](std::size_t, const Piece& piece) {
    const Tensor& gradient = *gradients[piece.array];
    dispatch_real(gradient.dtype(), [&]<class T>() {
      T* numbers = static_cast<T*>(gradient.buffer().data());
      const auto scale = [&](auto f) {
        for (Index i = piece.begin; i < piece.end; ++i)
          numbers[i] = static_cast<T>(static_cast<decltype(f)>(numbers[i]) * f);
      };
      // The factor may be out of range for f32 even if the products are not.
      std::isnormal(static_cast<T>(factor)) ? scale(static_cast<T>(factor)) : scale(double(factor));
    });
  });
  return *this;
}

double Gradients::norm() const {
  const Summands summands(*this);
  const kernels::FlushSubnormals flush;
  const double squares = sum_of_squares(summands, 1);
  // Squares of f64 may overflow or underflow even if the norm does not.
  if (squares > 1e-280 && std::isfinite(squares)) return std::sqrt(squares);
  const double largest = largest_magnitude(summands.arrays);
  if (!(largest > 0 && std::isfinite(largest))) return std::sqrt(squares);
  const double scale = std::exp2(std::min(std::ilogb(largest), 1000));
  return scale * std::sqrt(sum_of_squares(summands, scale));
}

}  // namespace reel
