#include <reel/autograd/tape.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include <reel/autograd/engine/backward.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/substitution.h>

namespace reel {
using namespace op;
namespace {

// Generations are allocated in runs of this many, so that a tape knows its earlier ones without a
// list: a thread uses the shared counter once per run, and 2^48 runs are never exhausted.
constexpr std::uint64_t run_length = 1 << 16;

std::uint64_t first_of_new_run() {
  static std::atomic<std::uint64_t> runs{0};
  return run_length * (1 + runs.fetch_add(1, std::memory_order_relaxed));  // 0 means not recorded
}

// Entry addresses are multiples of 16; the multiplication spreads the other bits (Fibonacci
// hashing).
std::size_t hash(const ParamEntry* entry) {
  return (reinterpret_cast<std::uintptr_t>(entry) >> 4) * 0x9E3779B97F4A7C15;
}

bool same_numbers(const Buffer& a, const Tensor& b) {
  const auto bytes = static_cast<std::size_t>(b.size()) * size_of(b.dtype());
  return bytes == 0 || std::memcmp(a.data(), b.buffer().data(), bytes) == 0;
}

}  // namespace

// ---- Lifetime: which tape is current, and its generation.

Tape::Tape(const TapeOptions& options)
    : options_(options),
      generation_(first_of_new_run()),
      used_up_generations_{generation(), generation()} {
  if (!options.paused) resume();
}

Tape::~Tape() = default;

void Tape::clear(Site site) {
  require_no_pass("clear", SiteScope::resolve(site));
  forget();
}

// Two ways to become empty. A tape that was cleared, also by an error, refuses what was recorded
// before; one that a gradient used up treats it as constant.
void Tape::forget() {
  drop_records();
  next_generation();
  used_up_generations_ = {generation(), generation()};
  earlier_.clear();
  used_up_ = gave_gradient_ = false;
}

void Tape::use_up() {
  drop_records();
  used_up_generations_.end = generation() + 1;
  next_generation();
  if (generation() != used_up_generations_.end) {  // a new run
    earlier_.push_back(used_up_generations_);
    used_up_generations_ = {generation(), generation()};
  }
  used_up_ = true;
}

// The names of modules stay: active scopes refer to them.
void Tape::drop_records() {
  slots_.clear();
  records_.clear();
  input_slots_.clear();
  attributes_.clear();
  leaves_.clear();
  leaf_table_.clear();
  hooks_.clear();
  held_.clear();
  copies_.clear();
}

void Tape::next_generation() {
  const std::uint64_t next = generation() + 1;
  generation_.store(next % run_length == 0 ? first_of_new_run() : next, std::memory_order_relaxed);
}

bool Tape::was_used_up(std::uint64_t generation) const {
  return used_up_generations_.contain(generation) ||
         std::ranges::any_of(earlier_, [&](const Generations& g) { return g.contain(generation); });
}

bool Tape::used_up(const Tensor& x) const { return was_used_up(x.trace().generation); }

// ---- Leaves: where differentiation ends.

Tensor Tape::watch(const Tensor& x, Site site) {
  if (!x.defined())
    throw ValueError("Tape::watch: the tensor is undefined: it was never given a value", site);
  if (!is_real(x.dtype()))
    throw DTypeError("Tape::watch: integers have no gradient; watch an f32 or f64 tensor", site);
  return handle(add_slot(x, true, true));
}

// A parameter becomes a leaf only once, however often it is used: a loop over time uses it in every
// step, so it is looked up by address in a hash table with open addressing, a power-of-two size and
// a load factor of at most one half. Each tape has its own table because a parameter may be on many
// tapes.
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
    leaves_.push_back({entry, entry->version, add_slot(entry->value, true, true)});
    found = static_cast<std::int32_t>(leaves_.size()) - 1;
  }
  const Leaf& leaf = leaves_[static_cast<std::size_t>(found)];
  if (leaf.version != entry->version)
    throw StaleTensorError(
        fmt::format("parameter {} was changed after this tape recorded a use of it; take the "
                    "gradient first, or start a new tape",
                    entry->name),
        SiteScope::current());
  return handle(leaf.slot);
}

