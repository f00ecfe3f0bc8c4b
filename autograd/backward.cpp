#include <reel/autograd/backward.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include <reel/autograd/ops.h>

namespace reel {
namespace {

template <class T>
void add_in_place(Buffer& sum, const Tensor& term) {
  const std::span<const T> from = term.values<T>();
  std::transform(from.begin(), from.end(), static_cast<const T*>(sum.data()),
                 static_cast<T*>(sum.data()), std::plus{});
}

std::string recorded_at(std::string_view op, const char* file, int line) {
  return fmt::format("in the gradient of {} recorded at {}", op, Site(file, line).str());
}

}  // namespace

Backward::Backward(Tape& tape, const GradientOptions& options)
    : tape_(tape), options_(options), marks_(tape.slots_.size(), unneeded) {}

void Backward::run(std::int32_t output) {
  const Tape::Slot& y = tape_.slots_[static_cast<std::size_t>(output)];
  const Tensor& seed = options_.seed;
  if (!seed.defined() && y.shape.size() != 1)
    throw GradientError(fmt::format(
        "gradient: the output has shape {}, not a single number; reduce it with sum() or "
        "mean(), or pass a seed of that shape",
        y.shape.str()));
  if (seed.defined() && (seed.shape() != y.shape || seed.dtype() != y.dtype))
    throw ShapeError(fmt::format("gradient: the seed is {} {}, but the output is {} {}",
                                 name_of(seed.dtype()), seed.shape().str(), name_of(y.dtype),
                                 y.shape.str()));
  const TapeScope scope(options_.create_graph ? &tape_ : nullptr);
  gradients_.resize(tape_.slots_.size());
  mark_from(0);
  start(output, seed.defined() ? seed : ones(y.shape, y.dtype));
  pass(0);
}

void Backward::start(std::int32_t output, const Tensor& seed) {
  if (!is_needed(output)) return;
  if (marks_[static_cast<std::size_t>(output)] & blocked) throw_blocked(output);
  accumulate(output, seed);
}

// Walks from a blocked slot back to the op that blocks it.
void Backward::throw_blocked(std::int32_t slot) const {
  for (std::size_t r = tape_.records_.size(); r-- > 0;) {
    const Tape::Record& record = tape_.records_[r];
    if (slot < record.first_output || slot >= record.first_output + record.output_count) continue;
    if (record.op->derivative == OpSpec::Derivative::none)
      throw GradientError(fmt::format("gradient: {} has no gradient: {} (recorded at {})",
                                      record.op->name, record.op->why_none,
                                      Site(record.file, record.line).str()));
    for (int i = 0; i < record.input_count; ++i)
      if (marks_[static_cast<std::size_t>(input(record, i))] & blocked) slot = input(record, i);
  }
}

// A slot's gradient is needed if a wanted slot can be reached from it, and blocked if an op without
// gradient lies between: one sweep forward.
void Backward::mark_from(std::size_t first_record) {
  marks_.resize(tape_.slots_.size(), unneeded);
  for (std::size_t r = first_record; r < tape_.records_.size(); ++r) {
    const Tape::Record& record = tape_.records_[r];
    unsigned marks = unneeded;
    for (int i = 0; i < record.input_count; ++i)
      marks |= marks_[static_cast<std::size_t>(input(record, i))];
    if (marks == unneeded) continue;
    marks = needed | (marks & blocked);
    if (record.op->derivative == OpSpec::Derivative::none) marks |= blocked;
    for (int k = 0; k < record.output_count; ++k) {
      const auto slot = static_cast<std::size_t>(record.first_output + k);
      if (tape_.slots_[slot].differentiable) mark(slot, marks);
    }
  }
}

void Backward::pass(std::size_t first_record) {
  for (std::size_t r = tape_.records_.size(); r-- > first_record;) step(r);
}

void Backward::step(std::size_t r) {
  const Tape::Record record = tape_.records_[r];  // a copy: recording may move the records
  bool reached = false, useful = false;
  for (int k = 0; k < record.output_count; ++k)
    reached |=
        static_cast<bool>(gradients_[static_cast<std::size_t>(record.first_output + k)].buffer);
  for (int i = 0; reached && i < record.input_count; ++i) useful |= is_needed(input(record, i));
  if (useful) {
    alignas(8) std::byte attr[64];
    if (record.op->attr_size > 0)
      std::memcpy(attr, &tape_.attributes_[static_cast<std::size_t>(record.attr)],
                  record.op->attr_size);
    const OpSpec& op = *record.op;
    try {
      const SiteScope scope(Site(record.file, record.line));
      if (op.derivative == OpSpec::Derivative::rule) {
        Vjp v(*this, r);
        op.rule(v, attr);
      } else if (options_.create_graph) {
        apply_specification(record, attr);
      } else {
        apply_fused(record, attr);
      }
    } catch (const std::exception& e) {
      finish();  // half of the values are released: nothing on the tape is of use any more
      throw GradientError(
          fmt::format("{} ({})", e.what(), recorded_at(op.name, record.file, record.line)));
    }
  }
  release(record);
}

// Everything that read this record's outputs comes later on the tape, so it has been served.
void Backward::release(const Tape::Record& record) {
  for (int k = 0; k < record.output_count; ++k) {
    const auto slot = static_cast<std::size_t>(record.first_output + k);
    if ((marks_[slot] & wanted) == 0) gradients_[slot] = {};
    if (!options_.keep && !options_.create_graph) tape_.slots_[slot].buffer = {};
  }
}

void Backward::apply_fused(const Tape::Record& record, const void* attr) {
  Tensors inputs, outputs, seeds, wanted_gradients;
  for (int i = 0; i < record.input_count; ++i) {
    const std::int32_t slot = input(record, i);
    inputs.push_back(tape_.handle(slot));
    wanted_gradients.push_back(
        is_needed(slot) ? Tensor(inputs.back().shape(), inputs.back().dtype()) : Tensor());
  }
  for (int k = 0; k < record.output_count; ++k) {
    outputs.push_back(tape_.handle(record.first_output + k));
    seeds.push_back(gradient(record.first_output + k));
  }
  const DType dtype = outputs[0].dtype();
  record.op->backward[static_cast<std::size_t>(dtype)](
      {inputs, outputs, seeds, wanted_gradients, attr});
  for (int i = 0; i < record.input_count; ++i)
    if (Tensor& g = wanted_gradients[static_cast<std::size_t>(i)]; g.defined()) {
      const Tensor contribution = std::move(g);
      accumulate(input(record, i), contribution);
    }
}

// Records the specification in place of the fused op, hands it the gradients of the op's outputs
// and walks back over what it recorded; the contributions arrive in the slots of the op's inputs.
void Backward::apply_specification(const Tape::Record& record, const void* attr) {
  Tensors inputs;
  for (int i = 0; i < record.input_count; ++i) inputs.push_back(tape_.handle(input(record, i)));
  const std::size_t first = tape_.records_.size();
  const Tensors outputs = record.op->specification(inputs, attr);
  mark_from(first);
  gradients_.resize(tape_.slots_.size());
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const Tensor g = gradient(record.first_output + static_cast<std::int32_t>(k));
    if (g.defined() && outputs[k].trace().generation != 0) start(outputs[k].trace().slot, g);
  }
  const std::size_t last = tape_.records_.size();
  for (std::size_t r = last; r-- > first;) step(r);
}

