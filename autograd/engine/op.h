#pragma once

#include <array>
#include <cstring>
#include <type_traits>
#include <vector>

#include <reel/autograd/engine/op_spec.h>
#include <reel/autograd/kernels/level.h>

/// Marks the definition of an op (and of its parts) at namespace scope: it is constructed before
/// the initialisers of other files run, so that they may call it. All of the library's ops have it;
/// an op of a program needs it only if a global object in another file uses it.
#if __has_cpp_attribute(gnu::init_priority)
#define REEL_EARLY [[gnu::init_priority(101)]]
#else
#define REEL_EARLY
#endif

namespace reel::op {

/// Attributes of an op that has none.
struct NoAttr {};

/// Calls `f(x, attr)`, or `f(x)` where f takes no attributes.
template <class Attr, class F, class X>
decltype(auto) call_with(const F& f, X&& x, const void* attr) {
  if constexpr (std::is_invocable_v<const F&, X>)
    return f(std::forward<X>(x));
  else
    return f(std::forward<X>(x), *static_cast<const Attr*>(attr));
}

template <class F, class X, class Attr>
concept TakesCall =
    std::is_invocable_v<const F&, X> || std::is_invocable_v<const F&, X, const Attr&>;

/// A gradient rule written in ops.
template <class F>
struct Rule {
  F f;
  Keeps keeps;
};
template <class F>
constexpr Rule<F> rule(F f, Keeps keeps) {
  return {f, keeps};
}

/// A gradient with its own backward kernel. The specification computes the same outputs in ops:
/// tests compare the kernel with it, and it is differentiated when a graph of the gradient is
/// requested; `keeps` has to include the inputs that it reads.
template <class B, class S>
struct Fused {
  B backward;
  S specification;
  Keeps keeps;
};
template <class B, class S>
constexpr Fused<B, S> fused(B backward, S specification, Keeps keeps = keeps_all) {
  return {backward, specification, keeps};
}

/// No gradient, and why. Requesting it throws a GradientError with this text.
struct NoGradient {
  const char* why;
};
constexpr NoGradient none(const char* why) { return {why}; }

/// Names of the arguments in order; `integer("rows")` takes an i32 tensor, `several("inputs")` any
/// number of tensors, and `optional("b")` or `optional(integer("lengths"))` also an undefined one:
/// an absent argument.
struct ArgumentName {
  std::string_view name;
  bool integer = false, variadic = false, optional = false;
  ArgumentName(const char* argument) : name(argument) {}
};
inline ArgumentName integer(const char* name) {
  ArgumentName a(name);
  a.integer = true;
  return a;
}
inline ArgumentName several(const char* name) {
  ArgumentName a(name);
  a.variadic = true;
  return a;
}
inline ArgumentName optional(ArgumentName argument) {
  argument.optional = true;
  return argument;
}

/// The parts of a definition that are lambdas. Each is a captureless generic lambda; those of ops
/// with attributes take them as a second argument if they need them.
template <class Attr>
struct ShapeRule {
  template <TakesCall<const Arguments&, Attr> F>
  ShapeRule(F)
      : call([](const Arguments& in, const void* attr) -> Shapes {
          return call_with<Attr>(F{}, in, attr);
        }) {}
  Shapes (*call)(const Arguments&, const void*);
};

/// In place of a kernel: the only output is the first input in another shape of the same size, and
/// shares its memory.
struct SharedInput {};
inline constexpr SharedInput shared_input;

/// The kernel of a definition, for each dtype that it can be called with.
template <class Attr>
struct ForwardKernel {
  ForwardKernel(SharedInput) : shares_input(true) {
    by_dtype.fill([](const KernelCall&) {});
  }
  template <class F>
  ForwardKernel(F) : by_dtype{entry<F, float>(), entry<F, double>(), entry<F, std::int32_t>()} {}
  std::array<OpSpec::Forward, 3> by_dtype;
  bool shares_input = false;

 private:
  template <class F, class T>
  static constexpr OpSpec::Forward entry() {
    if constexpr (TakesCall<F, Ctx<T>, Attr>)
      return [](const KernelCall& call) {
        kernels::at_level([&] { call_with<Attr>(F{}, Ctx<T>(call), call.attr); });
      };
    else
      return nullptr;
  }
};

/// The gradient of a definition: a rule, a fused kernel with its specification, or why there is
/// none.
template <class Attr>
struct GradientRule {
  template <class F>
  GradientRule(Rule<F> r) : derivative(OpSpec::Derivative::rule), keeps(r.keeps) {
    rule = [](Vjp& v, const void* attr) { call_with<Attr>(F{}, v, attr); };
  }
  template <class B, class S>
  GradientRule(Fused<B, S> f)
      : derivative(OpSpec::Derivative::fused),
        keeps(f.keeps),
        backward{entry<B, float>(), entry<B, double>()} {
    specification = [](std::span<const Tensor> in, const void* attr) -> Tensors {
      return call_with<Attr>(S{}, in, attr);
    };
  }
  GradientRule(NoGradient n) : derivative(OpSpec::Derivative::none), why_none(n.why) {}

