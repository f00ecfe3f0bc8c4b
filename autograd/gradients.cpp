#include <reel/autograd/gradients.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/pieces.h>

namespace reel {
namespace {

using kernels::Piece;

// Σ (x / scale)² of all gradients, in double; the sums of the pieces are added in order.
double sum_of_squares(const PoolVector<const Tensor*>& gradients, std::span<const Piece> pieces,
                      double scale) {
  const double factor = 1 / scale;
  PoolVector<double> sums(pieces.size());
  kernels::each_piece(pieces, [&](std::size_t k, const Piece& piece) {
    const Tensor& gradient = *gradients[piece.array];
    dispatch_real(gradient.dtype(), [&]<class T>() {
      const T* x = gradient.begin<T>() + piece.begin;
      sums[k] = kernels::sum_of<double>(piece.end - piece.begin, [=](Index i) {
        const double part = static_cast<double>(x[i]) * factor;
        return part * part;
      });
    });
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

double largest_magnitude(const PoolVector<const Tensor*>& gradients) {
  double largest = 0;
  for (const Tensor* gradient : gradients)
    dispatch_real(gradient->dtype(), [&]<class T>() {
      for (T x : gradient->values<T>())
        largest = std::max(largest, static_cast<double>(std::abs(x)));
    });
  return largest;
}

}  // namespace

Gradients::Gradients(const Params& params)
    : has_store_(true), params_(params), values_(params.store_size()) {}

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

const Tensor* Gradients::find(const Param& param) const {
  return const_cast<Gradients*>(this)->find(*param.entry());
}

Tensor* Gradients::find(const ParamEntry& entry) {
  if (entry.index >= values_.size() || !params_.contains(entry)) return nullptr;
  Tensor& gradient = values_[entry.index];
  return gradient.defined() ? &gradient : nullptr;
}

void Gradients::require(const ParamEntry& entry) const {
  if (!params_.contains(entry))
    throw ValueError(fmt::format("parameter {} is not of these gradients' store", entry.name));
}

void Gradients::set(const ParamEntry& entry, Tensor gradient) {
  require(entry);
  if (gradient.shape() != entry.value.shape() || gradient.dtype() != entry.value.dtype())
    throw ShapeError(fmt::format("parameter {} is {} {}, its gradient cannot be {} {}", entry.name,
                                 name_of(entry.value.dtype()), entry.value.shape().str(),
                                 name_of(gradient.dtype()), gradient.shape().str()));
  if (entry.index >= values_.size()) values_.resize(params_.store_size());
  values_[entry.index] = std::move(gradient);
}

Gradients& Gradients::operator+=(const Gradients& other) {
  if (!has_store_) return *this = other;
  other.each([&](const std::shared_ptr<ParamEntry>& entry, const Tensor&) { require(*entry); });
  other.each([&](const std::shared_ptr<ParamEntry>& entry, const Tensor& theirs) {
    Tensor* ours = find(*entry);
    if (!ours) return set(*entry, theirs);
    const kernels::FlushSubnormals flush;
    dispatch_real(theirs.dtype(), [&]<class T>() {
      const std::span<const T> from = theirs.values<T>();
      std::ranges::transform(ours->begin_update<T>(), from, ours->begin_update<T>().begin(),
                             std::plus{});
    });
  });
  return *this;
}

Gradients& Gradients::operator*=(Arg<double> factor) {
  PoolVector<Tensor*> gradients;
  each([&](const std::shared_ptr<ParamEntry>&, Tensor& gradient) {
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
  PoolVector<const Tensor*> gradients;
  each([&](const std::shared_ptr<ParamEntry>&, const Tensor& g) { gradients.push_back(&g); });
  const PoolVector<Piece> pieces = kernels::cut(gradients);
  const kernels::FlushSubnormals flush;
  const double squares = sum_of_squares(gradients, pieces, 1);
  // Squares of f64 may overflow or underflow even if the norm does not.
  if (squares > 1e-280 && std::isfinite(squares)) return std::sqrt(squares);
  const double largest = largest_magnitude(gradients);
  if (!(largest > 0 && std::isfinite(largest))) return std::sqrt(squares);
  const double scale = std::exp2(std::min(std::ilogb(largest), 1000));
  return scale * std::sqrt(sum_of_squares(gradients, pieces, scale));
}

}  // namespace reel
