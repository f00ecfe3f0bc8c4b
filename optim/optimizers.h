#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// An optimizer by its name, for programs that choose one at run time.
struct OptimizerKind {
  std::string_view name;
  double learning_rate;  ///< the default
  std::unique_ptr<Optimizer> (*make)(const nn::ModuleParams& params, double learning_rate,
                                     const std::vector<Group>& groups);
};

/// All that step with any gradient: not Lbfgs, which evaluates the loss itself. The other options
/// have their defaults.
std::span<const OptimizerKind> optimizer_kinds();

/// The optimizer of that name. Throws ValueError, listing names, if there is none.
std::unique_ptr<Optimizer> make_optimizer(std::string_view name, const nn::ModuleParams& params,
                                          double learning_rate,
                                          const std::vector<Group>& groups = {}, Site site = {});

}  // namespace reel::optim
