#pragma once

#include <atomic>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <reel/autograd/engine/chunked.h>
#include <reel/autograd/engine/op.h>
#include <reel/autograd/engine/profile.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/engine/tape_stack.h>
#include <reel/autograd/gradients.h>

namespace reel {

/// How to take a gradient.
struct GradientOptions {
  /// The gradient of the output, with its shape; by default 1, which requires an output of one
  /// element.
  Tensor seed = {};
  /// Record the computation of the gradient, so that it can be differentiated again. Implies
  /// `keep`.
  bool create_graph = false;
  /// Keep the recorded values for another gradient of the same tape. Otherwise they are released as
  /// soon as the backward pass no longer needs them, and the tape is empty afterwards.
  bool keep = false;
};

/// What a tape does besides recording.
struct TapeOptions {
  /// Throw NotFiniteError at the first NaN or infinity that an op computes, forward or backward.
  bool check_finite = false;
  /// Measure every op for `Tape::profile`.
  bool profile = false;
  /// Do not record before `Tape::resume` is called.
  bool paused = false;
};

/// Sees the gradient of a tensor, and may replace it: an undefined result leaves it unchanged.
using GradientHook = std::function<Tensor(const Tensor& gradient)>;

/// Records ops, in the order in which they run, during its lifetime; the backward pass is one loop
/// over the records in reverse.
///
/// Constructing a tape makes it the thread's current one. When it is paused or destroyed, in any
/// order and on any thread, the most recent remaining one becomes current. Without a tape nothing
/// is recorded. A record is plain data: op, input and output slots, attributes and the place of the
/// call.
///
/// A gradient that does not keep the tape uses it up: the tape is then empty, and still current.
/// Tensors recorded on it before are plain values to ops that need no gradient, such as a metric;
/// an op that also depends on a new tensor of the tape refuses them until they are detached.
///
/// Not thread-safe: only one thread at a time may use a tape.
class Tape {
 public:
  /// The current tape of this thread from now on, unless `paused`.
  explicit Tape(const TapeOptions& options = {});
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape that records this thread's ops, or null.
  static Tape* current() { return detail::current_tape.load(std::memory_order_relaxed); }
  /// Stops recording; the records are kept, and gradients can be taken.
  void pause() { member_.leave(); }
  /// Makes it the current tape of the calling thread, which may differ from the previous one.
  void resume() { member_.enter(); }

  /// A handle to `x` as an independent variable of this tape. Throws DTypeError for integers.
  Tensor watch(const Tensor& x, Site site = {});

  /// The gradients of a scalar loss with respect to the parameters. Parameters on which the loss
  /// does not depend have none.
  /// Throws GradientError for a loss that is not on this tape, is not a single number (without a
  /// seed), or depends on an op without a gradient; StaleTensorError if a parameter has changed
  /// since; ValueError for a part without parameters or a store none of whose parameters was used
  /// on this tape. If the gradient of an op itself fails, GradientError says where the op was
  /// recorded, and the tape is empty afterwards unless `keep` was set.
  Gradients gradient(const Tensor& loss, const Params& params, const GradientOptions& options = {},
                     Site site = {});

  /// The gradients of `y` with respect to `inputs`, which are watched or recorded tensors of this
  /// tape; zeros for those on which `y` does not depend. Throws as above.
  std::vector<Tensor> gradient(const Tensor& y, std::span<const Tensor> inputs,
                               const GradientOptions& options = {}, Site site = {});
  std::vector<Tensor> gradient(const Tensor& y, std::initializer_list<Tensor> inputs,
                               const GradientOptions& options = {}, Site site = {}) {
    return gradient(y, std::span(inputs.begin(), inputs.size()), options, site);
  }

  /// The same for parameters, as params.list() returns them. Throws ValueError if the store of
  /// none of them was used on this tape.
  std::vector<Tensor> gradient(const Tensor& y, std::span<const Param> params,
                               const GradientOptions& options = {}, Site site = {});

