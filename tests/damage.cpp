#include "damage.h"

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace reel::testing {
namespace {

// An op's functions are plain pointers without state: they read this instead.
Damage current{};

const char* name_of(Way way) {
  static constexpr const char* names[] = {"scaled", "shifted",    "transposed",
                                          "zeroed", "off by one", "detached"};
  return names[static_cast<std::size_t>(way)];
}
const char* name_of(Part part) {
  static constexpr const char* names[] = {"value", "gradient", "kernel", "specification"};
  return names[static_cast<std::size_t>(part)];
}

// The shape as a matrix with rows along the last axis.
Shape as_matrix(const Shape& shape) {
  const Index last = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
  return {last == 0 ? 0 : shape.size() / last, last};
}

template <class T>
void damage_numbers(T* x, const Shape& shape, Way way) {
  const Index n = shape.size();
  switch (way) {
    case Way::scaled:
      for (Index i = 0; i < n; ++i) x[i] = static_cast<T>(x[i] * (Real<T> ? 1.001 : 2));
      return;
    case Way::shifted:
      for (Index i = 0; i < n; ++i) x[i] = static_cast<T>(x[i] + (Real<T> ? 1e-3 : 1));
      return;
    case Way::transposed: {
      if (shape.rank() < 2) return std::reverse(x, x + n);
      const Shape m = as_matrix(shape);
      const std::vector<T> before(x, x + n);
      for (Index i = 0; i < n; ++i)
        x[i % m[1] * m[0] + i / m[1]] = before[static_cast<std::size_t>(i)];
      return;
    }
    case Way::zeroed:
      std::fill_n(x, n, T(0));
      return;
    case Way::off_by_one:
      if (n > 0) std::rotate(x, x + n - 1, x + n);
      return;
    case Way::detached:
      return;
  }
}

void damage_tensor(const Tensor& x) {
  dispatch(x.dtype(), [&]<class T>() {
    damage_numbers(static_cast<T*>(x.buffer().data()), x.shape(), current.way);
  });
}

// The same, in ops.
Tensor damaged_gradient(const Tensor& g, Way way) {
  const Index n = g.size();
  switch (way) {
    case Way::scaled:
      return 1.001 * g;
    case Way::shifted:
      return g + 1e-3;
    case Way::transposed:
      if (g.rank() == 0) return g;
      if (g.rank() == 1) return flip(g, 0);
      return reshape(transpose(reshape(g, as_matrix(g.shape()))), g.shape());
    case Way::zeroed:
      return zeros(g.shape(), g.dtype());
    case Way::off_by_one:
      if (n == 0) return g;
      return reshape(
          concat({slice(reshape(g, {n}), 0, n - 1, n), slice(reshape(g, {n}), 0, 0, n - 1)}, 0),
          g.shape());
    case Way::detached:
      return g.detach();
  }
  return g;
}

// y = x, with a gradient that is damaged.
const OpSpec& identity() {
  static const OpSpec spec = [] {
    const Op<> op{{
        .name = "identity",
        .arguments = {"x"},
        .shape = same_shape,
        .forward = shared_input,
        .gradient =
            rule([](Vjp& v) { v.add(0, [&] { return damaged_gradient(v.g(), current.way); }); },
                 keeps_nothing),
        .samples = {normal({3})},
    }};
    return op.spec();
  }();
  return spec;
}

void damaged_forward(const KernelCall& call, DType dtype) {
  if (current.op->shares_input) {
    const Tensor &x = *call.inputs[0], &y = call.outputs[0];
    dispatch(dtype, [&]<class T>() { std::ranges::copy(x.values<T>(), call.out<T>(0).data()); });
    return damage_tensor(y);
  }
  current.op->forward[static_cast<std::size_t>(dtype)](call);
  damage_tensor(call.outputs[static_cast<std::size_t>(current.place)]);
}

// The op's own gradient, for an input that passes through the damaged identity.
Tensors damaged_specification(std::span<const Tensor> inputs, const void* attr) {
  std::vector<Tensor> in(inputs.begin(), inputs.end());
  if (Tensor& x = in[static_cast<std::size_t>(current.place)]; x.defined()) {
    const Tensor* const from[] = {&x};
    x = run_single(identity(), from, nullptr, {});
  }
  std::vector<const Tensor*> pointers;
  for (const Tensor& input : in) pointers.push_back(&input);
  if (current.part == Part::specification) return current.op->specification(in, attr);
  return run(*current.op, pointers, attr, {});
}

void gradient_of_specification(const BackwardCall& call) {
  Tape tape;
  std::vector<Tensor> in;
  for (std::size_t i = 0; i < call.inputs.size(); ++i) {
    const Tensor x = call.inputs[i].detach();
    in.push_back(call.gradients[i].defined() ? tape.watch(x) : x);
  }
  const Tensors y = damaged_specification(in, call.attr);
  const auto real = std::ranges::find_if(y, is_real, &Tensor::dtype);
  Tensor projection = scalar(0, real->dtype());
  for (std::size_t k = 0; k < y.size(); ++k)
    if (call.seeds[k].defined()) projection = projection + sum(y[k] * call.seeds[k]);
  for (std::size_t i = 0; i < in.size(); ++i)
    if (call.gradients[i].defined())
      call.gradients[i] = tape.gradient(projection, {in[i]}, {.keep = true})[0].detach();
}

template <int dtype>
void damaged_kernel(const BackwardCall& call) {
  current.op->backward[dtype](call);
  if (const Tensor& g = call.gradients[static_cast<std::size_t>(current.place)]; g.defined())
    damage_tensor(g);
}

}  // namespace

std::string Damage::str() const {
  return fmt::format("{}, {} {} {}", op->name, name_of(part), place, name_of(way));
}

bool applies(const Damage& d) {
  const bool fused = d.op->derivative == OpSpec::Derivative::fused;
  switch (d.part) {
    case Part::value:
      return d.way != Way::detached;
    case Part::gradient:
      return d.op->derivative != OpSpec::Derivative::none && !d.op->argument(d.place).integer;
    case Part::kernel:
      return fused && d.way != Way::detached && !d.op->argument(d.place).integer;
    case Part::specification:
      return fused && !d.op->argument(d.place).integer;
  }
  return false;
}

OpSpec damaged(const Damage& damage) {
  current = damage;
  OpSpec op = *damage.op;
  if (damage.part == Part::value) {
    op.shares_input = false;
    op.forward = {[](const KernelCall& call) { damaged_forward(call, f32); },
                  [](const KernelCall& call) { damaged_forward(call, f64); },
                  [](const KernelCall& call) { damaged_forward(call, i32); }};
    for (std::size_t t = 0; t < op.forward.size(); ++t)
      if (!damage.op->forward[t]) op.forward[t] = nullptr;
  } else if (damage.part == Part::kernel) {
    op.backward = {damaged_kernel<0>, damaged_kernel<1>};
  } else {
    op.derivative = OpSpec::Derivative::fused;
    op.keeps = keeps_all;
    op.specification = damaged_specification;
    if (damage.part == Part::gradient)
      op.backward = {gradient_of_specification, gradient_of_specification};
  }
  return op;
}

}  // namespace reel::testing
