#pragma once

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

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "testing.h"

/// Shared by the tests of optimizers.
namespace reel::testing {

using namespace reel::optim;

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

using Make = std::function<std::unique_ptr<Optimizer>(const Params&)>;

template <class O, class Options>
Make make(const Options& options) {
  return [=](const Params& params) { return std::make_unique<O>(params, options); };
}

// One of each update formula. The last one is for matrices alone.
inline const std::vector<Make> all_optimizers = {
    make<Sgd>(SgdOptions{.learning_rate = 0.1, .weight_decay = 0.01}),
    make<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.1}),
    make<Sgd>(SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .nesterov = true}),
    make<Adam>(AdamOptions{.learning_rate = 0.1}),
    make<Adam>(AdamOptions{.learning_rate = 0.1, .weight_decay = 0.01, .amsgrad = true}),
    make<AdamW>(AdamWOptions{.learning_rate = 0.1}),
    make<NAdam>(NAdamOptions{.learning_rate = 0.1}),
    make<RAdam>(RAdamOptions{.learning_rate = 0.1}),
    make<Adamax>(AdamaxOptions{.learning_rate = 0.1}),
    make<RmsProp>(RmsPropOptions{.learning_rate = 0.1}),
    make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .momentum = 0.9}),
    make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .centered = true}),
    make<RmsProp>(RmsPropOptions{.learning_rate = 0.1, .momentum = 0.9, .centered = true}),
    make<Adagrad>(AdagradOptions{.learning_rate = 0.1, .learning_rate_decay = 0.1}),
    make<Adadelta>(AdadeltaOptions{}),
    make<Lion>(LionOptions{.learning_rate = 0.1, .weight_decay = 0.1}),
    make<Adafactor>(AdafactorOptions{.learning_rate = 0.1, .weight_decay = 0.1}),
    make<Asgd>(AsgdOptions{.learning_rate = 0.1, .decay = 0.1, .start = 1, .weight_decay = 0.01}),
    make<Rprop>(RpropOptions{.learning_rate = 0.1}),
    make<Muon>(MuonOptions{.learning_rate = 0.1}),
};

// A parameter `name` with the given numbers.
inline Param create(const Params& params, std::string_view name,
                    std::initializer_list<double> numbers) {
  const std::vector<double> values(numbers);
  return params.create(name, {static_cast<Index>(values.size())},
                       [&](Rng&, const Shape& shape, DType dtype) {
                         return tensor(shape, std::span(values), dtype);
                       });
}

// Two parameters of normal numbers, long enough for vector lanes and a tail.
inline Params two_parameters(DType dtype = f32) {
  const Params params(1, dtype);
  for (const char* name : {"u", "w"})
    params.create(name, {3, 7}, [](Rng& rng, const Shape& shape, DType type) {
      return rng.normal(shape, 0, 1, type);
    });
  return params;
}

inline Gradients gradients_of(const Params& params, std::uint64_t seed) {
  Gradients gradients(params);
  Rng rng(seed);
  for (const Param& param : params.list())
    gradients.set(*param.entry(), rng.normal(param.shape(), 0, 1, param.dtype()));
  return gradients;
}

inline Gradients gradient_of(const Params& params, const Param& param,
                             std::initializer_list<double> numbers) {
  Gradients gradients(params);
  gradients.set(*param.entry(), tensor(param.shape(), numbers, param.dtype()));
  return gradients;
}

// Row `i` of a stack of tensors.
inline Tensor row(const Tensor& stack, Index i, const Shape& shape) {
  const auto all = stack.values<double>();
  return tensor(shape,
                all.subspan(static_cast<std::size_t>(i * shape.size()),
                            static_cast<std::size_t>(shape.size())),
                f64);
}

inline double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  REQUIRE(x.size() == y.size());
  double largest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

inline void check_same_bits(const Params& a, const Params& b) {
  for (const Param& param : a.list())
    CHECK(param.value().to_vector() == b[param.name()].value().to_vector());
}

}  // namespace reel::testing