  OpSpec::Derivative derivative;
  Keeps keeps;
  const char* why_none = "";
  void (*rule)(Vjp&, const void*) = nullptr;
  std::array<OpSpec::FusedBackward, 2> backward{};
  Tensors (*specification)(std::span<const Tensor>, const void*) = nullptr;

 private:
  template <class B, class T>
  static constexpr OpSpec::FusedBackward entry() {
    return [](const BackwardCall& call) {
      kernels::at_level([&] { call_with<Attr>(B{}, BackwardCtx<T>(call), call.attr); });
    };
  }
};

/// Everything about an op, in one block. Only what few ops need has defaults: leaving out the
/// gradient or the samples does not compile.
template <class Attr = NoAttr>
struct Definition {
  const char* name;
  std::vector<ArgumentName> arguments;
  ShapeRule<Attr> shape;
  ForwardKernel<Attr> forward;
  GradientRule<Attr> gradient;
  Samples<Attr> samples;
  const char* function = "";  ///< what errors call it, if not by its name
  int hidden_outputs = 0;
};

/// An op that can be called. Constructing it registers it; throws ValueError if the registry has an
/// op of that name (at namespace scope this ends the program before main, with the message):
///
///     const Op<> square_op{{
///         .name = "square",
///         .arguments = {"x"},
///         .shape = same_shape,
///         .forward = []<Real T>(Ctx<T> c) { ... },
///         .gradient = rule([](Vjp& v) { v.add(0, [&] { return 2 * v.g() * v.in(); }); },
///                          keeps_inputs),
///         .samples = {normal({3, 4})},
///     }};
template <class Attr = NoAttr>
class Op {
 public:
  static_assert(std::is_trivially_copyable_v<Attr> && sizeof(Attr) <= max_attr_size &&
                alignof(Attr) <= 8);

  explicit Op(const Definition<Attr>& definition, Site site = {});
  ~Op();
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  /// A call; absent optional arguments are undefined tensors.
  Tensor operator()(std::initializer_list<const Tensor*> inputs, const Attr& attr,
                    Site site) const {
    return run_single(spec_, {inputs.begin(), inputs.size()}, &attr, site);
  }
  Tensor operator()(std::initializer_list<const Tensor*> inputs, Site site) const {
    return (*this)(inputs, Attr{}, site);
  }
  /// For ops with a variable number of inputs or several outputs.
  Tensors all(std::span<const Tensor* const> inputs, const Attr& attr, Site site) const {
    return run(spec_, inputs, &attr, site);
  }
  const OpSpec& spec() const { return spec_; }

 private:
  OpSpec spec_;
};

/// Shape rules that many ops share.
inline constexpr auto same_shape = [](const Arguments& in) -> Shape { return in[0]; };
inline constexpr auto broadcast_shape = [](const Arguments& in) -> Shape {
  Shape shape = in[0];
  try {
    for (int i = 1; i < in.count(); ++i)
      if (in[i] != shape) shape = broadcast(shape, in[i]);
  } catch (const ShapeError& e) {
    in.fail(e.message());
  }
  return shape;
};

template <class Attr>
Op<Attr>::Op(const Definition<Attr>& d, Site site) {
  spec_.name = d.name;
  spec_.site = site;
  for (const ArgumentName& a : d.arguments) {
    spec_.arguments.push_back({a.name, a.integer, a.optional});
    spec_.variadic |= a.variadic;
    spec_.takes_integers |= a.integer;
  }
  spec_.function = d.function;
  spec_.hidden_outputs = d.hidden_outputs;
  spec_.shares_input = d.forward.shares_input;
  spec_.attr_size = std::is_empty_v<Attr> ? 0 : sizeof(Attr);
  spec_.shape = d.shape.call;
  spec_.forward = d.forward.by_dtype;
  spec_.derivative = d.gradient.derivative;
  spec_.keeps = d.gradient.keeps;
  spec_.why_none = d.gradient.why_none;
  spec_.rule = d.gradient.rule;
  spec_.backward = d.gradient.backward;
  spec_.specification = d.gradient.specification;
  for (const auto& item : d.samples.items()) {
    OpSpec::Sample& sample = spec_.samples.emplace_back();
    sample.inputs = item.inputs;
    std::memcpy(sample.attr.data(), &item.attr, sizeof(Attr));
  }
  register_op(spec_);
}

template <class Attr>
Op<Attr>::~Op() {
  unregister_op(spec_);
}

}  // namespace reel::op
