#include <reel/nn/sizes.h>

#include <fmt/format.h>

#include <cstring>

#include <reel/autograd/engine/scope.h>

namespace reel::nn {

ModuleParams::ModuleParams(const Params& params, Site site)
    : Params(params),
      // Where headers of the standard library lie, with all compilers.
      scope_(params.site().file && std::strstr(site.file, "/c++/") ? params.site() : site) {}

std::string module_name(const Params& p, std::string_view module) {
  const std::string place = p.name();
  return place.empty() ? std::string(module) : fmt::format("{} {}", module, place);
}

const ModuleParams& begin_module(const ModuleParams& p, std::string_view module,
                                 std::initializer_list<std::pair<const char*, Index>> sizes) {
  for (const auto& [name, size] : sizes)
    if (size <= 0)
      throw ValueError(
          fmt::format("{}: {} must be positive, not {}", module_name(p, module), name, size),
          SiteScope::current());
  p.set_kind(module);
  return p;
}

void require_features(const char* module, const Param& w, const Tensor& x, Index size, Site site) {
  if (!x.defined() || (x.rank() > 0 && x.size(-1) == size)) return;
  const std::string_view name = module_of(w.name());
  throw ShapeError(
      fmt::format("{}{}{}: x is {} {}, but its last axis must have {} elements", module,
                  name.empty() ? "" : " ", name, name_of(x.dtype()), x.shape().str(), size),
      site);
}

void require_sequence(const char* module, const Tensor& x) {
  if (!x.defined())
    throw ValueError(fmt::format("{}: x is undefined", module), SiteScope::current());
  if (x.rank() == 3 && x.size(0) > 0) return;
  const char* why = x.rank() == 3 ? "the sequence has no steps" : "x must be [T, B, D]";
  throw ShapeError(
      fmt::format("{}: {}; x is {} {}", module, why, name_of(x.dtype()), x.shape().str()),
      SiteScope::current());
}

void require_rate(const char* module, double rate, Site site) {
  if (!(rate >= 0 && rate < 1))
    throw ValueError(fmt::format("{}: the dropout rate must be in [0, 1), not {}", module, rate),
                     site);
}

}  // namespace reel::nn
