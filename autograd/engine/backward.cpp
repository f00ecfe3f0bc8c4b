#include <reel/autograd/engine/backward.h>

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include <reel/autograd/engine/inspect.h>
#include <reel/autograd/engine/packed_factors.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/thread_pool.h>
#include <reel/autograd/ops.h>

namespace reel {
using namespace op;

// A pass releases values and gradients as it goes, so that another one, from a hook, would find
// only some of them: only passes that keep everything can be nested.
Backward::Backward(Tape& tape, const GradientOptions& options, Site site)
    : tape_(tape),
      options_(options),
      site_(site),
      outer_(tape.pass_),
      marks_(tape.slots_.size(), unneeded) {
  if (outer_ && !(outer_->keeps() && keeps()))
    throw GradientError(
        "gradient: a backward pass over this tape is running; a hook takes another gradient of the "
        "tape only where both have {.keep = true}",
        site);
  tape_.pass_ = this;
}

Backward::~Backward() { tape_.pass_ = outer_; }

void Backward::want(const Params& params) {
  for (const Tape::Leaf& leaf : tape_.leaves_)
    if (params.contains(*leaf.entry)) want(leaf.slot);
  by_rows_ = true;
}

// Hooks may have added parameters, which were not requested.
Gradients Backward::result(const Params& params) {
  Gradients gradients(params);
  for (const Tape::Leaf& leaf : tape_.leaves_) {
    const auto slot = static_cast<std::size_t>(leaf.slot);
    if (slot >= marks_.size() || (marks_[slot] & wanted) == 0) continue;
    if (const auto parts = row_parts_of(leaf.slot); parts != row_parts_.end())
      gradients.set(*leaf.entry, std::move(parts->sum));
    else if (Tensor found = gradient(leaf.slot); found.defined())
      gradients.set(*leaf.entry, std::move(found));
  }
  return gradients;
}

void Backward::run(std::int32_t output) {
  const Tape::Slot& y = tape_.slots_[static_cast<std::size_t>(output)];
  const Tensor& seed = options_.seed;
  if (!seed.defined() && y.shape.size() != 1)
    throw GradientError(
        fmt::format(
            "gradient: the output has shape {}, not a single number; reduce it with sum() or "
            "mean(), or pass a seed of that shape",
            y.shape.str()),
        site_);
  if (seed.defined() && (seed.shape() != y.shape || seed.dtype() != y.dtype))
    throw ShapeError(
        fmt::format("gradient: the seed is {} {}, but the output is {} {}", name_of(seed.dtype()),
                    seed.shape().str(), name_of(y.dtype), y.shape.str()),
        site_);
  const Tensor start = seed.defined() ? seed : ones(y.shape, y.dtype);
  run(std::span(&output, 1), std::span(&start, 1));
}

void Backward::run(std::span<const std::int32_t> outputs, std::span<const Tensor> seeds) {
  propagate(outputs, seeds);
  complete();
}

// Everything except what is due when a parameter's gradient has all its contributions.
void Backward::propagate(std::span<const std::int32_t> outputs, std::span<const Tensor> seeds) {
  const TapeScope scope(options_.create_graph ? &tape_ : nullptr);
  const kernels::FlushSubnormals flush;
  for (const Tape::Hook& hook : tape_.hooks_) mark(static_cast<std::size_t>(hook.slot), needed);
  for (const Tape::Leaf& leaf : tape_.leaves_)
    if (is_needed(leaf.slot)) mark(static_cast<std::size_t>(leaf.slot), parameter);
  gradients_.grow_to(tape_.slots_.size());
  mark_from(0);
  if (later_) take_over();
  for (std::size_t k = 0; k < outputs.size(); ++k)
    if (seeds[k].defined()) start(outputs[k], seeds[k]);
  pass(0);
  apply_hooks_of_leaves(false);
}

void Backward::complete() {
  const TapeScope scope(options_.create_graph ? &tape_ : nullptr);
  const kernels::FlushSubnormals flush;
  for (Products& products : products_)
    guarded([&] { add_sum(products); }, [] { return std::string("in a sum of products"); });
  apply_hooks_of_leaves(true);
  for (RowParts& parts : row_parts_)
    guarded([&] { add_sum(parts); }, [] { return std::string("in a sum of rows"); });
}

// The hooks of values without a record.
void Backward::apply_hooks_of_leaves(bool parameters) {
  for (const Tape::Hook& hook : tape_.hooks_)
    if (parameters || (marks_[static_cast<std::size_t>(hook.slot)] & parameter) == 0)
      guarded([&] { apply_hooks(hook.slot); }, [] { return std::string("in a hook"); });
}

void Backward::start(std::int32_t output, const Tensor& seed) {
  if (!is_needed(output)) return;
  if (marks_of(output) & blocked) throw_blocked(output);
  accumulate(output, seed);
}

// Walks back from a blocked slot to the op that blocks it.
void Backward::throw_blocked(std::int32_t slot) const {
  for (std::size_t r = tape_.records_.size(); r-- > 0;) {
    const Tape::Record& record = tape_.records_[r];
    if (!record.makes(slot)) continue;
    if (record.op->derivative == OpSpec::Derivative::none)
      throw GradientError(fmt::format("gradient: {} has no gradient: {} (recorded at {})",
                                      record.op->called(), record.op->why_none, where(record)));
    for (int i = 0; i < record.input_count; ++i) {
      const std::int32_t from = tape_.input_slot(record, i);
      if (marks_of(from) & blocked) slot = from;
    }
  }
}

// A slot's gradient is needed if a wanted slot can be reached from it, and blocked if an op without
// a gradient lies in between. One forward sweep determines both.
void Backward::mark_from(std::size_t first_record) {
  marks_.resize(tape_.slots_.size(), unneeded);
  for (std::size_t r = first_record; r < tape_.records_.size(); ++r) {
    const Tape::Record& record = tape_.records_[r];
    unsigned marks = unneeded;
    for (int i = 0; i < record.input_count; ++i) marks |= marks_of(tape_.input_slot(record, i));
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
  const PackedFactors packed;
  for (std::size_t r = tape_.records_.size(); r-- > first_record;) step(r);
}

void Backward::step(std::size_t r) {
  const Tape::Record& record = tape_.records_[r];
  if (is_reached(record)) {
    guarded([&] { serve(r); },
            [&] {
              return fmt::format("in the gradient of {} recorded at {}", record.op->called(),
                                 where(record));
            });
  }
  release(record);
}

bool Backward::is_reached(const Tape::Record& record) const {
  bool reached = false;
  for (int k = 0; k < record.output_count; ++k)
    reached |=
        static_cast<bool>(gradients_[static_cast<std::size_t>(record.first_output + k)].buffer);
  return reached;
}

bool Backward::needs_inputs(const Tape::Record& record) const {
  bool needed_any = false;
  for (int i = 0; i < record.input_count; ++i) needed_any |= is_needed(tape_.input_slot(record, i));
  return needed_any;
}

const void* Backward::attributes(const Tape::Record& record) const {
  static constexpr NoAttr none;
  if (record.op->attr_size == 0) return &none;
  return &tape_.attributes_[static_cast<std::size_t>(record.attr)];
}

// The place of a record's call, with module and time step.
std::string Backward::where(const Tape::Record& record) const {
  const PlaceScope place(tape_.place_of(record));
  return record.site().str();
}

// Calls f, and adds the place to the exception that it throws.
template <class F, class Where>
void Backward::guarded(F f, Where where) {
  const auto message = [&](const char* what) {
    std::string text = fmt::format("{} ({})", what, where());
    abandon();
    return text;
  };
  try {
    f();
  } catch (const NotFiniteError& e) {
    throw NotFiniteError(message(e.what()));
  } catch (const MemoryError& e) {
    throw MemoryError(message(e.what()));
  } catch (const std::bad_alloc&) {
    throw MemoryError(message("there is not enough memory"));
  } catch (const std::exception& e) {
    throw GradientError(message(e.what()));
  } catch (...) {
    throw GradientError(message("something was thrown that is no std::exception"));
  }
}

// After an error some of the values are already released: the tape is unusable.
void Backward::abandon() {
  if (!keeps()) tape_.forget();
}

// Propagates the gradients of a record's outputs to its inputs.
void Backward::serve(std::size_t r) {
  const Tape::Record& record = tape_.records_[r];
  const OpSpec& op = *record.op;
  if (!tape_.hooks_.empty())
    for (int k = 0; k < record.output_count; ++k) apply_hooks(record.first_output + k);
  if (!needs_inputs(record)) return;

  const SiteScope site(record.site());
  const PlaceScope place(tape_.place_of(record));
  const bool timed = tape_.options_.profile;
  const auto begin = timed ? Profile::TimePoint::now() : Profile::TimePoint();
  if (op.derivative == OpSpec::Derivative::rule) {
    Vjp v(*this, r);
    op.rule(v, attributes(record));
  } else if (options_.create_graph) {
    apply_specification(record);
  } else {
    apply_fused(record);
  }
  if (timed)
    tape_.profile_.add(op.name, Profile::Pass::backward, current_place.module, record.step, begin,
                       0);
}

void Backward::apply_hooks(std::int32_t slot) {
  if (marks_[static_cast<std::size_t>(slot)] & hooked) return;
  mark(static_cast<std::size_t>(slot), hooked);
  // A hook that takes a gradient is not called within it: that would recurse endlessly.
  struct Running {
    explicit Running(bool& flag) : flag(flag) { flag = true; }
    ~Running() { flag = false; }
    bool& flag;
  };
  for (Tape::Hook& hook : tape_.hooks_) {  // nothing is added or removed during a pass
    if (hook.slot != slot || hook.running) continue;
    const Tensor g = gradient(slot);
    if (!g.defined()) return;
    const Tensor replaced = [&] {
      const kernels::CallersMode mode;
      const Running running(hook.running);
      return hook.function(g);
    }();
    if (!replaced.defined()) continue;
    if (replaced.shape() != g.shape() || replaced.dtype() != g.dtype())
      throw ShapeError(fmt::format("the hook's result is {} {}, but the gradient is {} {}",
                                   name_of(replaced.dtype()), replaced.shape().str(),
                                   name_of(g.dtype()), g.shape().str()));
    store(slot, replaced);
  }
}

// Everything that reads this record's outputs comes later on the tape, so it has been processed.
void Backward::release(const Tape::Record& record) {
  for (int k = 0; k < record.output_count; ++k) {
    const auto slot = static_cast<std::size_t>(record.first_output + k);
    if ((marks_[slot] & wanted) == 0) {
      if (Many* of = many(record.first_output + k)) of->earlier = {};
      gradients_[slot] = {};
    }
    if (!keeps()) tape_.slots_[slot].buffer = {};
  }
}

void Backward::apply_fused(const Tape::Record& record) {
  Tensors inputs, outputs, seeds, gradients;
  PoolVector<GradientProduct> products;
  for (int i = 0; i < record.input_count; ++i) {
    const std::int32_t slot = tape_.input_slot(record, i);
    const Tensor& input = inputs.emplace_back(tape_.handle(slot));
    gradients.push_back(is_needed(slot) ? Tensor(input.shape(), input.dtype()) : Tensor());
  }
  for (int k = 0; k < record.output_count; ++k) {
    outputs.push_back(tape_.handle(record.first_output + k));
    seeds.push_back(gradient(record.first_output + k));
    // Nothing else reads a hidden output of a tape that is used up: the kernel may overwrite it.
    if (k >= record.output_count - record.op->hidden_outputs && !options_.keep)
      tape_.slots_[static_cast<std::size_t>(record.first_output + k)].buffer = {};
  }
  // A gradient arrived, so one of the outputs is not an integer.
  const DType dtype = std::ranges::find_if(outputs, is_real, &Tensor::dtype)->dtype();
  record.op->backward[static_cast<std::size_t>(dtype)](
      {inputs, outputs, seeds, gradients, attributes(record), products});
  for (int i = 0; i < record.input_count; ++i)
    if (Tensor& g = gradients[static_cast<std::size_t>(i)]; g.defined())
      accumulate(tape_.input_slot(record, i), std::move(g));
  for (const GradientProduct& p : products)
    add_product(tape_.input_slot(record, p.input), p.left, p.right);
}

// Records the specification in place of the fused op, seeds it with the gradients of the op's
// outputs and backpropagates through the new records; the contributions arrive in the slots of the
// op's inputs.
void Backward::apply_specification(const Tape::Record& record) {
  Tensors inputs;
  for (int i = 0; i < record.input_count; ++i)
    inputs.push_back(tape_.handle(tape_.input_slot(record, i)));
  const std::size_t first = tape_.records_.size();
  const Tensors outputs = record.op->specification(inputs, attributes(record));
  mark_from(first);
  gradients_.grow_to(tape_.slots_.size());
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const Tensor g = gradient(record.first_output + static_cast<std::int32_t>(k));
    if (g.defined() && outputs[k].trace().generation != 0) start(outputs[k].trace().slot, g);
  }
  const std::size_t last = tape_.records_.size();
  for (std::size_t r = last; r-- > first;) step(r);
}

void Backward::finish() {
  tape_.gave_gradient_ = true;
  if (!keeps()) tape_.use_up();
}

}  // namespace reel

