#include <reel/autograd/gradients.h>

#include <fmt/format.h>

#include <cmath>

namespace reel {

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
  each([&](const std::shared_ptr<ParamEntry>&, Tensor& gradient) {
    dispatch_real(gradient.dtype(), [&]<class T>() {
      for (T& g : gradient.edit<T>()) g *= static_cast<T>(factor);
    });
  });
  return *this;
}

double Gradients::norm() const {
  double sum = 0;
  each([&](const std::shared_ptr<ParamEntry>&, const Tensor& gradient) {
    dispatch_real(gradient.dtype(), [&]<class T>() {
      for (T g : gradient.values<T>()) sum += static_cast<double>(g) * static_cast<double>(g);
    });
  });
  return std::sqrt(sum);
}

}  // namespace reel
