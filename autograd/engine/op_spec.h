#pragma once

#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <reel/autograd/check/samples.h>
#include <reel/autograd/tensor.h>

namespace reel {
class Backward;
}

namespace reel::op {

struct OpSpec;

/// The shape of a result, which has the dtype of the call, or is i32: `integer(shape)`.
struct OutputShape {
  Shape shape;
  bool integer = false;
  OutputShape(const Shape& of_result) : shape(of_result) {}
};
inline OutputShape integer(const Shape& shape) {
  OutputShape output(shape);
  output.integer = true;
  return output;
}

inline constexpr int max_outputs = 13;
inline constexpr std::size_t max_attr_size = 128;

/// The shapes of the results of an op: most ops have one, the recurrent layers several.
class Shapes {
 public:
  Shapes(const Shape& only) : count_(1) { std::construct_at(items_, only); }
  Shapes(const OutputShape& only) : Shapes({only}) {}
  /// Throws ValueError for more than `max_outputs`.
  Shapes(std::initializer_list<OutputShape> several) {
    if (several.size() > max_outputs) throw_too_many(several.size());
    for (const OutputShape& output : several) {
      integers_ |= static_cast<unsigned>(output.integer) << count_;
      std::construct_at(items_ + count_++, output.shape);
    }
  }
  /// Throws ValueError for more than `max_outputs`.
  void add(const OutputShape& output) {
    if (count_ == max_outputs) throw_too_many(max_outputs + 1);
    integers_ |= static_cast<unsigned>(output.integer) << count_;
    std::construct_at(items_ + count_++, output.shape);
  }
  int count() const { return count_; }
  const Shape& operator[](int k) const { return items_[k]; }
  /// Whether output k is i32.
  bool is_integer(int k) const { return (integers_ >> k & 1) != 0; }

 private:
  [[noreturn]] static void throw_too_many(std::size_t count);

  union {  // only the first `count_` are constructed
    Shape items_[max_outputs];
  };
  int count_ = 0;
  unsigned integers_ = 0;  // bit k: whether output k is i32
};

/// The arguments of a call, as a shape rule sees them: shapes and dtypes, no values. An absent one
/// has the shape [].
class Arguments {
 public:
  Arguments(const OpSpec& op, std::span<const Tensor* const> inputs, Site site)
      : op_(op), inputs_(inputs), site_(site) {}

  int count() const { return static_cast<int>(inputs_.size()); }
  /// Whether an optional argument was given.
  bool has(int i) const { return inputs_[static_cast<std::size_t>(i)]->defined(); }
  /// The shape of argument i.
  const Shape& operator[](int i) const { return inputs_[static_cast<std::size_t>(i)]->shape(); }
  /// Its element type.
  DType dtype(int i) const { return inputs_[static_cast<std::size_t>(i)]->dtype(); }
  /// The name of argument i in messages.
  std::string_view name(int i) const;

  /// Throws an error naming the op, every given argument with its dtype and shape, and the call:
  /// "matmul: ...; a is f32 [2, 3], b is f32 [4, 5] (train.cpp:12)".
  template <class E = ShapeError>
  [[noreturn]] void fail(std::string_view why) const {
    throw E(message(why), site_);
  }

 private:
  std::string message(std::string_view why) const;

  const OpSpec& op_;
  std::span<const Tensor* const> inputs_;
  Site site_;
};

/// What a forward kernel works on.
struct KernelCall {
  std::span<const Tensor* const> inputs;
  std::span<Tensor> outputs;
  const void* attr;
  bool recording;  ///< whether outputs that only a backward pass reads are needed

  /// Whether an optional argument was given.
  bool has(int i) const { return inputs[static_cast<std::size_t>(i)]->defined(); }
  /// The elements of input i, none if it is absent.
  template <class T>
  std::span<const T> in(int i) const {
    if (!has(i)) return {};
    return inputs[static_cast<std::size_t>(i)]->values<T>();
  }
  /// The elements of output k, to be written.
  template <class T>
  std::span<T> out(int k) const {
    const Tensor& o = outputs[static_cast<std::size_t>(k)];
    return {static_cast<T*>(o.buffer().data()), static_cast<std::size_t>(o.size())};
  }
};

/// A kernel's view of its call, with element type T.
template <Element T>
class Ctx {
 public:
  explicit Ctx(const KernelCall& call) : call_(call) {}

  int count() const { return static_cast<int>(call_.inputs.size()); }
  /// Whether an optional argument was given; an absent one is empty.
  bool has(int i) const { return call_.has(i); }
  /// The elements of input i.
  std::span<const T> in(int i) const { return call_.in<T>(i); }
  /// An integer argument.
  std::span<const std::int32_t> indices(int i) const { return call_.in<std::int32_t>(i); }
  /// The shape of input i, [] if it is absent.
  const Shape& shape(int i) const { return call_.inputs[static_cast<std::size_t>(i)]->shape(); }

