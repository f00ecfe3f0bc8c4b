#include <reel/autograd/engine/op.h>

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <utility>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/tape.h>

namespace reel::op {
namespace {

struct Registry {
  std::mutex mutex;
  std::vector<const OpSpec*> ops;  // by name
};

// Created by the first op, and so destroyed after the last.
Registry& the_registry() {
  static Registry instance;
  return instance;
}

}  // namespace

std::vector<const OpSpec*> linked_ops() {
  const std::lock_guard lock(the_registry().mutex);
  return the_registry().ops;
}

void register_op(const OpSpec& spec) {
  const std::lock_guard lock(the_registry().mutex);
  auto& ops = the_registry().ops;
  const auto place = std::ranges::lower_bound(ops, spec.name, {}, &OpSpec::name);
  if (place != ops.end() && (*place)->name == spec.name)
    throw ValueError(fmt::format("{}: there is an op of this name already, defined at {}",
                                 spec.name, (*place)->site.place()),
                     spec.site);
  ops.insert(place, &spec);
}

void unregister_op(const OpSpec& spec) {
  const std::lock_guard lock(the_registry().mutex);
  std::erase(the_registry().ops, &spec);
}

std::string_view Arguments::name(int i) const { return op_.argument(i).name; }

std::string Arguments::message(std::string_view why) const {
  std::string text = fmt::format("{}: {}", op_.called(), why);
  const char* separator = "; ";
  for (int i = 0; i < count(); ++i) {
    if (!has(i)) continue;
    const std::string_view name = op_.argument(i).name;
    const bool repeated = op_.variadic && i + 1 >= static_cast<int>(op_.arguments.size());
    text += fmt::format(
        "{}{}{} is {} {}", std::exchange(separator, ", "), name,
        repeated ? fmt::format("[{}]", i + 1 - static_cast<int>(op_.arguments.size())) : "",
        name_of(dtype(i)), (*this)[i].str());
  }
  return text;
}

void throw_not_kept(std::string_view what, int i) {
  throw Error(
      fmt::format("the gradient reads {} {}, which the op does not declare to keep", what, i));
}

void Shapes::throw_too_many(std::size_t count) {
  throw ValueError(fmt::format("an op has at most {} outputs, not {}", max_outputs, count));
}

namespace {

void check_count(const OpSpec& op, std::size_t given, Site site) {
  const std::size_t expected = op.arguments.size();
  if (op.variadic ? given >= expected : given == expected) return;
  throw ValueError(fmt::format("{}: takes {}{} arguments, not {}", op.called(),
                               op.variadic ? "at least " : "", expected, given),
                   site);
}

// Whether this is the common case: the right number of defined tensors of one dtype, none of which
// must be an integer.
bool are_alike(const OpSpec& op, std::span<const Tensor* const> inputs) {
  if (op.takes_integers || op.variadic || inputs.empty() || inputs.size() != op.arguments.size())
    return false;
  const DType dtype = inputs[0]->dtype();
  bool alike = op.forward[static_cast<std::size_t>(dtype)] != nullptr;
  for (const Tensor* x : inputs) alike &= x->defined() && x->dtype() == dtype;
  return alike;
}

// The common dtype of the floating-point arguments; it selects the kernel.
DType check_dtypes(const OpSpec& op, std::span<const Tensor* const> inputs, Site site) {
  if (are_alike(op, inputs)) return inputs[0]->dtype();
  if (!op.shape)
    throw Error(
        "an op was called before its definition was reached, by an object that "
        "is initialised earlier; put REEL_EARLY before the op",
        site);
  check_count(op, inputs.size(), site);
  const Arguments arguments(op, inputs, site);
  const Tensor* first = nullptr;
  for (int i = 0; i < arguments.count(); ++i) {
    const Tensor& x = *inputs[static_cast<std::size_t>(i)];
    const OpSpec::Argument& argument = op.argument(i);
    if (!x.defined() && argument.optional) continue;
    if (!x.defined())
      throw ValueError(fmt::format("{}: {} is undefined: it was never given a value", op.called(),
                                   argument.name),
                       site);
    if (argument.integer) {
      if (x.dtype() != i32)
        arguments.fail<DTypeError>(fmt::format("{} must be i32", argument.name));
    } else if (!first) {
      first = &x;
    } else if (x.dtype() != first->dtype()) {
      arguments.fail<DTypeError>("the arguments differ in dtype; convert one with to()");
    }
  }
  const DType dtype = first ? first->dtype() : i32;
  if (!op.forward[static_cast<std::size_t>(dtype)])
    arguments.fail<DTypeError>(fmt::format("it does not take {}", name_of(dtype)));
  return dtype;
}

// Rethrows what a kernel threw, with the op and the call added.
[[noreturn]] void rethrow_from_kernel(const OpSpec& op, Site site) {
  const auto message = [&](std::string_view what) {
    const bool is_named = what.starts_with(op.called());
    return fmt::format("{}{}", is_named ? "" : fmt::format("{}: ", op.called()), what);
  };
  try {
    throw;
  } catch (const MemoryError& e) {
    throw MemoryError(message(e.what()), site);
  } catch (const std::bad_alloc&) {
    throw MemoryError(message("there is not enough memory"), site);
  } catch (const ValueError& e) {
    throw ValueError(message(e.what()), site);
  } catch (const std::exception& e) {
    throw Error(message(e.what()), site);
  }
}

void run_kernel(const OpSpec& op, DType dtype, const KernelCall& call, Site site) {
  const kernels::FlushSubnormals flush;
  try {
    op.forward[static_cast<std::size_t>(dtype)](call);
  } catch (const std::exception&) {
    rethrow_from_kernel(op, site);
  }
}

// A call whose arguments have passed every check.
class Call {
 public:
  Call(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr, Site site)
      : op_(op),
        inputs_(inputs),
        attr_(attr),
        site_(SiteScope::resolve(site)),
        dtype_(check_dtypes(op, inputs, site_)),
        shapes_(op.shape(Arguments(op, inputs, site_), attr)),
        tape_(Tape::current()) {
    if (!tape_) return;
    const std::uint64_t generation = tape_->generation_of(op, inputs, site_);
    if (generation == tape_->generation()) return;
    tape_ = nullptr;
    used_up_ = generation;
  }