  /// Calls `hook` with the gradient of x in every backward pass that reaches x, once it is fully
  /// accumulated; its result replaces the gradient. Several hooks run in the order in which they
  /// were added. Throws GradientError or StaleTensorError for a tensor that is not on this tape,
  /// ValueError for an empty hook; what a hook throws, or a result of another shape or dtype, is a
  /// GradientError of the pass.
  ///
  /// A hook must not clear the tape, add hooks to it or destroy it, and may take another gradient
  /// of it only if both keep it; the inner gradient does not call the hook again. Clearing, adding
  /// hooks and such a gradient throw GradientError.
  void on_gradient(const Tensor& x, GradientHook hook, Site site = {});

  /// Prints a table with a line for each record: op, inputs, outputs, bytes of the outputs and how
  /// many of them the tape holds, module, time step and the place of the call.
  void print() const;
  void print(std::ostream& out) const;
  /// The graph in the language of Graphviz: `dot -Tsvg`.
  std::string dot() const;
  /// The cost of this tape's ops, forward and backward, since it was created with `.profile`; kept
  /// when the records are cleared. Empty without that option.
  const Profile& profile() const { return profile_; }

  /// The number of records.
  std::size_t size() const { return records_.size(); }
  /// The bytes of ops' results that the tape holds for a backward pass; a shared buffer counts
  /// once.
  std::int64_t held_bytes() const;
  /// Drops all records. Earlier handles are stale: using them throws. A call from a hook throws
  /// GradientError.
  void clear(Site site = {});
  /// Whether a gradient emptied the tape, and nothing was recorded since.
  bool used_up() const { return used_up_ && slots_.empty(); }
  /// Whether x was recorded on this tape before a gradient used it up.
  bool used_up(const Tensor& x) const;

  /// A parameter as a leaf; the same slot each time. Called by Param.
  Tensor leaf(const std::shared_ptr<ParamEntry>& entry);
  /// The parameters that were used while this tape was current, in the order of their first use.
  std::vector<Param> parameters() const;

  /// The generation that the results of a call belong to: this tape's if an input is
  /// differentiable, so that the call must be recorded; otherwise that of an input from before the
  /// tape was used up, if any; otherwise 0. Throws StaleTensorError for inputs of another tape or
  /// from before it was cleared, and if one from before it was used up is combined with a
  /// differentiable one.
  std::uint64_t generation_of(const op::OpSpec& op, std::span<const Tensor* const> inputs,
                              Site site) const;
  /// The number of the current recording; no two tapes share one, and an emptied tape gets a new
  /// one.
  std::uint64_t generation() const { return generation_.load(std::memory_order_relaxed); }
  /// Whether a gradient can reach x. Throws StaleTensorError if it was recorded, but not in the
  /// current generation of this tape.
  bool is_differentiable(const Tensor& x, const op::OpSpec& op, Site site) const;
  /// Appends a record and assigns slots to the outputs. Called by `run`.
  void record(const op::OpSpec& op, std::span<const Tensor* const> inputs,
              std::span<Tensor> outputs, const void* attr, Site site);
  const TapeOptions& options() const { return options_; }
  /// Adds the time that a kernel took. Called by `run`, before it records.
  void add_to_profile(const op::OpSpec& op, std::span<const Tensor> outputs,
                      const Profile::TimePoint& begin);
  /// Keeps an object alive as long as the records: attributes are plain data, but may point to it.
  void hold(std::shared_ptr<const void> object) { held_.push_back(std::move(object)); }

 private:
  friend class Backward;
  friend class TapeScope;
  friend class op::Vjp;

  // A value of the tape. The buffer is held only if a gradient reads it.
  struct Slot {
    Buffer buffer;
    Shape shape;
    DType dtype;
    bool differentiable;
  };
  struct Record {
    const op::OpSpec* op;
    const char* file;
    std::int32_t line;
    std::int32_t first_input;  // in input_slots_, where an absent input is -1
    std::int32_t input_count;
    std::int32_t first_output;  // a slot; outputs are consecutive
    std::int32_t output_count;
    std::int32_t attr;    // offset in attributes_
    std::int32_t module;  // in modules_; -1 for none
    std::int32_t step;    // time step; -1 for none

