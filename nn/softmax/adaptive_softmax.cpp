#include <reel/nn/softmax/adaptive_softmax.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <string>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/error.h>
#include <reel/autograd/tape.h>

namespace reel::nn {
namespace {

constexpr const char* module = "AdaptiveSoftmax";

// Throws as the constructor says.
Index head_outputs(const ModuleParams& p, Index input_size, Index classes,
                   const std::vector<Index>& cutoffs, double div_value) {
  begin_module(p, module, {{"input_size", input_size}, {"classes", classes}});
  const auto fail = [&](const std::string& what) {
    throw ValueError(fmt::format("{}: {}", module_name(p, module), what), SiteScope::current());
  };
  Index last = 0;
  bool ascend = !cutoffs.empty();
  for (const Index cutoff : cutoffs) {
    ascend = ascend && cutoff > last && cutoff < classes;
    last = cutoff;
  }
  if (!ascend)
    fail(fmt::format("the cutoffs must ascend between 1 and {}, not be [{}]", classes - 1,
                     fmt::join(cutoffs, ", ")));
  if (!(div_value >= 1 && std::isfinite(div_value)))
    fail(fmt::format("div_value must be finite and at least 1, not {}", div_value));
  return cutoffs[0] + std::ssize(cutoffs);
}

// Of a tail, by PyTorch's rule.
Index features_of(const ModuleParams& p, Index input_size, double div_value, std::size_t tail) {
  const double share = std::pow(div_value, static_cast<double>(tail + 1));
  const auto features = static_cast<Index>(std::floor(static_cast<double>(input_size) / share));
  if (features == 0)
    throw ValueError(fmt::format("{}: tail {} has no features, as {} / {}^{} is below 1; give a "
                                 "smaller div_value or fewer cutoffs",
                                 module_name(p, module), tail, input_size, div_value, tail + 1),
                     SiteScope::current());
  return features;
}

}  // namespace

AdaptiveSoftmax::Tail::Tail(const Params& p, Index input_size, Index features, Index classes)
    : projection(p / "projection", input_size, features, {.bias = false}),
      output(p / "output", features, classes, {.bias = false}) {}

AdaptiveSoftmax::AdaptiveSoftmax(const ModuleParams& p, Arg<Index> input_size, Arg<Index> classes,
                                 const std::vector<Index>& cutoffs,
                                 const AdaptiveSoftmaxOptions& options)
    : head(p / "head", input_size, head_outputs(p, input_size, classes, cutoffs, options.div_value),
           {.bias = options.head_bias}),
      cutoffs(cutoffs) {
  this->cutoffs.push_back(classes);
  const auto add = [this](std::int32_t in_head, std::int32_t group, std::int32_t member) {
    symbols_.push_back({in_head, group, member});
  };
  for (std::int32_t s = 0; s < cutoffs[0]; ++s) add(s, -1, 0);
  for (std::size_t i = 0; i < cutoffs.size(); ++i) {
    const Index count = this->cutoffs[i + 1] - this->cutoffs[i];
    tails.emplace_back(p / "tail" / std::to_string(i), input_size,
                       features_of(p, input_size, options.div_value, i), count);
    const auto tail = static_cast<std::int32_t>(i);
    for (std::int32_t s = 0; s < count; ++s)
      add(static_cast<std::int32_t>(cutoffs[0]) + tail, tail, s);
  }
}

Tensor AdaptiveSoftmax::cross_entropy(const Tensor& x, const Tensor& targets,
                                      const ClassLossOptions& options, Site site) const {
  const ModuleScope scope(head.w.name(), site);
  require_features(module, head.w, x, head.w.shape()[1], site);
  return detail::two_level_loss(
      module, x, targets, options, symbols_,
      [&](const Tensor& rows, const Tensor& in_head, const LinearCrossEntropyOptions& summed) {
        return head.cross_entropy(rows, in_head, summed, site);
      },
      [&](Index i, const Tensor& rows, const Tensor& members,
          const LinearCrossEntropyOptions& summed) {
        const Tail& tail = tails[static_cast<std::size_t>(i)];
        return tail.output.cross_entropy(tail.projection(rows, site), members, summed, site);
      });
}

Tensor AdaptiveSoftmax::log_probabilities(const Tensor& x, Site site) const {
  const ModuleScope scope(head.w.name(), site);
  require_features(module, head.w, x, head.w.shape()[1], site);
  const Tensor first = log_softmax(head(x, site));
  const Index shortlist = cutoffs[0];
  std::vector<Tensor> parts{slice(first, -1, 0, shortlist)};
  for (const Tail& tail : tails) {
    const Index i = shortlist + std::ssize(parts) - 1;
    parts.push_back(slice(first, -1, i, i + 1) +
                    log_softmax(tail.output(tail.projection(x, site), site)));
  }
  return concat(parts, -1);
}

Tensor AdaptiveSoftmax::predict(const Tensor& x, Site site) const {
  const NoRecord pause;
  const ModuleScope scope(head.w.name(), site);
  require_features(module, head.w, x, head.w.shape()[1], site);
  const Index features = x.size(-1), count = x.size() / features;
  const Tensor rows = reshape(x, {count, features});
  const std::vector<double> in_head = argmax(head(rows, site)).to_vector();
  std::vector<std::int32_t> result, in_tails;
  for (std::size_t r = 0; r < in_head.size(); ++r) {
    result.push_back(static_cast<std::int32_t>(in_head[r]));
    if (result[r] >= cutoffs[0]) in_tails.push_back(static_cast<std::int32_t>(r));
  }
  if (!in_tails.empty()) {
    const Tensor some = gather_rows(rows, tensor({std::ssize(in_tails)}, in_tails));
    const Tensor symbols = argmax(log_probabilities(some, site));
    for (std::size_t k = 0; k < in_tails.size(); ++k)
      result[static_cast<std::size_t>(in_tails[k])] = symbols.values<std::int32_t>()[k];
  }
  return reshape(tensor({count}, result), x.shape().erase(x.rank() - 1));
}

}  // namespace reel::nn