  /// The elements of output k, to be written.
  std::span<T> out(int k = 0) const { return call_.out<T>(k); }
  /// An output with the shape integer(...).
  std::span<std::int32_t> integer_out(int k = 0) const { return call_.out<std::int32_t>(k); }
  /// The shape of output k.
  const Shape& out_shape(int k = 0) const {
    return call_.outputs[static_cast<std::size_t>(k)].shape();
  }
  bool recording() const { return call_.recording; }

 private:
  const KernelCall& call_;
};

/// A contribution leftᵀ · right to an input's gradient, with left [N, P] and right [N, Q].
struct GradientProduct {
  int input;
  Tensor left, right;
};

/// What a fused backward kernel works on: inputs, outputs and gradients by index.
struct BackwardCall {
  std::span<const Tensor> inputs;
  std::span<const Tensor> outputs;
  std::span<const Tensor> seeds;  ///< gradients of the outputs; undefined where none arrived
  std::span<Tensor> gradients;    ///< gradients of the inputs; undefined where it is not needed
  const void* attr;
  PoolVector<GradientProduct>&
      products;  ///< products that the kernel leaves to be added to the gradients
};

/// Throws Error: a gradient reads a value that the op did not declare as kept.
[[noreturn]] void throw_not_kept(std::string_view what, int i);

/// What a fused gradient kernel sees of a call: its inputs and outputs, and the gradients of both.
template <Real T>
class BackwardCtx {
 public:
  explicit BackwardCtx(const BackwardCall& call) : call_(call) {}

  /// Whether an optional argument was given.
  bool has(int i) const { return is_given(call_.inputs[static_cast<std::size_t>(i)]); }
  /// The value of input i, null if absent. Throws Error unless the op declared that it reads it.
  const T* in(int i) const { return kept<T>(call_.inputs, i, "input"); }
  /// That of an integer argument.
  const std::int32_t* indices(int i) const { return kept<std::int32_t>(call_.inputs, i, "input"); }
  /// The shape of input i.
  const Shape& shape(int i) const { return call_.inputs[static_cast<std::size_t>(i)].shape(); }
  /// The value of output k. Throws as in() does.
  const T* out(int k = 0) const { return kept<T>(call_.outputs, k, "output"); }
  /// That of an output with the shape integer(...).
  const std::int32_t* out_indices(int k = 0) const {
    return kept<std::int32_t>(call_.outputs, k, "output");
  }
  /// The shape of output k.
  const Shape& out_shape(int k = 0) const {
    return call_.outputs[static_cast<std::size_t>(k)].shape();
  }
  /// A hidden output for the kernel to overwrite in place, or null if another gradient of the tape
  /// may still read it.
  T* reusable(int k) const {
    const Tensor& output = call_.outputs[static_cast<std::size_t>(k)];
    return output.buffer().unique() ? static_cast<T*>(output.buffer().data()) : nullptr;
  }
  /// Makes a hidden output the gradient of input i, without a copy, and returns it for the kernel
  /// to change; null if another gradient of the tape may still read it, or that of i is not needed.
  T* hand_over(int k, int i) const {
    T* const values = grad(i) ? reusable(k) : nullptr;
    if (values)
      call_.gradients[static_cast<std::size_t>(i)] = call_.outputs[static_cast<std::size_t>(k)];
    return values;
  }
  /// The gradient of output k, or null if none arrived (it is then zero), as for integers.
  const T* g(int k = 0) const {
    const Tensor& seed = call_.seeds[static_cast<std::size_t>(k)];
    return seed.defined() ? seed.values<T>().data() : nullptr;
  }
  /// Where to write (not accumulate) the gradient of input i, or null if it is not needed.
  T* grad(int i) const {
    const Tensor& gradient = call_.gradients[static_cast<std::size_t>(i)];
    return gradient.defined() ? static_cast<T*>(gradient.buffer().data()) : nullptr;
  }

 private:
  // What is given has a slot on the tape, whether or not its value is kept.
  static bool is_given(const Tensor& t) { return t.defined() || t.trace().slot >= 0; }
  template <Element U>
  static const U* kept(std::span<const Tensor> tensors, int i, const char* what) {
    const Tensor& t = tensors[static_cast<std::size_t>(i)];
    if (!is_given(t)) return nullptr;
    if (!t.defined()) throw_not_kept(what, i);
    return t.values<U>().data();
  }
  const BackwardCall& call_;
};

/// Which values a gradient reads; the tape releases all others.
struct Keeps {
  std::uint32_t inputs = 0, outputs = 0;

  /// Input i alone.
  static constexpr Keeps input(int i) { return {1u << i, 0}; }
  /// Output k alone.
  static constexpr Keeps output(int k) { return {0, 1u << k}; }
  constexpr Keeps operator|(Keeps other) const {
    return {inputs | other.inputs, outputs | other.outputs};
  }
};
inline constexpr Keeps keeps_nothing{};
inline constexpr Keeps keeps_inputs{~0u, 0};
inline constexpr Keeps keeps_output{0, ~0u};
inline constexpr Keeps keeps_all{~0u, ~0u};

/// A gradient rule's view of one record: its inputs, outputs and the gradients of the outputs.
///
/// Everything it returns may be used in ops; while a graph of the gradient is being built those ops
/// are recorded, so derivatives of every order exist.
class Vjp {
 public:
  /// Of a record of the tape, by its number.
  Vjp(Backward& backward, std::size_t record);