// Defined here because the other functions of Param do not depend on tapes.
Tensor Param::tensor() const {
  if (const Tensor* other = Substitution::find(entry_.get())) return *other;
  Tape* tape = Tape::current();
  return tape ? tape->leaf(entry_) : entry_->value;
}

std::vector<Param> Tape::parameters() const {
  std::vector<Param> params;
  for (const Leaf& leaf : leaves_) params.emplace_back(leaf.entry);
  return params;
}

// ---- Slots and records. A slot outlives its tensor, so it stores shape and dtype, but the buffer
// only if a gradient reads it: that keeps the memory of a tape small.

std::int32_t Tape::add_slot(const Tensor& value, bool differentiable, bool keep) {
  const std::int32_t slot = checked_tape_index(slots_.size());
  slots_.push_back({keep ? kept(value) : Buffer(), value.shape(), value.dtype(), differentiable});
  return slot;
}

// What a backward pass reads: the numbers as they are now, also if the holder of a span from edit()
// writes to them later. What every step uses is copied once.
Buffer Tape::kept(const Tensor& x) {
  if (!x.buffer().exposed()) [[likely]]
    return x.buffer();
  constexpr std::ptrdiff_t most_looked_at = 16;
  const auto recent = copies_.end() - std::min(std::ssize(copies_), most_looked_at);
  const auto found = std::find_if(recent, copies_.end(), [&](const Copy& c) {
    return c.original == x.buffer().data() && c.copy.size() == x.size() &&
           c.copy.dtype() == x.dtype() && same_numbers(c.copy.buffer(), x);
  });
  if (found != copies_.end()) return found->copy.buffer();
  copies_.push_back({x.buffer().data(), x.copy()});
  return copies_.back().copy.buffer();
}

// Consecutive records mostly belong to one module, so the last one is checked first.
std::int32_t Tape::module_id(std::string_view name) {
  if (name.empty()) return -1;
  const auto is_named = [&](std::int32_t id) {
    return id >= 0 && modules_[static_cast<std::size_t>(id)] == name;
  };
  const std::int32_t last = records_.empty() ? -1 : records_.back().module;
  if (is_named(last)) return last;
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(modules_.size()); ++id)
    if (is_named(id)) return id;
  modules_.push_back(std::string(name));
  return static_cast<std::int32_t>(modules_.size()) - 1;
}

void Tape::on_gradient(const Tensor& x, GradientHook hook, Site site) {
  site = SiteScope::resolve(site);
  require_no_pass("on_gradient", site);
  const std::int32_t slot = require(x, "on_gradient", "the tensor", site).slot;
  if (!hook) throw ValueError("on_gradient: the hook is empty", site);
  hooks_.push_back({slot, std::move(hook)});
}

// A constant gets a slot for each use: it cannot store one, and most are used only once.
std::int32_t Tape::slot_of(const Tensor& input, bool keep) {
  if (input.trace().generation != generation()) return add_slot(input, false, keep);
  Slot& slot = slots_[static_cast<std::size_t>(input.trace().slot)];
  if (keep && !slot.buffer) slot.buffer = kept(input);
  return input.trace().slot;
}

Tensor Tape::handle(std::int32_t slot) const {
  if (slot < 0) return {};  // an absent input
  const Slot& s = slots_[static_cast<std::size_t>(slot)];
  return Tensor(s.buffer, s.shape, s.dtype, {generation(), slot});
}

// Results computed from values from before the tape was used up are marked as such too: a state
// that was not detached stays stale through any arithmetic, and is refused where it is first
// combined with a weight. Integers have no gradient, and are constants wherever they come from.
std::uint64_t Tape::generation_of(const OpSpec& op, std::span<const Tensor* const> inputs,
                                  Site site) const {
  const std::uint64_t now = generation();
  bool watched = false;
  std::uint64_t before = 0;
  std::size_t argument = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Trace trace = inputs[i]->trace();
    if (trace.generation == 0) continue;
    if (trace.generation == now) {
      watched |= slots_[static_cast<std::size_t>(trace.slot)].differentiable;
    } else if (is_real(inputs[i]->dtype())) {
      if (!was_used_up(trace.generation)) throw_stale(op, i, trace.generation, site);
      before = trace.generation;
      argument = i;
    }
  }
  if (watched && before != 0) throw_stale(op, argument, before, site);
  return watched ? now : before;
}

