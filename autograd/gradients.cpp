#include <reel/autograd/gradients.h>

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <numeric>

#include <reel/autograd/kernels/pieces.h>

namespace reel {
namespace {

using kernels::Piece;

// In double, with as many sums under way as hide the time of an addition.
template <class T>
double sum_of_squares(const T* numbers, Index count) {
  std::array<double, 16> sums{};
  const Index whole = count / std::ssize(sums) * std::ssize(sums);
  for (Index i = 0; i < whole; i += std::ssize(sums))
    for (std::size_t k = 0; k < sums.size(); ++k) {
      const auto x = static_cast<double>(numbers[i + static_cast<Index>(k)]);
      sums[k] += x * x;
    }
  for (Index i = whole; i < count; ++i) {
    const auto x = static_cast<double>(numbers[i]);
    sums[0] += x * x;
  }
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

}  // namespace

Gradients::Gradients(const Params& params) : params_(params), values_(params.store_size()) {}

const Tensor& Gradients::operator[](std::string_view name) const { return (*this)[params_[name]]; }

const Tensor& Gradients::operator[](const Param& param) const {
  if (const Tensor* gradient = find(param)) return *gradient;
  throw GradientError(fmt::format(
      "there is no gradient of parameter {}: the loss did not depend on it", param.name()));
}

const Tensor* Gradients::find(const Param& param) const {
  return const_cast<Gradients*>(this)->find(*param.entry());
}

Tensor* Gradients::find(const ParamEntry& entry) {
  if (entry.index >= values_.size() || !params_.contains(entry)) return nullptr;
  Tensor& gradient = values_[entry.index];
  return gradient.defined() ? &gradient : nullptr;
}

void Gradients::set(const ParamEntry& entry, Tensor gradient) {
  if (!params_.contains(entry))
    throw ValueError(fmt::format("parameter {} is not of these gradients' store", entry.name));
  if (gradient.shape() != entry.value.shape() || gradient.dtype() != entry.value.dtype())
    throw ShapeError(fmt::format("parameter {} is {} {}, its gradient cannot be {} {}", entry.name,
                                 name_of(entry.value.dtype()), entry.value.shape().str(),
                                 name_of(gradient.dtype()), gradient.shape().str()));
  values_[entry.index] = std::move(gradient);
}

Gradients& Gradients::operator+=(const Gradients& other) {
  other.each([&](const std::shared_ptr<ParamEntry>& entry, const Tensor& theirs) {
    Tensor* ours = find(*entry);
    if (!ours) return set(*entry, theirs);
    dispatch_real(theirs.dtype(), [&]<class T>() {
      const std::span<const T> from = theirs.values<T>();
      std::ranges::transform(ours->edit<T>(), from, ours->edit<T>().begin(), std::plus{});
    });
  });
  return *this;
}

Gradients& Gradients::operator*=(double factor) {
  PoolVector<Tensor*> gradients;
  each([&](const std::shared_ptr<ParamEntry>&, Tensor& gradient) {
    // What other handles share is copied here, not by one of the tasks.
    dispatch_real(gradient.dtype(), [&]<class T>() { gradient.edit<T>(); });
    gradients.push_back(&gradient);
  });
  kernels::each_piece(kernels::cut(gradients), [&](std::size_t, const Piece& piece) {
    const Tensor& gradient = *gradients[piece.array];
    dispatch_real(gradient.dtype(), [&]<class T>() {
      T* numbers = static_cast<T*>(gradient.buffer().data());
      for (Index i = piece.begin; i < piece.end; ++i) numbers[i] *= static_cast<T>(factor);
    });
  });
  return *this;
}

double Gradients::norm() const {
  PoolVector<const Tensor*> gradients;
  each([&](const std::shared_ptr<ParamEntry>&, const Tensor& g) { gradients.push_back(&g); });
  const PoolVector<Piece> pieces = kernels::cut(gradients);
  PoolVector<double> sums(pieces.size());
  kernels::each_piece(pieces, [&](std::size_t k, const Piece& piece) {
    const Tensor& gradient = *gradients[piece.array];
    dispatch_real(gradient.dtype(), [&]<class T>() {
      sums[k] = sum_of_squares(gradient.begin<T>() + piece.begin, piece.end - piece.begin);
    });
  });
  return std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
}

}  // namespace reel
