#include <reel/nn/initialize.h>

#include <fmt/format.h>

#include <algorithm>

namespace reel::nn {
namespace {

// The index of the entry that counts for each parameter; the number of entries if there is none.
std::vector<std::size_t> entries_of(const std::vector<Param>& params,
                                    const std::vector<InitialValues>& scheme) {
  std::vector<std::size_t> entries;
  for (const Param& param : params) {
    const auto first = std::ranges::find_if(
        scheme, [&](const InitialValues& entry) { return entry.params.contains(param); });
    entries.push_back(static_cast<std::size_t>(first - scheme.begin()));
  }
  return entries;
}

void check(const Params& params, const std::vector<InitialValues>& scheme,
           const std::vector<std::size_t>& entries) {
  const Site site = SiteScope::current();
  if (scheme.empty()) throw ValueError("initialize: the scheme is empty", site);
  for (std::size_t i = 0; i < scheme.size(); ++i) {
    const std::string who = fmt::format("initialize: entry {} of the scheme", i);
    if (!scheme[i].init) throw ValueError(who + " has an empty initializer", site);
    scheme[i].params.require_some(params, who);
    if (std::ranges::find(entries, i) == entries.end())
      throw ValueError(who +
                           " has no effect: the entries before it select all of its parameters; "
                           "put it before them",
                       site);
  }
}

Tensor draw(const Param& param, const Initializer& init, Rng rng) {
  const Site site = SiteScope::current();
  const auto fail = [&](std::string_view why) {
    throw ShapeError(fmt::format("initialize: parameter {}: {}", param.name(), why), site);
  };
  Tensor value;
  try {
    value = init(rng, param.shape(), param.dtype());
  } catch (const ShapeError& e) {
    fail(e.message());
  }
  if (!value.defined() || value.shape() != param.shape() || value.dtype() != param.dtype())
    fail(fmt::format("it is {} {}, but its initial values are {}", reel::name_of(param.dtype()),
                     param.shape().str(),
                     value.defined()
                         ? fmt::format("{} {}", reel::name_of(value.dtype()), value.shape().str())
                         : "undefined"));
  return value;
}

}  // namespace

void initialize(const Params& params, const std::vector<InitialValues>& scheme,
                const std::optional<Rng>& rng, Site site) {
  const SiteScope scope(site);
  std::vector<Param> list = params.list();
  const std::vector<std::size_t> entries = entries_of(list, scheme);
  check(params, scheme, entries);
  std::vector<Tensor> values(list.size());
  for (std::size_t k = 0; k < list.size(); ++k)
    if (entries[k] < scheme.size())
      values[k] = draw(list[k], scheme[entries[k]].init,
                       rng ? rng->stream(list[k].name()) : params.rng_of(list[k]));
  for (std::size_t k = 0; k < list.size(); ++k)
    if (values[k].defined()) list[k].set(values[k]);
}

}  // namespace reel::nn
