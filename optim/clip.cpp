#include <reel/optim/clip.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>
#include <vector>

#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/kernels/flush_subnormals.h>

namespace reel::optim {
namespace {

void require_positive(std::string_view function, std::string_view name, double value, Site site) {
  if (!(value > 0))
    throw ValueError(fmt::format("{}: {} is {}, but has to be positive", function, name, value),
                     site);
}

template <class T>
double norm(const T* x, Index size) {
  return std::sqrt(kernels::sum_of<double>(
      size, [=](Index i) { return static_cast<double>(x[i]) * static_cast<double>(x[i]); }));
}

}  // namespace

double clip_factor(double norm, double max_norm) {
  const double factor = max_norm / (norm + std::min(1e-6, 1e-5 * norm));
  return std::isfinite(norm) && factor < 1 ? factor : 1;
}

double clip_by_norm(Gradients& gradients, Arg<double> max_norm, Site site) {
  require_positive("clip_by_norm", "max_norm", max_norm, site);
  const double norm = gradients.norm();
  if (const double factor = clip_factor(norm, max_norm); factor < 1) gradients *= factor;
  return norm;
}

double clip_by_norm(Gradients& gradients, Arg<double> max_norm, const nn::Selection& selection,
                    Site site) {
  const SiteScope scope(site);
  require_positive("clip_by_norm", "max_norm", max_norm, site);
  selection.require_some(gradients.params(), "clip_by_norm");
  Gradients selected(gradients.params());
  std::vector<std::shared_ptr<ParamEntry>> entries;
  gradients.params().each([&](const std::shared_ptr<ParamEntry>& entry) {
    if (selection.contains(Param(entry))) entries.push_back(entry);
  });
  // Moved there and back, so that their memory is not shared meanwhile.
  for (const auto& entry : entries) gradients.move_to(selected, *entry);
  const auto move_back = [&] {
    for (const auto& entry : entries) selected.move_to(gradients, *entry);
  };
  try {
    const double norm = clip_by_norm(selected, max_norm, site);
    move_back();
    return norm;
  } catch (...) {
    move_back();
    throw;
  }
}

void clip_by_value(Gradients& gradients, Arg<double> limit, Site site) {
  require_positive("clip_by_value", "limit", limit, site);
  gradients.each_part([&](const auto&, Tensor& gradient, const Tensor&) {
    dispatch_real(gradient.dtype(), [&]<class T>() {
      for (T& g : gradient.begin_update<T>()) g = std::clamp(g, T(-limit), T(limit));
    });
  });
}

double clip_adaptive(Gradients& gradients, Arg<double> ratio, double least, Site site) {
  require_positive("clip_adaptive", "ratio", ratio, site);
  require_positive("clip_adaptive", "least", least, site);
  const kernels::FlushSubnormals flush;
  Index units = 0, clipped = 0;
  gradients.each_part([&](const auto& entry, Tensor& gradient, const Tensor& rows) {
    const Shape &shape = entry->value.shape(), &present = gradient.shape();
    units += shape.rank() < 2 ? 1 : shape[0];
    const Index count = shape.rank() < 2 ? 1 : present[0],
                width = present.size() / std::max<Index>(count, 1);
    dispatch_real(gradient.dtype(), [&]<class T>() {
      T* g = gradient.begin_update<T>().data();
      for (Index k = 0; k < count; ++k, g += width) {
        const Index row = rows.defined() ? rows.begin<std::int32_t>()[k] : k;
        const T* const w = entry->value.template begin<T>() + row * width;
        const double limit = ratio * std::max(norm(w, width), least), length = norm(g, width);
        if (!(length > limit) || !std::isfinite(length)) continue;
        ++clipped;
        std::transform(g, g + width, g, [=](T x) { return x * static_cast<T>(limit / length); });
      }
    });
  });
  return units == 0 ? 0 : static_cast<double>(clipped) / static_cast<double>(units);
}

void ClipCount::add(double norm, double max_norm) {
  ++steps;
  clipped += clip_factor(norm, max_norm) < 1 ? 1 : 0;
  mean_norm += (norm - mean_norm) / static_cast<double>(steps);
  largest_norm = std::max(largest_norm, norm);
}

double ClipCount::share() const {
  return steps == 0 ? 0 : static_cast<double>(clipped) / static_cast<double>(steps);
}

}  // namespace reel::optim
