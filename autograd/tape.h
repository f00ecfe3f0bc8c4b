#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include <reel/autograd/gradients.h>
#include <reel/autograd/op.h>

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

/// Records ops, in the order in which they run, for as long as it lives; the backward pass is one
/// loop over the records in reverse.
///
/// Constructing a tape makes it the thread's current one, destroying it gives way to the one
/// before. Without a tape nothing is recorded. A record is data: op, input and output slots,
/// attributes and the place of the call.
class Tape {
 public:
  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape that records this thread's ops, or null.
  static Tape* current();

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

  /// The number of records.
  std::size_t size() const { return records_.size(); }
  /// Forgets all records. Handles from before are stale: using them throws.
  void clear();

  /// A parameter as a leaf; the same slot each time. Called by Param.
  Tensor leaf(const std::shared_ptr<ParamEntry>& entry);

  /// Whether one of the inputs is on this tape and differentiable. Throws StaleTensorError for
  /// inputs of another tape or of an earlier generation.
  bool watches(const OpSpec& op, std::span<const Tensor* const> inputs, Site site) const;
  /// Appends a record, and gives the outputs their slots. Called by `run`.
  void record(const OpSpec& op, std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
              const void* attr, Site site);

 private:
  friend class Backward;
  friend class Vjp;

  // A value of the tape. The buffer is held only if a gradient reads it.
  struct Slot {
    Buffer buffer;
    Shape shape;
    DType dtype;
    bool differentiable;
  };
  struct Record {
    const OpSpec* op;
    const char* file;
    std::int32_t line;
    std::int32_t first_input;  // in input_slots_
    std::int32_t input_count;
    std::int32_t first_output;  // a slot; outputs are consecutive
    std::int32_t output_count;
    std::int32_t attr;  // offset in attributes_
  };
  struct Leaf {
    std::shared_ptr<ParamEntry> entry;
    std::uint64_t version;
    std::int32_t slot;
  };

  std::int32_t add_slot(const Tensor& value, bool differentiable, bool keep);
  std::int32_t input_slot(const Tensor& input, bool keep);
  Tensor handle(std::int32_t slot) const;
  Trace require(const Tensor& x, const char* what) const;
  void check_parameters() const;

  Tape* previous_;
  std::uint32_t generation_;
  PoolVector<Slot> slots_;
  PoolVector<Record> records_;
  PoolVector<std::int32_t> input_slots_;
  PoolVector<std::uint64_t> attributes_;  // bytes in units of 8
  PoolVector<Leaf> leaves_;
  PoolVector<std::int32_t> leaf_table_;  // open addressing: entry address -> index in leaves_
};

/// Makes a tape, or with null none, the thread's current one for its lifetime.
class TapeScope {
 public:
  explicit TapeScope(Tape* tape);
  ~TapeScope();
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