bool Tape::is_differentiable(const Tensor& x, const OpSpec& op, Site site) const {
  const Tensor* const inputs[] = {&x};
  const std::uint64_t generation = generation_of(op, inputs, site);
  if (generation != 0 && generation != this->generation()) throw_stale(op, 0, generation, site);
  return generation != 0;
}

// A record is one call as plain data. Its inputs are a run of input_slots_, its outputs consecutive
// slots, its attributes bytes that only the op can interpret: records have a fixed size, and
// iterating over a million of them reads memory sequentially. Everything is validated before
// anything is written.
void Tape::record(const OpSpec& op, std::span<const Tensor* const> inputs,
                  std::span<Tensor> outputs, const void* attr, Site site) {
  const auto kept = [](std::uint32_t mask, std::size_t i) {
    return mask >> std::min<std::size_t>(i, 31) & 1;
  };
  if (options_.check_finite) check_finite(op, inputs, outputs, site);
  require_room(op, inputs.size(), outputs.size(), site);
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
    input_slots_.push_back(inputs[i]->defined() ? slot_of(*inputs[i], kept(op.keeps.inputs, i))
                                                : -1);
  if (op.attr_size > 0) {
    std::array<std::uint64_t, op::max_attr_size / 8> words{};
    std::memcpy(words.data(), attr, op.attr_size);
    record.attr =
        static_cast<std::int32_t>(attributes_.append_run(words.data(), (op.attr_size + 7) / 8));
  }
  record.first_output = static_cast<std::int32_t>(slots_.size());
  records_.push_back(record);
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    Tensor& out = outputs[k];
    const std::int32_t slot = add_slot(out, is_real(out.dtype()), kept(op.keeps.outputs, k));
    out.set_trace({generation(), slot});
  }
}

// ---- Errors.

void Tape::require_room(const OpSpec& op, std::size_t inputs, std::size_t outputs,
                        Site site) const {
  const std::size_t most = std::max({slots_.size() + inputs + outputs, input_slots_.size() + inputs,
                                     attributes_.size() + 2 * attributes_.block_size});
  if (most <= max_tape_index) [[likely]]
    return;
  throw ValueError(fmt::format("{}: the tape is full, it holds no more than {} values; take "
                               "gradients of shorter windows",
                               op.called(), max_tape_index),
                   site);
}

// Describes what became of the tape on which a tensor of another generation was recorded.
std::string Tape::origin(std::uint64_t generation) const {
  using Where = detail::TapeMember::Where;
  std::string text =
      "was recorded on another tape or before this one was used up; detach() carries its value "
      "across windows";
  detail::TapeMember::each_alive([&](const Tape& tape) {
    if (tape.generation() != generation) return;
    const Where where = tape.member_.where();
    text = where == Where::this_thread
               ? "was recorded on a tape around this one, which is still alive; compute it there "
                 "(TapeScope), or take its value with detach() or watch()"
           : where == Where::paused
               ? "was recorded on a tape that is paused; resume() that one, or take its value with "
                 "detach() or watch()"
               : "was recorded on a tape of another thread; detach() takes its value over";
  });
  return text;
}

void Tape::throw_stale(const OpSpec& op, std::size_t argument, std::uint64_t generation,
                       Site site) const {
  throw StaleTensorError(
      fmt::format("{}: {} {}", op.called(), op.argument(static_cast<int>(argument)).name,
                  origin(generation)),
      site);
}

void Tape::require_no_pass(const char* call, Site site) const {
  if (pass_)
    throw GradientError(
        fmt::format("{}: a backward pass over this tape is running, and its hooks cannot change "
                    "the tape; do it "
                    "before or after",
                    call),
        site);
}