Tensor Backward::gradient(std::int32_t slot) const {
  const Entry& entry = gradients_[static_cast<std::size_t>(slot)];
  const Tape::Slot& of = tape_.slots_[static_cast<std::size_t>(slot)];
  const Trace trace = entry.slot < 0 ? Trace{} : Trace{tape_.generation_, entry.slot};
  return Tensor(entry.buffer, of.shape, of.dtype, trace);
}

void Backward::accumulate(std::int32_t slot, const Tensor& contribution) {
  const Tape::Slot of = tape_.slots_[static_cast<std::size_t>(slot)];
  const Tensor term =
      contribution.shape() == of.shape ? contribution : sum_to(contribution, of.shape);
  if (term.dtype() != of.dtype)
    throw DTypeError(fmt::format("a gradient is {}, but the value is {}", name_of(term.dtype()),
                                 name_of(of.dtype)));
  Entry& entry = gradients_[static_cast<std::size_t>(slot)];
  const auto store = [&](const Tensor& sum) {
    const Trace& trace = sum.trace();
    gradients_[static_cast<std::size_t>(slot)] = {
        sum.buffer(), options_.create_graph && trace.generation != 0 ? trace.slot : -1};
  };
  if (!entry.buffer)
    store(term);
  else if (!options_.create_graph && entry.buffer.unique())
    dispatch_real(of.dtype, [&]<class T>() { add_in_place<T>(entry.buffer, term); });
  else
    store(add(gradient(slot), term));
}

void Backward::finish() {
  if (!options_.keep && !options_.create_graph) tape_.clear();
}

Tensor Vjp::in(int i) const {
  const Tape::Record& record = backward_.tape_.records_[record_];
  if ((record.op->keeps.inputs >> std::min(i, 31) & 1) == 0) throw_not_kept("input", i);
  return backward_.tape_.handle(backward_.input(record, i));
}

Tensor Vjp::out(int k) const {
  const Tape::Record& record = backward_.tape_.records_[record_];
  if ((record.op->keeps.outputs >> k & 1) == 0) throw_not_kept("output", k);
  return backward_.tape_.handle(record.first_output + k);
}

Tensor Vjp::g(int k) const {
  const std::int32_t slot = backward_.tape_.records_[record_].first_output + k;
  const Tensor gradient = backward_.gradient(slot);
  return gradient.defined() ? gradient : zeros(gradient.shape(), gradient.dtype());
}

Shape Vjp::shape(int i) const {
  const Tape::Record& record = backward_.tape_.records_[record_];
  return backward_.tape_.slots_[static_cast<std::size_t>(backward_.input(record, i))].shape;
}

int Vjp::count() const { return backward_.tape_.records_[record_].input_count; }

bool Vjp::needs(int i) const {
  return backward_.is_needed(backward_.input(backward_.tape_.records_[record_], i));
}

void Vjp::accumulate(int i, const Tensor& contribution) {
  backward_.accumulate(backward_.input(backward_.tape_.records_[record_], i), contribution);
}

}  // namespace reel