namespace reel::op {

Vjp::Vjp(Backward& backward, std::size_t r)
    : backward_(backward),
      op_(*backward.tape_.records_[r].op),
      first_input_(backward.tape_.records_[r].first_input),
      input_count_(backward.tape_.records_[r].input_count),
      first_output_(backward.tape_.records_[r].first_output),
      g_(backward.take_gradient(first_output_)) {}

std::int32_t Vjp::slot(int i) const {
  return backward_.tape_.input_slots_[static_cast<std::size_t>(first_input_ + i)];
}

Tensor Vjp::in(int i) const {
  if ((op_.keeps.inputs >> std::min(i, 31) & 1) == 0) throw_not_kept("input", i);
  return backward_.tape_.handle(slot(i));
}

Tensor Vjp::out(int k) const {
  if ((op_.keeps.outputs >> k & 1) == 0) throw_not_kept("output", k);
  return backward_.tape_.handle(first_output_ + k);
}

Tensor Vjp::g(int k) const {
  if (k == 0) return g_;
  const Tensor g = backward_.gradient(first_output_ + k);
  return g.defined() ? g : zeros(g.shape(), g.dtype());
}

Shape Vjp::shape(int i) const {
  if (!has(i)) return {};
  return backward_.tape_.slots_[static_cast<std::size_t>(slot(i))].shape;
}

bool Vjp::needs(int i) const { return backward_.is_needed(slot(i)); }

void Vjp::add_slice(int i, const Tensor& part, int axis, Index begin, Index step) {
  if (!needs(i) || backward_.add_part(slot(i), part, axis, begin, step)) return;
  const Index count = part.shape()[axis];
  const Index after = shape(i)[axis] - begin - (count == 0 ? 0 : (count - 1) * step + 1);
  accumulate(i, pad(part, axis, begin, after, step));
}

void Vjp::add_product(int i, const Tensor& left, const Tensor& right) {
  if (needs(i)) backward_.add_product(slot(i), left, right);
}

void Vjp::add_rows(int i, const Tensor& source, const Tensor& rows) {
  if (needs(i)) backward_.add_rows(slot(i), source, rows);
}

void Vjp::accumulate(int i, Tensor contribution) {
  backward_.accumulate(slot(i), std::move(contribution));
}

}  // namespace reel::op
