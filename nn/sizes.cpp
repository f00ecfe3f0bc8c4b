#include <reel/nn/sizes.h>

#include <fmt/format.h>

#include <reel/autograd/engine/scope.h>

namespace reel::nn {

std::string module_name(const Params& p, const char* module) {
  const std::string place = p.name();
  return place.empty() ? module : fmt::format("{} {}", module, place);
}

const Params& require_positive(const Params& p, const char* module,
                               std::initializer_list<std::pair<const char*, Index>> sizes) {
  for (const auto& [name, size] : sizes)
    if (size <= 0)
      throw ValueError(
          fmt::format("{}: {} must be positive, not {}", module_name(p, module), name, size));
  return p;
}

void require_features(const char* module, const Param& w, const Tensor& x, Index size, Site site) {
  if (!x.defined() || (x.rank() > 0 && x.size(-1) == size)) return;
  const std::string_view name = module_of(w.name());
  throw ShapeError(fmt::format("{}{}{}: x is {} {}, but its last axis must have {} elements ({})",
                               module, name.empty() ? "" : " ", name, name_of(x.dtype()),
                               x.shape().str(), size, SiteScope::resolve(site).str()));
}

void require_rate(const char* module, double rate) {
  if (!(rate >= 0 && rate < 1))
    throw ValueError(fmt::format("{}: the dropout rate must be in [0, 1), not {}", module, rate));
}

}  // namespace reel::nn