Trace Tape::require(const Tensor& x, const char* call, const char* what, Site site) const {
  const Trace trace = x.trace();
  if (!x.defined()) throw ValueError(fmt::format("{}: {} is undefined", call, what), site);
  if (!is_real(x.dtype()))
    throw GradientError(fmt::format("{}: {} is i32, and integers have no gradient", call, what),
                        site);
  if (trace.generation == 0)
    throw GradientError(
        fmt::format(
            "{}: {} was not recorded on this tape; watch() the inputs that it depends on, or use "
            "parameters, while the tape is current; detach() and to() give constants{}",
            call, what,
            gave_gradient_
                ? "; a gradient that is to be differentiated again is recorded only with "
                  "{.create_graph = true}"
                : ""),
        site);
  if (trace.generation == generation()) return trace;
  const std::string ended = origin(0), origin = this->origin(trace.generation);
  if (origin != ended) throw StaleTensorError(fmt::format("{}: {} {}", call, what, origin), site);
  throw StaleTensorError(fmt::format("{}: {} was recorded on another tape, or this tape was used "
                                     "up by an earlier gradient; pass "
                                     "{{.keep = true}} to take several{}",
                                     call, what,
                                     was_used_up(trace.generation)
                                         ? ", or {.create_graph = true} to differentiate one again"
                                         : ""),
                         site);
}

void Tape::check_parameters(Site site) const {
  for (const Leaf& leaf : leaves_) {
    const Buffer& used = slots_[static_cast<std::size_t>(leaf.slot)].buffer;
    if (leaf.version != leaf.entry->version ||
        (!used.shares(leaf.entry->value.buffer()) && !same_numbers(used, leaf.entry->value)))
      throw StaleTensorError(
          fmt::format(
              "gradient: parameter {} was changed between forward and backward; take the gradient "
              "before the optimizer's step",
              leaf.entry->name),
          site);
  }
}

// A gradient with respect to no parameters would have norm 0, and training would make no progress.
void Tape::require_used(const Params& params, Site site) const {
  for (const Leaf& leaf : leaves_)
    if (params.contains(*leaf.entry)) return;
  bool none = true, of_store = false;
  params.each([&](const auto&) { none = false; });
  for (const Leaf& leaf : leaves_) of_store |= params.store_contains(*leaf.entry);
  if (none) throw ValueError(fmt::format("gradient: {}", params.what_there_is()), site);
  if (of_store) return;
  throw ValueError(
      fmt::format(
          "gradient: none of these parameters was used on this tape, which has {}; is the model of "
          "another store?",
          leaves_.empty() ? "no parameters"
                          : fmt::format("parameter {} of another store", leaves_[0].entry->name)),
      site);
}

// ---- Gradients.

Gradients Tape::gradient(const Tensor& loss, const Params& params, const GradientOptions& options,
                         Site site) {
  site = SiteScope::resolve(site);
  const Trace y = require(loss, "gradient", "the loss", site);
  require_used(params, site);
  check_parameters(site);
  Backward backward(*this, options, site);
  backward.want(params);
  backward.run(y.slot);
  Gradients gradients = backward.result(params);
  backward.finish();
  return gradients;
}

std::vector<Tensor> Tape::gradient(const Tensor& y, std::span<const Tensor> inputs,
                                   const GradientOptions& options, Site site) {
  site = SiteScope::resolve(site);
  const Trace output = require(y, "gradient", "the output", site);
  for (const Tensor& x : inputs) require(x, "gradient", "an input", site);
  check_parameters(site);
  Backward backward(*this, options, site);
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

std::vector<Tensor> Tape::gradient(const Tensor& y, std::span<const Param> params,
                                   const GradientOptions& options, Site site) {
  const auto of_a_store_in_use = [&](const Param& p) {
    return std::ranges::any_of(leaves_, [&](const Leaf& leaf) {
      return leaf.entry->store.lock() == p.entry()->store.lock();
    });
  };
  if (std::ranges::none_of(params, of_a_store_in_use))
    throw ValueError(fmt::format("gradient: none of these {} parameters belongs to a store that "
                                 "was used on this tape; is "
                                 "it the list of another model, or of a part that does not exist?",
                                 params.size()),
                     site);
  Tensors leaves;
  for (const Param& p : params) leaves.push_back(leaf(p.entry()));
  return gradient(y, std::span<const Tensor>(leaves), options, site);
}

}  // namespace reel
