#pragma once

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
#include <reel/autograd/gradients.h>

namespace reel {

/// How to take a gradient.
struct GradientOptions {
  /// The gradient of the output, of its shape; by default 1, which needs an output of one element.
  Tensor seed = {};
  /// Record the computation of the gradient, so that it can be differentiated again. Implies
  /// `keep`.
  bool create_graph = false;
  /// Keep the recorded values for another gradient of the same tape. Without it they are released
  /// as the backward pass no longer needs them, and the tape is empty afterwards.
  bool keep = false;
};

/// What a tape watches for besides recording.
struct TapeOptions {
  /// Throw NotFiniteError at the first NaN or infinity that an op computes, forward or backward.
  bool check_finite = false;
  /// Measure every op for `Tape::profile`.
  bool profile = false;
};

/// Looks at the gradient of a tensor, and may replace it: an undefined result leaves it as it is.
using GradientHook = std::function<Tensor(const Tensor& gradient)>;

/// Records ops, in the order in which they run, for as long as it lives; the backward pass is one
/// loop over the records in reverse.
///
/// Constructing a tape makes it the thread's current one, destroying it gives way to the one
/// before. Without a tape nothing is recorded. A record is data: op, input and output slots,
/// attributes and the place of the call.
class Tape {
 public:
  explicit Tape(const TapeOptions& options = {});
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape that records this thread's ops, or null.
  static Tape* current() { return current_; }

  /// A handle to `x` as an independent variable of this tape. Throws DTypeError for integers.
  Tensor watch(const Tensor& x);

  /// The gradients of a scalar loss with respect to the parameters. Parameters on which the loss
  /// does not depend have none.
  /// Throws GradientError for a loss that is not on this tape, not a single number (and no seed),
  /// or that depends on an op without a gradient; StaleTensorError when a parameter was changed
  /// since. When the gradient of an op itself fails, GradientError says where the op was recorded,
  /// and the tape is empty afterwards unless it was to be kept.
  Gradients gradient(const Tensor& loss, const Params& params, const GradientOptions& options = {});

  /// The gradients of `y` with respect to `inputs`, which are watched or recorded tensors of this
  /// tape; zeros for those on which `y` does not depend. Throws as above.
  std::vector<Tensor> gradient(const Tensor& y, std::span<const Tensor> inputs,
                               const GradientOptions& options = {});
  std::vector<Tensor> gradient(const Tensor& y, std::initializer_list<Tensor> inputs,
                               const GradientOptions& options = {}) {
    return gradient(y, std::span(inputs.begin(), inputs.size()), options);
  }

  /// Calls `hook` with the gradient of x in every gradient that reaches it, once all contributions
  /// are in; what it returns takes the gradient's place. Several hooks run in the order in which
  /// they were added. Throws GradientError or StaleTensorError for a tensor that is not on this
  /// tape; what a hook throws, or a result of another shape or dtype, is a GradientError of the
  /// pass.
  void on_gradient(const Tensor& x, GradientHook hook);

  /// A table with a line for each record: op, inputs, outputs, bytes of the outputs and how many of
  /// them the tape holds, module, time step and the place of the call.
  void print() const;
  void print(std::ostream& out) const;
  /// The graph in the language of Graphviz: `dot -Tsvg`.
  std::string dot() const;
  /// What the ops of this tape took, forward and backward, since it was made with `.profile`; it
  /// outlives the records. Empty without that option.
  const Profile& profile() const { return profile_; }

  /// The number of records.
  std::size_t size() const { return records_.size(); }
  /// The bytes of the ops' results that the tape holds for a backward pass; a buffer that several
  /// of them share counts once.
  std::int64_t held_bytes() const;
  /// Forgets all records. Handles from before are stale: using them throws.
  void clear();

  /// A parameter as a leaf; the same slot each time. Called by Param.
  Tensor leaf(const std::shared_ptr<ParamEntry>& entry);
  /// The parameters that were used while this tape was current, in the order of their first use.
  std::vector<Param> parameters() const;

  /// Whether one of the inputs is on this tape and differentiable. Throws StaleTensorError for
  /// inputs of another tape or of an earlier generation.
  bool watches(const op::OpSpec& op, std::span<const Tensor* const> inputs, Site site) const;
  /// Appends a record, and gives the outputs their slots. Called by `run`.
  void record(const op::OpSpec& op, std::span<const Tensor* const> inputs,
              std::span<Tensor> outputs, const void* attr, Site site);
  const TapeOptions& options() const { return options_; }
  /// Notes how long a kernel took. Called by `run`, before it records.
  void add_to_profile(const op::OpSpec& op, std::span<const Tensor> outputs,
                      Profile::Clock::time_point begin);
  /// Keeps an object as long as the records: attributes are plain data, but may point to it.
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
    std::int32_t first_input;  // in input_slots_
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
  struct Hook {
    std::int32_t slot;
    GradientHook function;
  };

  std::int32_t add_slot(const Tensor& value, bool differentiable, bool keep);
  std::int32_t slot_of(const Tensor& input, bool keep);
  std::int32_t input_slot(const Record& record, std::int32_t i) const {
    return input_slots_[static_cast<std::size_t>(record.first_input + i)];
  }
  Tensor handle(std::int32_t slot) const;
  Trace require(const Tensor& x, const char* call, const char* what) const;
  void check_parameters() const;
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

  static inline constinit thread_local Tape* current_ = nullptr;

  TapeOptions options_;
  Tape* previous_;
  std::uint32_t generation_;
  Chunked<Slot> slots_;
  Chunked<Record> records_;
  Chunked<std::int32_t> input_slots_;
  Chunked<std::uint64_t> attributes_;  // bytes in units of 8
  PoolVector<std::string> modules_;    // names seen, for as long as the tape lives
  PoolVector<Hook> hooks_;
  Profile profile_;
  PoolVector<Leaf> leaves_;
  PoolVector<std::int32_t> leaf_table_;  // open addressing: entry address -> index in leaves_
  PoolVector<std::shared_ptr<const void>> held_;
};

/// Makes a tape, or with null none, the thread's current one for its lifetime.
class TapeScope {
 public:
  explicit TapeScope(Tape* tape) : previous_(std::exchange(Tape::current_, tape)) {}
  ~TapeScope() { Tape::current_ = previous_; }
  TapeScope(const TapeScope&) = delete;
  TapeScope& operator=(const TapeScope&) = delete;

 private:
  Tape* previous_;
};

/// Suspends recording on this thread for its lifetime.
class NoRecord : TapeScope {
 public:
  NoRecord() : TapeScope(nullptr) {}
};

}  // namespace reel
