#include <reel/autograd/tape.h>

#include <fmt/format.h>

#include <atomic>
#include <cstring>

#include <reel/autograd/engine/backward.h>
#include <reel/autograd/engine/scope.h>

namespace reel {
using namespace op;
namespace {

std::uint32_t next_generation() {
  static std::atomic<std::uint32_t> last{0};
  return ++last;
}

std::size_t hash(const ParamEntry* entry) {
  return (reinterpret_cast<std::uintptr_t>(entry) >> 4) * 0x9E3779B97F4A7C15;
}

}  // namespace

Tape::Tape(const TapeOptions& options)
    : options_(options), previous_(current_), generation_(next_generation()) {
  current_ = this;
}

Tape::~Tape() { current_ = previous_; }

void Tape::clear() {
  slots_.clear();
  records_.clear();
  input_slots_.clear();
  attributes_.clear();
  leaves_.clear();
  leaf_table_.clear();
  hooks_.clear();
  held_.clear();
  generation_ = next_generation();
}

Tensor Tape::watch(const Tensor& x) {
  if (!is_real(x.dtype()))
    throw DTypeError("Tape::watch: integers have no gradient; watch an f32 or f64 tensor");
  return handle(add_slot(x, true, true));
}

Tensor Tape::leaf(const std::shared_ptr<ParamEntry>& entry) {
  const auto place = [&](const ParamEntry* e) {
    std::size_t i = hash(e) & (leaf_table_.size() - 1);
    while (leaf_table_[i] >= 0 &&
           leaves_[static_cast<std::size_t>(leaf_table_[i])].entry.get() != e)
      i = (i + 1) & (leaf_table_.size() - 1);
    return i;
  };
  if (2 * (leaves_.size() + 1) > leaf_table_.size()) {
    leaf_table_.assign(std::max<std::size_t>(16, 2 * leaf_table_.size()), -1);
    for (std::size_t i = 0; i < leaves_.size(); ++i)
      leaf_table_[place(leaves_[i].entry.get())] = static_cast<std::int32_t>(i);
  }
  std::int32_t& found = leaf_table_[place(entry.get())];
  if (found < 0) {
    found = static_cast<std::int32_t>(leaves_.size());
    leaves_.push_back({entry, entry->version, add_slot(entry->value, true, true)});
  }
  const Leaf& leaf = leaves_[static_cast<std::size_t>(found)];
  if (leaf.version != entry->version)
    throw StaleTensorError(
        fmt::format("parameter {} was changed after this tape recorded a use of it; take the "
                    "gradient first, or start a new tape",
                    entry->name));
  return handle(leaf.slot);
}

std::vector<Param> Tape::parameters() const {
  std::vector<Param> params;
  for (const Leaf& leaf : leaves_) params.emplace_back(leaf.entry);
  return params;
}

std::int32_t Tape::add_slot(const Tensor& value, bool differentiable, bool keep) {
  slots_.push_back(
      {keep ? value.buffer() : Buffer(), value.shape(), value.dtype(), differentiable});
  return static_cast<std::int32_t>(slots_.size()) - 1;
}

std::int32_t Tape::module_id(std::string_view name) {
  if (name.empty()) return -1;
  const auto is_named = [&](std::int32_t id) {
    return id >= 0 && modules_[static_cast<std::size_t>(id)] == name;
  };
  const std::int32_t last = records_.empty() ? -1 : records_.back().module;
  if (is_named(last)) return last;
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(modules_.size()); ++id)
    if (is_named(id)) return id;
  modules_.emplace_back(name);
  return static_cast<std::int32_t>(modules_.size()) - 1;
}

void Tape::on_gradient(const Tensor& x, GradientHook hook) {
  hooks_.push_back({require(x, "on_gradient", "the tensor").slot, std::move(hook)});
}

std::int32_t Tape::slot_of(const Tensor& input, bool keep) {
  if (input.trace().generation != generation_) return add_slot(input, false, keep);
  Slot& slot = slots_[static_cast<std::size_t>(input.trace().slot)];
  if (keep && !slot.buffer) slot.buffer = input.buffer();
  return input.trace().slot;
}

Tensor Tape::handle(std::int32_t slot) const {
  const Slot& s = slots_[static_cast<std::size_t>(slot)];
  return Tensor(s.buffer, s.shape, s.dtype, {generation_, slot});
}

