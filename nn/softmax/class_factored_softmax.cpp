#include <reel/nn/softmax/class_factored_softmax.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/error.h>
#include <reel/autograd/tape.h>
#include <reel/nn/generate/sample.h>
#include <reel/nn/init.h>

namespace reel::nn {
namespace {

constexpr const char* module = "ClassFactoredSoftmax";

using Members = std::vector<std::vector<std::int32_t>>;

Members members_of_classes(const ModuleParams& p, std::span<const std::int32_t> class_of) {
  const auto fail = [&](const std::string& what) {
    throw ValueError(fmt::format("{}: {}", module_name(p, module), what), SiteScope::current());
  };
  if (class_of.empty()) fail("there are no symbols");
  if (const auto least = std::ranges::min(class_of); least < 0)
    fail(fmt::format("{} is no class; they count from 0", least));
  if (const auto largest = std::ranges::max(class_of); largest >= std::ssize(class_of))
    fail(
        fmt::format("the {} symbols cannot be in {} classes", class_of.size(), Index{largest} + 1));
  Members members(static_cast<std::size_t>(std::ranges::max(class_of)) + 1);
  for (std::size_t s = 0; s < class_of.size(); ++s)
    members[static_cast<std::size_t>(class_of[s])].push_back(static_cast<std::int32_t>(s));
  const auto empty = std::ranges::find_if(members, [](const auto& m) { return m.empty(); });
  if (empty != members.end())
    fail(fmt::format("class {} of {} has no symbol", empty - members.begin(), members.size()));
  return members;
}

const ModuleParams& checked(const ModuleParams& p, Index input_size) {
  return begin_module(p, module, {{"input_size", input_size}});
}

}  // namespace

ClassFactoredSoftmax::ClassFactoredSoftmax(const ModuleParams& p, Arg<Index> input_size,
                                           std::span<const std::int32_t> class_of)
    : classes(checked(p, input_size) / "classes", input_size,
              std::ssize(members_of_classes(p, class_of))) {
  const Index count = std::ssize(class_of);
  const Initializer uniform = init::uniform(1 / std::sqrt(static_cast<double>(input_size)));
  w = p.create("w", {count, input_size}, uniform);
  b = p.create("b", {count, 1}, uniform);
  symbols_.resize(class_of.size());
  std::vector<std::int32_t> places(class_of.size());
  std::int32_t place = 0, number = 0;
  for (const auto& members : members_of_classes(p, class_of)) {
    members_.push_back(tensor({std::ssize(members)}, members));
    std::int32_t member = 0;
    for (const std::int32_t s : members) {
      symbols_[static_cast<std::size_t>(s)] = {number, number, member++};
      places[static_cast<std::size_t>(s)] = place++;
    }
    ++number;
  }
  places_ = tensor({count}, places);
}

Tensor ClassFactoredSoftmax::cross_entropy(const Tensor& x, const Tensor& targets,
                                           const ClassLossOptions& options, Site site) const {
  const ModuleScope scope(w.name(), site);
  require_features(module, w, x, w.shape()[1], site);
  return detail::two_level_loss(
      module, x, targets, options, symbols_,
      [&](const Tensor& rows, const Tensor& own, const LinearCrossEntropyOptions& summed) {
        return classes.cross_entropy(rows, own, summed, site);
      },
      [&](Index k, const Tensor& rows, const Tensor& members,
          const LinearCrossEntropyOptions& summed) {
        const Tensor& own = members_[static_cast<std::size_t>(k)];
        return linear_cross_entropy(rows, gather_rows(w, own),
                                    reshape(gather_rows(b, own), {own.size()}), members, summed);
      });
}

Tensor ClassFactoredSoftmax::members_of(Index k, const Tensor& x) const {
  const Tensor& own = members_[static_cast<std::size_t>(k)];
  return affine(x, gather_rows(w, own), reshape(gather_rows(b, own), {own.size()}));
}

Tensor ClassFactoredSoftmax::log_probabilities(const Tensor& x, Site site) const {
  const ModuleScope scope(w.name(), site);
  require_features(module, w, x, w.shape()[1], site);
  const Index features = x.size(-1), count = x.size() / features;
  const Tensor rows = reshape(x, {count, features});
  const Tensor of_class = log_softmax(classes(rows, site));
  std::vector<Tensor> parts;
  for (Index k = 0; k < std::ssize(members_); ++k)
    parts.push_back(slice(of_class, -1, k, k + 1) + log_softmax(members_of(k, rows)));
  const Tensor by_class = concat(parts, -1);
  const Tensor by_symbol = transpose(gather_rows(transpose(by_class), places_));
  return reshape(by_symbol, x.shape().with(x.rank() - 1, w.shape()[0]));
}

Tensor ClassFactoredSoftmax::predict(const Tensor& x, Site site) const {
  const NoRecord pause;
  return argmax(log_probabilities(x, site));
}

Tensor ClassFactoredSoftmax::sample(const Tensor& x, std::span<Rng> rngs, Site site) const {
  const NoRecord pause;
  const ModuleScope scope(w.name(), site);
  require_features(module, w, x, w.shape()[1], site);
  if (x.rank() != 2 || x.size(0) != std::ssize(rngs))
    throw ShapeError(fmt::format("{}: x has shape {}, not [{}, {}], a row for each generator",
                                 module, x.shape().str(), rngs.size(), w.shape()[1]),
                     site);
  const Tensor own_class = nn::sample(classes(x, site), {}, rngs, {}, site);
  std::vector<std::int32_t> symbols;
  for (Index r = 0; r < x.size(0); ++r) {
    const Index k = own_class.values<std::int32_t>()[static_cast<std::size_t>(r)];
    const std::int32_t member = nn::sample(members_of(k, slice(x, 0, r, r + 1)), {},
                                           rngs[static_cast<std::size_t>(r)], site);
    symbols.push_back(members_[static_cast<std::size_t>(k)]
                          .values<std::int32_t>()[static_cast<std::size_t>(member)]);
  }
  return tensor({x.size(0)}, symbols);
}

std::vector<std::int32_t> classes_by_frequency(std::span<const Index> counts, Arg<Index> classes,
                                               Site site) {
  const auto fail = [&](const std::string& what) {
    throw ValueError(fmt::format("classes_by_frequency: {}", what), site);
  };
  if (classes <= 0) fail(fmt::format("classes must be positive, not {}", Index{classes}));
  if (counts.empty()) fail("there are no counts");
  if (const Index least = std::ranges::min(counts); least < 0)
    fail(fmt::format("a count is {}, which is negative", least));
  double total = 0, passed = 0;
  for (const Index count : counts) total += static_cast<double>(count);
  if (total == 0) fail("all counts are 0");
  std::vector<std::size_t> order(counts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::greater<>{}, [&](std::size_t s) { return counts[s]; });
  std::vector<std::int32_t> result(counts.size());
  std::int32_t current = 0;
  const auto last = static_cast<std::int32_t>(classes - 1);
  for (const std::size_t s : order) {
    result[s] = current;
    passed += static_cast<double>(counts[s]);
    const bool is_full = passed * static_cast<double>(classes) >= total * (current + 1);
    if (is_full && current < last && s != order.back()) ++current;
  }
  return result;
}

}  // namespace reel::nn
