#include <reel/optim/optimizers.h>

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include <reel/autograd/message.h>
#include <reel/optim/adadelta.h>
#include <reel/optim/adafactor.h>
#include <reel/optim/adagrad.h>
#include <reel/optim/adam.h>
#include <reel/optim/adamax.h>
#include <reel/optim/adamw.h>
#include <reel/optim/asgd.h>
#include <reel/optim/lion.h>
#include <reel/optim/muon.h>
#include <reel/optim/nadam.h>
#include <reel/optim/radam.h>
#include <reel/optim/rmsprop.h>
#include <reel/optim/rprop.h>
#include <reel/optim/sgd.h>

namespace reel::optim {
namespace {

template <class O, class Options>
OptimizerKind kind(std::string_view name) {
  return {
      name, Options{}.learning_rate,
      [](const nn::ModuleParams& params, double learning_rate, const std::vector<Group>& groups) {
        Options options;
        options.learning_rate = learning_rate;
        options.groups = groups;
        return std::unique_ptr<Optimizer>(std::make_unique<O>(params, options));
      }};
}

}  // namespace

std::span<const OptimizerKind> optimizer_kinds() {
  static const OptimizerKind kinds[] = {
      kind<Sgd, SgdOptions>("sgd"),
      kind<Adam, AdamOptions>("adam"),
      kind<AdamW, AdamWOptions>("adamw"),
      kind<NAdam, NAdamOptions>("nadam"),
      kind<RAdam, RAdamOptions>("radam"),
      kind<Adamax, AdamaxOptions>("adamax"),
      kind<RmsProp, RmsPropOptions>("rmsprop"),
      kind<Adagrad, AdagradOptions>("adagrad"),
      kind<Adadelta, AdadeltaOptions>("adadelta"),
      kind<Lion, LionOptions>("lion"),
      kind<Muon, MuonOptions>("muon"),
      kind<Adafactor, AdafactorOptions>("adafactor"),
      kind<Asgd, AsgdOptions>("asgd"),
      kind<Rprop, RpropOptions>("rprop"),
  };
  return kinds;
}

std::unique_ptr<Optimizer> make_optimizer(std::string_view name, const nn::ModuleParams& params,
                                          double learning_rate, const std::vector<Group>& groups,
                                          Site site) {
  const std::span<const OptimizerKind> kinds = optimizer_kinds();
  const auto found = std::ranges::find(kinds, name, &OptimizerKind::name);
  if (found != kinds.end()) return found->make(params, learning_rate, groups);
  std::vector<std::string> names;
  for (const OptimizerKind& kind : kinds) names.emplace_back(kind.name);
  throw ValueError(
      fmt::format("there is no optimizer {}{}", in_quotes(name), suggestion(name, names)), site);
}

}  // namespace reel::optim