  /// Whether an optional argument was given.
  bool has(int i) const { return slot(i) >= 0; }
  /// The value of input i, undefined if absent. Throws Error unless the rule declared that it reads
  /// it.
  Tensor in(int i = 0) const;
  /// The value of output k. Throws as in() does.
  Tensor out(int k = 0) const;
  /// The gradient of the output, or of output k: zeros where none arrived.
  const Tensor& g() const { return g_; }
  Tensor g(int k) const;
  /// The shape of input i, also of one that is not kept; [] for an absent one.
  Shape shape(int i = 0) const;
  int count() const { return input_count_; }
  /// Whether the gradient of input i is needed.
  bool needs(int i) const;

  /// Adds `f()` to the gradient of input i, if that is needed. Axes along which the input was
  /// broadcast are summed here, not in the rule.
  template <class F>
  void add(int i, F&& f) {
    if (needs(i)) accumulate(i, f());
  }
  /// Adds leftᵀ · right, with left [N, P] and right [N, Q], to the gradient of input i, if that is
  /// needed. Products for one parameter, such as those of the steps of a loop, are collected and
  /// computed as one.
  void add_product(int i, const Tensor& left, const Tensor& right);
  /// Adds `part` to the elements begin, begin + step, ... along an axis of the gradient of input i,
  /// if that is needed: the same as adding pad(part, ...), without the zeros.
  void add_slice(int i, const Tensor& part, int axis, Index begin, Index step = 1);
  /// Adds the rows of `source` [..., C] to those rows of the gradient [R, C] of input i that `rows`
  /// names, if that is needed: the same as adding scatter_add_rows(source, rows, R). To a parameter
  /// to which nothing else is added the gradient stays one by rows (RowGradient).
  void add_rows(int i, const Tensor& source, const Tensor& rows);

 private:
  std::int32_t slot(int i) const;
  void accumulate(int i, Tensor contribution);

  Backward& backward_;
  const OpSpec& op_;
  std::int32_t first_input_, input_count_, first_output_;
  Tensor g_;
};

/// A type-erased op: what the registry lists, the tape records and the tests loop over. Made from a
/// `Definition`.
struct OpSpec {
  /// An argument, as a definition names it.
  struct Argument {
    std::string_view name;
    bool integer = false;
    bool optional = false;
  };
  enum class Derivative { rule, fused, none };
  /// A sample call: how its inputs are drawn, and its attributes.
  struct Sample {
    std::vector<Generator> inputs;
    alignas(8) std::array<std::byte, max_attr_size> attr{};
  };
  using Forward = void (*)(const KernelCall&);
  using FusedBackward = void (*)(const BackwardCall&);

  std::string_view name;
  std::string_view function;  ///< see called()
  Site site{nullptr, 0};      ///< of the definition
  std::vector<Argument> arguments;
  bool variadic = false;        ///< the last argument stands for any number of inputs
  bool takes_integers = false;  ///< whether an argument must be i32
  int hidden_outputs = 0;       ///< trailing outputs that only the backward pass reads
  bool shares_input = false;    ///< no kernel: see SharedInput
  std::size_t attr_size = 0;

  Shapes (*shape)(const Arguments&, const void* attr) = nullptr;
  std::array<Forward, 3> forward{};  ///< by dtype; null if not supported

  Derivative derivative = Derivative::none;
  Keeps keeps;
  std::string_view why_none;
  void (*rule)(Vjp&, const void* attr) = nullptr;
  std::array<FusedBackward, 2> backward{};
  Tensors (*specification)(std::span<const Tensor>, const void* attr) = nullptr;

  std::vector<Sample> samples;

  /// What errors call the op: by the name of the function that calls it.
  std::string_view called() const { return function.empty() ? name : function; }
  /// The argument that input i of a call stands for.
  const Argument& argument(int i) const {
    return arguments[std::min(static_cast<std::size_t>(i), arguments.size() - 1)];
  }
};

/// The ops that are currently defined, sorted by name: all of the library's, and those of the
/// program. An op at namespace scope is registered before main.
std::vector<const OpSpec*> registry();
/// Those of them whose object files are linked even without a call of `registry()`: from a static
/// library the linker takes only files that something refers to.
std::vector<const OpSpec*> linked_ops();

/// Runs an op: checks the arguments, calls the kernel and, where a current tape watches one of the
/// inputs, records. Returns all outputs except hidden ones.
/// Throws ShapeError, DTypeError or StaleTensorError, naming op, arguments and call.
Tensors run(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr, Site site);
/// The same for an op with one output.
Tensor run_single(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr,
                  Site site);

/// Thread-safe. Throws ValueError if the name is taken.
void register_op(const OpSpec& spec);
void unregister_op(const OpSpec& spec);

}  // namespace reel::op
