#include <reel/optim/average.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <reel/autograd/kernels/pieces.h>

namespace reel::optim {

Average::Average(std::string name, const nn::ModuleParams& params)
    : name_(std::move(name)), params_(params.list()) {
  if (params_.empty())
    throw ValueError(fmt::format("{}: there are no parameters to average; construct the model "
                                 "before it: {}",
                                 name_, params.what_there_is()),
                     SiteScope::current());
}

void Average::move(double weight, Site site) {
  const SiteScope scope(site);
  if (values_.empty()) {
    std::vector<Tensor> first;
    for (const Param& param : params_) {
      const Tensor& value = param.entry()->value;
      // A copy: whoever has a span of its numbers may write to them.
      first.push_back(value.dtype() == f64 ? value.copy() : value.to(f64));
    }
    values_ = std::move(first);
  } else {
    for (Tensor& value : values_) value.begin_update<double>();
    std::vector<const Tensor*> arrays;
    for (const Tensor& value : values_) arrays.push_back(&value);
    const PoolVector<kernels::Piece> pieces = kernels::cut(arrays);
    kernels::each_piece(pieces, [&](std::size_t, const kernels::Piece& piece) {
      const Tensor& now = params_[piece.array].entry()->value;
      double* average = static_cast<double*>(values_[piece.array].buffer().data());
      dispatch_real(now.dtype(), [&]<class T>() {
        const T* p = now.begin<T>();
        for (Index i = piece.begin; i < piece.end; ++i)
          average[i] += weight * (static_cast<double>(p[i]) - average[i]);
      });
    });
  }
  ++count_;
}

nn::NamedTensors Average::values(Site site) const {
  if (count_ == 0)
    throw ValueError(
        fmt::format("{}: there is no average yet; call update() after a step first", name_), site);
  nn::NamedTensors values;
  for (std::size_t k = 0; k < params_.size(); ++k)
    values.tensors.emplace(params_[k].name(), values_[k].to(params_[k].dtype()));
  return values;
}

std::string Average::key(const Param& param) const {
  return fmt::format("{}.values.{}", name_, param.name());
}

nn::NamedTensors Average::state() const {
  nn::NamedTensors state;
  state.tensors[name_ + ".count"] = scalar(static_cast<double>(count_), f64);
  for (std::size_t k = 0; k < values_.size(); ++k) state.tensors[key(params_[k])] = values_[k];
  return state;
}

void Average::restore(const nn::NamedTensors& state, Site site) {
  const Index count = nn::count_in(state, name_ + ".count", site);
  std::vector<Tensor> values;
  for (const Param& param : params_) {
    if (count == 0) break;
    const Tensor& value = state[{key(param), site}];
    if (value.dtype() != f64 || value.shape() != param.shape())
      throw ValueError(
          fmt::format("{}: entry {} of the state is {} {}, but has to be f64 {}", name_, key(param),
                      name_of(value.dtype()), value.shape().str(), param.shape().str()),
          site);
    if (!std::ranges::all_of(value.values<double>(), [](double x) { return std::isfinite(x); }))
      throw ValueError(fmt::format("{}: entry {} of the state holds a number that is not finite",
                                   name_, key(param)),
                       site);
    values.push_back(value.copy());
  }
  values_ = std::move(values);
  count_ = count;
}

Ema::Ema(const nn::ModuleParams& params, Arg<double> decay)
    : Average("ema", params), decay_(decay) {
  if (!(decay_ >= 0 && decay_ < 1))
    throw ValueError(fmt::format("Ema: decay is {}, but has to be in [0, 1)", decay_),
                     SiteScope::current());
}

}  // namespace reel::optim