  int visible() const { return shapes_.count() - op_.hidden_outputs; }
  // How many outputs the kernel computes: hidden ones only for a tape.
  int made() const { return tape_ ? shapes_.count() : visible(); }
  Tensor new_output(int k) const {
    if (op_.shares_input) return Tensor(inputs_[0]->buffer(), shapes_[k], dtype_);
    try {
      return Tensor(shapes_[k], shapes_.is_integer(k) ? i32 : dtype_);
    } catch (const MemoryError& e) {
      throw_no_memory(e);
    }
  }

  void run(std::span<Tensor> outputs) const {
    const bool timed = tape_ && tape_->options().profile;
    const auto begin = timed ? Profile::TimePoint::now() : Profile::TimePoint();
    const KernelCall call{inputs_, outputs, attr_, tape_ != nullptr};
    run_kernel(op_, dtype_, call, site_);
    if (timed) tape_->add_to_profile(op_, outputs, begin);
    if (tape_) tape_->record(op_, inputs_, outputs, attr_, site_);
    if (used_up_ != 0)
      for (Tensor& y : outputs) y.set_trace({used_up_, -1});
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] void throw_no_memory(const MemoryError& e) const {
    Arguments(op_, inputs_, site_).fail<MemoryError>(e.what());
  }

  const OpSpec& op_;
  std::span<const Tensor* const> inputs_;
  const void* attr_;
  Site site_;
  DType dtype_;
  Shapes shapes_;
  Tape* tape_;                 // null if nothing is to be recorded
  std::uint64_t used_up_ = 0;  // the generation of inputs from before the tape was used up
};

Tensors run(const Call& call) {
  Tensors outputs;
  outputs.reserve(static_cast<std::size_t>(call.made()));
  for (int k = 0; k < call.made(); ++k) outputs.push_back(call.new_output(k));
  call.run(outputs);
  outputs.resize(static_cast<std::size_t>(call.visible()));
  return outputs;
}

}  // namespace

Tensors run(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr, Site site) {
  return run(Call(op, inputs, attr, site));
}

Tensor run_single(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr,
                  Site site) {
  const Call call(op, inputs, attr, site);
  if (call.made() > 1) return std::move(run(call).front());
  Tensor output = call.new_output(0);
  call.run({&output, 1});
  return output;
}

}  // namespace reel::op