    Site site() const { return Site(file, line); }
    bool makes(std::int32_t slot) const {
      return slot >= first_output && slot < first_output + output_count;
    }
  };
  struct Leaf {
    std::shared_ptr<ParamEntry> entry;
    std::uint64_t version;
    std::int32_t slot;
  };
  struct Copy {
    const void* original;
    Tensor copy;
  };
  struct Hook {
    std::int32_t slot;
    GradientHook function;
    bool running = false;
  };
  struct Generations {
    std::uint64_t first, end;
    bool contain(std::uint64_t generation) const { return generation >= first && generation < end; }
  };

  void forget();
  void use_up();
  void drop_records();
  void next_generation();
  bool was_used_up(std::uint64_t generation) const;
  std::string origin(std::uint64_t generation) const;
  [[noreturn]] void throw_stale(const op::OpSpec& op, std::size_t argument,
                                std::uint64_t generation, Site site) const;
  void require_room(const op::OpSpec& op, std::size_t inputs, std::size_t outputs, Site site) const;
  void require_no_pass(const char* call, Site site) const;
  void require_used(const Params& params, Site site) const;

  std::int32_t add_slot(const Tensor& value, bool differentiable, bool keep);
  std::int32_t slot_of(const Tensor& input, bool keep);
  Buffer kept(const Tensor& x);
  std::int32_t input_slot(const Record& record, std::int32_t i) const {
    return input_slots_[static_cast<std::size_t>(record.first_input + i)];
  }
  Tensor handle(std::int32_t slot) const;
  Trace require(const Tensor& x, const char* call, const char* what, Site site) const;
  void check_parameters(Site site) const;
  std::int32_t module_id(std::string_view name);
  ModelPlace place_of(const Record& record) const {
    if (record.module < 0) return {{}, record.step};
    return {modules_[static_cast<std::size_t>(record.module)], record.step};
  }
  std::string_view module_name(const Record& record) const;
  const ParamEntry* parameter(std::int32_t slot) const;
  std::string slot_name(std::int32_t slot) const;
  void check_finite(const op::OpSpec& op, std::span<const Tensor* const> inputs,
                    std::span<const Tensor> outputs, Site site) const;

  TapeOptions options_;
  detail::TapeMember member_{this};
  std::atomic<std::uint64_t> generation_;  // read by other threads for error messages
  Generations used_up_generations_;        // those that a gradient ended; the current one follows
  PoolVector<Generations> earlier_;        // the same, of earlier runs of generations
  bool used_up_ = false;                   // whether a gradient emptied it last
  bool gave_gradient_ = false;             // since it was last cleared
  const Backward* pass_ = nullptr;         // the innermost backward pass that is running
  Chunked<Slot> slots_;
  Chunked<Record> records_;
  Chunked<std::int32_t> input_slots_;
  Chunked<std::uint64_t> attributes_;  // bytes in units of 8
  Chunked<std::string> modules_;       // names seen; places refer to them, so they never move
  PoolVector<Hook> hooks_;
  Profile profile_;
  PoolVector<Leaf> leaves_;
  PoolVector<std::int32_t> leaf_table_;  // open addressing: entry address -> index in leaves_
  PoolVector<std::shared_ptr<const void>> held_;
  PoolVector<Copy> copies_;  // of numbers to which others may write
};

/// Makes a tape, or none if null, the thread's current one for its lifetime.
class TapeScope {
 public:
  explicit TapeScope(Tape* tape) : link_(tape) { link_.enter(); }

 private:
  detail::TapeLink link_;
};

/// Suspends recording on this thread for its lifetime.
class NoRecord : TapeScope {
 public:
  NoRecord() : TapeScope(nullptr) {}
};

}  // namespace reel