bool Tape::watches(const OpSpec& op, std::span<const Tensor* const> inputs, Site site) const {
  bool watched = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Trace& trace = inputs[i]->trace();
    if (trace.generation == 0) continue;
    if (trace.generation != generation_)
      throw StaleTensorError(fmt::format(
          "{}: {} was recorded on another tape or before this one was used up; detach() "
          "carries its value across windows ({})",
          op.name, op.argument(static_cast<int>(i)).name, site.str()));
    watched |= slots_[static_cast<std::size_t>(trace.slot)].differentiable;
  }
  return watched;
}

void Tape::record(const OpSpec& op, std::span<const Tensor* const> inputs,
                  std::span<Tensor> outputs, const void* attr, Site site) {
  const auto kept = [](std::uint32_t mask, std::size_t i) {
    return mask >> std::min<std::size_t>(i, 31) & 1;
  };
  if (options_.check_finite) check_finite(op, inputs, outputs, site);
  Record record{&op,
                site.file,
                site.line,
                static_cast<std::int32_t>(input_slots_.size()),
                static_cast<std::int32_t>(inputs.size()),
                0,  // first_output, below
                static_cast<std::int32_t>(outputs.size()),
                0,
                module_id(current_place.module),
                current_place.step};
  for (std::size_t i = 0; i < inputs.size(); ++i)
    input_slots_.push_back(slot_of(*inputs[i], kept(op.keeps.inputs, i)));
  if (op.attr_size > 0) {
    std::array<std::uint64_t, 8> words{};
    std::memcpy(words.data(), attr, op.attr_size);
    record.attr =
        static_cast<std::int32_t>(attributes_.append_run(words.data(), (op.attr_size + 7) / 8));
  }
  record.first_output = static_cast<std::int32_t>(slots_.size());
  records_.push_back(record);
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    Tensor& out = outputs[k];
    const std::int32_t slot = add_slot(out, is_real(out.dtype()), kept(op.keeps.outputs, k));
    out.set_trace({generation_, slot});
  }
}

Trace Tape::require(const Tensor& x, const char* call, const char* what) const {
  if (x.defined() && !is_real(x.dtype()))
    throw GradientError(fmt::format("{}: {} is i32, and integers have no gradient", call, what));
  if (x.trace().generation == 0)
    throw GradientError(fmt::format(
        "{}: {} was not recorded on this tape; watch() the inputs that it depends on, or use "
        "parameters, while the tape is current",
        call, what));
  if (x.trace().generation != generation_)
    throw StaleTensorError(
        fmt::format("{}: {} was recorded on another tape, or this tape was used up by an earlier "
                    "gradient; pass {{.keep = true}} to take several",
                    call, what));
  return x.trace();
}

void Tape::check_parameters() const {
  for (const Leaf& leaf : leaves_)
    if (leaf.version != leaf.entry->version)
      throw StaleTensorError(fmt::format(
          "gradient: parameter {} was changed between forward and backward; take the gradient "
          "before the optimizer's step",
          leaf.entry->name));
}

Gradients Tape::gradient(const Tensor& loss, const Params& params, const GradientOptions& options) {
  const Trace y = require(loss, "gradient", "the loss");
  check_parameters();
  Backward backward(*this, options);
  for (const Leaf& leaf : leaves_)
    if (params.contains(*leaf.entry)) backward.want(leaf.slot);
  backward.run(y.slot);

  Gradients gradients(params);
  for (const Leaf& leaf : leaves_)
    if (params.contains(*leaf.entry))
      if (Tensor gradient = backward.result(leaf.slot); gradient.defined())
        gradients.set(*leaf.entry, std::move(gradient));
  backward.finish();
  return gradients;
}

std::vector<Tensor> Tape::gradient(const Tensor& y, std::span<const Tensor> inputs,
                                   const GradientOptions& options) {
  const Trace output = require(y, "gradient", "the output");
  for (const Tensor& x : inputs) require(x, "gradient", "an input");
  check_parameters();
  Backward backward(*this, options);
  for (const Tensor& x : inputs) backward.want(x.trace().slot);
  backward.run(output.slot);

  std::vector<Tensor> gradients;
  for (const Tensor& x : inputs) {
    Tensor gradient = backward.result(x.trace().slot);
    gradients.push_back(gradient.defined() ? gradient : zeros(x.shape(), x.dtype()));
  }
  backward.finish();
  return gradients;
}

}  // namespace reel
