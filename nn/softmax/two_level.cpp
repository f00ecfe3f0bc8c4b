#include <reel/nn/softmax/two_level.h>

#include <fmt/format.h>

#include <map>

#include <reel/autograd/error.h>
#include <reel/autograd/ops/check_indices.h>

namespace reel::nn::detail {
namespace {

// Some rows of x, and a target for each.
struct Part {
  std::vector<std::int32_t> rows, targets;

  void add(Index row, std::int32_t target) {
    rows.push_back(static_cast<std::int32_t>(row));
    targets.push_back(target);
  }
};

Tensor list(const std::vector<std::int32_t>& values) {
  return tensor({std::ssize(values)}, values);
}

void check(const char* module, const Tensor& x, const Tensor& targets,
           const ClassLossOptions& options, Index symbols) {
  const Site site = SiteScope::current();
  const auto fail = [&](const std::string& what) {
    throw ShapeError(fmt::format("{}: {}", module, what), site);
  };
  if (!x.defined()) throw ValueError(fmt::format("{}: x is undefined", module), site);
  if (!targets.defined()) throw ValueError(fmt::format("{}: targets are undefined", module), site);
  if (targets.dtype() != i32)
    throw DTypeError(
        fmt::format("{}: targets must be i32, not {}", module, name_of(targets.dtype())), site);
  if (x.shape().erase(x.rank() - 1) != targets.shape())
    fail(fmt::format("targets have shape {}, but must have the axes of x, {}, without the last",
                     targets.shape().str(), x.shape().str()));
  if (options.weights.defined() && options.weights.shape() != targets.shape())
    fail(fmt::format("weights have shape {}, but must have that of the targets, {}",
                     options.weights.shape().str(), targets.shape().str()));
  check_indices(module, "target", "symbols", targets.values<std::int32_t>(), symbols,
                options.ignore_index, site);
}

// A weighted sum of losses of parts.
class Total {
 public:
  Total(const char* module, const Tensor& x, const ClassLossOptions& options, Index rows)
      : module_(module),
        x_(reshape(x, {rows, x.size(-1)})),
        weights_(options.weights.defined() ? reshape(options.weights, {rows, 1}) : Tensor()),
        rows_(rows) {}

  void add(const Part& part, const PartLoss& loss) {
    const Tensor own = loss(own_rows(part, x_), list(part.targets),
                            {.weights = own_weights(part), .reduction = LossReduction::sum});
    sum_ = sum_.defined() ? sum_ + own : own;
  }
  const Tensor& sum() const { return sum_; }
  // Over the positions of the part.
  Tensor mean(const Part& part) const {
    const Tensor weights = own_weights(part);
    const Tensor divisor = weights.defined()
                               ? reel::sum(weights)
                               : scalar(static_cast<double>(part.rows.size()), x_.dtype());
    if (divisor.to(f64).item() == 0)
      throw ValueError(
          fmt::format("{}: there is nothing to average: the weights that count sum to 0", module_),
          SiteScope::current());
    return sum_ / divisor;
  }

 private:
  Tensor own_rows(const Part& part, const Tensor& of) const {
    return std::ssize(part.rows) == rows_ ? of : gather_rows(of, list(part.rows));
  }
  Tensor own_weights(const Part& part) const {
    return weights_.defined() ? reshape(own_rows(part, weights_), {std::ssize(part.rows)})
                              : Tensor();
  }

  const char* module_;
  Tensor x_, weights_;
  Index rows_;
  Tensor sum_;
};

}  // namespace

Tensor two_level_loss(const char* module, const Tensor& x, const Tensor& targets,
                      const ClassLossOptions& options, const std::vector<TwoLevelSymbol>& symbols,
                      const PartLoss& head, const GroupLoss& within) {
  check(module, x, targets, options, std::ssize(symbols));
  Part in_head;
  std::map<std::int32_t, Part> in_group;
  Index row = 0;
  for (const std::int32_t target : targets.values<std::int32_t>()) {
    const Index place = row++;
    if (target == options.ignore_index) continue;
    const TwoLevelSymbol& symbol = symbols[static_cast<std::size_t>(target)];
    in_head.add(place, symbol.head);
    if (symbol.group >= 0) in_group[symbol.group].add(place, symbol.member);
  }
  Total total(module, x, options, targets.size());
  total.add(in_head, head);
  for (const auto& [group, part] : in_group)
    total.add(part, [&within, k = group](const Tensor& own, const Tensor& members,
                                         const LinearCrossEntropyOptions& summed) {
      return within(k, own, members, summed);
    });
  return options.reduction == LossReduction::mean ? total.mean(in_head) : total.sum();
}

}  // namespace reel::nn::detail
