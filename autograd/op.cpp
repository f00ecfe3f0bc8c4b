#include <reel/autograd/op.h>

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/tape.h>

namespace reel {
namespace {

std::vector<const OpSpec*>& mutable_registry() {
  static std::vector<const OpSpec*> ops;
  return ops;
}

bool by_name(const OpSpec* a, const OpSpec* b) { return a->name < b->name; }

}  // namespace

std::span<const OpSpec* const> registry() { return mutable_registry(); }

void register_op(const OpSpec& spec) {
  auto& ops = mutable_registry();
  ops.insert(std::upper_bound(ops.begin(), ops.end(), &spec, by_name), &spec);
}

void unregister_op(const OpSpec& spec) { std::erase(mutable_registry(), &spec); }

std::string Arguments::message(std::string_view why) const {
  std::string text = fmt::format("{}: {}", op_.name, why);
  for (int i = 0; i < count(); ++i) {
    const std::string_view name = op_.argument(i).name;
    const bool repeated = op_.variadic && i + 1 >= static_cast<int>(op_.arguments.size());
    text += fmt::format(
        "{}{}{} is {} {}", i == 0 ? "; " : ", ", name,
        repeated ? fmt::format("[{}]", i + 1 - static_cast<int>(op_.arguments.size())) : "",
        name_of(dtype(i)), (*this)[i].str());
  }
  return text + fmt::format(" ({})", site_.str());
}

void throw_not_kept(std::string_view what, int i) {
  throw Error(
      fmt::format("the gradient reads {} {}, which the op does not declare to keep", what, i));
}

void Arguments::fail(std::string_view why) const { throw ShapeError(message(why)); }

namespace {

void check_count(const OpSpec& op, std::size_t given, Site site) {
  const std::size_t expected = op.arguments.size();
  if (op.variadic ? given >= expected : given == expected) return;
  throw ValueError(fmt::format("{}: takes {}{} arguments, not {} ({})", op.name,
                               op.variadic ? "at least " : "", expected, given, site.str()));
}

// The dtype that the real arguments share; it selects the kernel.
DType check_dtypes(const OpSpec& op, std::span<const Tensor* const> inputs, Site site) {
  const Arguments arguments(op, inputs, site);
  const Tensor* first = nullptr;
  for (int i = 0; i < arguments.count(); ++i) {
    const Tensor& x = *inputs[static_cast<std::size_t>(i)];
    const OpSpec::Argument& argument = op.argument(i);
    if (!x.defined())
      throw ValueError(fmt::format("{}: {} is undefined: it was never given a value ({})", op.name,
                                   argument.name, site.str()));
    if (argument.integer) {
      if (x.dtype() != i32)
        throw DTypeError(arguments.message(fmt::format("{} must be i32", argument.name)));
    } else if (!first) {
      first = &x;
    } else if (x.dtype() != first->dtype()) {
      throw DTypeError(arguments.message("the arguments differ in dtype; convert one with to()"));
    }
  }
  const DType dtype = first ? first->dtype() : i32;
  if (!op.forward[static_cast<std::size_t>(dtype)])
    throw DTypeError(arguments.message(fmt::format("it does not take {}", name_of(dtype))));
  return dtype;
}

// Runs the op and returns how many outputs the caller sees.
int execute(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr, Site site,
            std::array<Tensor, max_outputs>& outputs) {
  site = SiteScope::resolve(site);
  check_count(op, inputs.size(), site);
  const DType dtype = check_dtypes(op, inputs, site);
  const Shapes shapes = op.shape(Arguments(op, inputs, site), attr);
  Tape* tape = Tape::current();
  const bool recording = tape && tape->watches(op, inputs, site);

  const int visible = shapes.count - op.hidden_outputs;
  const int made = recording ? shapes.count : visible;
  for (int k = 0; k < made; ++k)
    outputs[static_cast<std::size_t>(k)] =
        Tensor(shapes.items[static_cast<std::size_t>(k)], op.integer_output ? i32 : dtype);
  const std::span<Tensor> all(outputs.data(), static_cast<std::size_t>(made));
  try {
    op.forward[static_cast<std::size_t>(dtype)]({inputs, all, attr, recording});
  } catch (const ValueError& e) {
    throw ValueError(fmt::format("{} ({})", e.what(), site.str()));
  }
  if (recording) tape->record(op, inputs, all, attr, site);
  return visible;
}

}  // namespace

Tensors run(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr, Site site) {
  std::array<Tensor, max_outputs> outputs;
  const int visible = execute(op, inputs, attr, site, outputs);
  return Tensors(std::make_move_iterator(outputs.begin()),
                 std::make_move_iterator(outputs.begin() + visible));
}

Tensor run_single(const OpSpec& op, std::span<const Tensor* const> inputs, const void* attr,
                  Site site) {
  std::array<Tensor, max_outputs> outputs;
  execute(op, inputs, attr, site, outputs);
  return std::move(outputs[0]);
}

}  // namespace reel
