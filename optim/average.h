#pragma once

#include <string>
#include <vector>

#include <reel/autograd/argument.h>
#include <reel/nn/named_tensors.h>
#include <reel/nn/sizes.h>

namespace reel::optim {

/// An average of the values that parameters have had, those that there are at its construction,
/// which usually generalises better than the last ones. Averages are kept in double whatever the
/// dtype: in f32 the late steps of a long run would be smaller than its rounding. Evaluate with
/// them in place of the parameters, or load them at the end:
///
///     const double loss = nn::functional_call(params, ema.values(), validate);
///     nn::load_params(ema.values(), params);
class Average {
 public:
  /// The averages under the names of the parameters, in their dtypes. Throws ValueError before the
  /// first update.
  nn::NamedTensors values(Site site = {}) const;
  /// The number of updates.
  Index count() const { return count_; }

  /// "ema.count" and "ema.values.<parameter>", f64, if there was an update.
  nn::NamedTensors state() const;
  /// Throws ValueError, having changed nothing, if an entry is missing, of another shape, or not
  /// finite.
  void restore(const nn::NamedTensors& state, Site site = {});

 protected:
  /// Throws ValueError if there are no parameters.
  Average(std::string name, const nn::ModuleParams& params);

  /// average <- average + weight (p - average); the first time it becomes p.
  void move(double weight, Site site);

 private:
  std::string key(const Param& param) const;

  std::string name_;
  std::vector<Param> params_;
  std::vector<Tensor> values_;
  Index count_ = 0;
};

/// The exponential moving average, decay a + (1 - decay) p after every step, beginning with the
/// first p: torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn. Polyak and Juditsky,
/// "Acceleration of stochastic approximation by averaging", 1992.
class Ema final : public Average {
 public:
  /// Throws ValueError unless 0 <= decay < 1.
  explicit Ema(const nn::ModuleParams& params, Arg<double> decay = 0.999);
  /// Call after each step of the optimizer.
  void update(Site site = {}) { move(1 - decay_, site); }

 private:
  double decay_;
};

/// The mean of the values at all updates, such as at the ends of epochs with a high learning rate,
/// or of all steps from some time on (ASGD). torch.optim.swa_utils.AveragedModel. Izmailov et al.,
/// "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.
class Swa final : public Average {
 public:
  /// Throws ValueError if there are no parameters.
  explicit Swa(const nn::ModuleParams& params) : Average("swa", params) {}
  /// Takes the parameters as they are now into the mean.
  void update(Site site = {}) { move(1 / static_cast<double>(count() + 1), site); }
};

}  // namespace reel::optim
