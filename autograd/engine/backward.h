#pragma once

#include <algorithm>

#include <reel/autograd/tape.h>

namespace reel {

/// One backward pass: walks a tape's records in reverse and accumulates gradients by slot.
class Backward {
 public:
  /// Throws GradientError if another pass over the tape is running, unless both keep the tape.
  Backward(Tape& tape, const GradientOptions& options, Site site = {});
  ~Backward();
  Backward(const Backward&) = delete;
  Backward& operator=(const Backward&) = delete;

  /// Requests the gradient of a slot.
  void want(std::int32_t slot) { mark(static_cast<std::size_t>(slot), wanted); }
  /// The same for the parameters of this part of a store that were used on the tape; those that
  /// only gather_rows read get gradients by rows.
  void want(const Params& params);
  /// Hands the products that contribute to gradients of wanted slots to `receive`, so that they
  /// join those of the enclosing pass.
  using Receive = std::function<void(std::int32_t slot, const Tensor& left, const Tensor& right)>;
  void hand_on_products(Receive receive) { receive_product_ = std::move(receive); }
  /// Runs the pass from an output. Throws GradientError, see Tape::gradient.
  void run(std::int32_t output);
  /// The same from several outputs with a gradient for each; undefined ones are zero.
  void run(std::span<const std::int32_t> outputs, std::span<const Tensor> seeds);
  /// The gradient of a wanted slot; undefined where nothing reached it.
  Tensor result(std::int32_t slot) { return gradient(slot); }
  /// The gradients of the wanted parameters.
  Gradients result(const Params& params);
  /// Empties the tape, unless the options keep it.
  void finish();

  /// An output of one tape that is an input of the next one, a leaf there: their slots.
  struct Join {
    std::int32_t output, input;
  };
  /// One of the tapes of a computation that consecutive tapes recorded.
  struct Stretch {
    Tape* tape;
    std::span<const Join> joins;  // with the tape before it
    Tensor loss = {};             // undefined if it has none
    double weight = 1;            // of its loss
    bool keep = false;
    bool updated_since = false;  // its parameters have changed: the values of the call count
  };
  /// The gradients of Σ weight · loss over consecutive tapes, the last one first. Every sum is
  /// added in the order of a pass over one tape with all their records, so the bits are the same.
  /// Throws like Tape::gradient; after an error within a pass only tapes that are kept, and those
  /// that it did not get to, can be used again.
  static Gradients through(std::span<const Stretch> stretches, const Params& params, Site site);

 private:
  friend class op::Vjp;

  // Flags: whether a slot's gradient is needed, whether to keep it as a result, whether an op
  // without a gradient lies between it and a wanted slot, whether its hooks have run, and whether
  // it belongs to a parameter.
  enum Mark : std::uint8_t {
    unneeded = 0,
    needed = 1,
    wanted = 2,
    blocked = 4,
    hooked = 8,
    parameter = 16
  };
  // Shape and dtype are those of the slot the gradient belongs to.
  struct Entry {
    Buffer buffer;
    std::int32_t slot = -1;  // of the gradient itself, while a graph is made
    // How many contributions were added, or if they are many the complement of an index of many_.
    std::int32_t contributions = 0;
  };
  // Of an f32 gradient with many contributions, which one chain of additions would round too often:
  // after every `few` contributions the sum in the entry is added to `earlier`, in double. Parts
  // that follow each other along an axis, as those of the steps of a loop do, meet no element
  // twice, and count as one contribution; further parts are added to `earlier` directly.
  static constexpr int few = 64;
  struct Many {
    struct Sum {
      Tensor sum;
      int doublings;
    };
    Tensor earlier = {};
    PoolVector<Sum> sums = {};  // in place of `earlier` while a graph is made
    int contributions = few;    // to the sum in the entry
    int axis = -1;
    Index begin = 0, end = 0;  // of the parts so far

    bool takes(int part_axis, Index part_begin, Index part_end);
  };
  void mark(std::size_t slot, unsigned bits) {
    marks_[slot] = static_cast<std::uint8_t>(marks_[slot] | bits);
  }
  void mark_from(std::size_t first_record);
  void propagate(std::span<const std::int32_t> outputs, std::span<const Tensor> seeds);
  void complete();
  void continue_from(Backward& later, std::span<const Join> joins, const Params& params);
  void take_over();
  void take_over(const Join& join);
  void start(std::int32_t output, const Tensor& seed);
  void throw_blocked(std::int32_t slot) const;
  void pass(std::size_t first_record);
  void step(std::size_t record);
  void serve(std::size_t record);
  template <class F, class Where>
  void guarded(F f, Where where);
  void abandon();
  bool keeps() const { return options_.keep || options_.create_graph; }
  std::string where(const Tape::Record& record) const;
  void apply_hooks(std::int32_t slot);
  void apply_hooks_of_leaves(bool parameters);
  void apply_fused(const Tape::Record& record);
  void apply_specification(const Tape::Record& record);
  void release(const Tape::Record& record);

  // Of an absent input, whose slot is -1, nothing is marked.
  unsigned marks_of(std::int32_t slot) const {
    return slot < 0 ? std::uint8_t{unneeded} : marks_[static_cast<std::size_t>(slot)];
  }
  bool is_needed(std::int32_t slot) const { return marks_of(slot) != unneeded; }
  bool is_reached(const Tape::Record& record) const;
  bool needs_inputs(const Tape::Record& record) const;
  const void* attributes(const Tape::Record& record) const;
  Tensor tensor_of(std::int32_t slot, Entry entry) const;
  Tensor gradient(std::int32_t slot);
  Many* many(std::int32_t slot);
  Many* count(std::int32_t slot);
  void set_apart(std::int32_t slot, Many& many);
  void unite(std::int32_t slot);
  Tensor take_gradient(std::int32_t slot);
  bool add_part(std::int32_t slot, const Tensor& part, int axis, Index begin, Index step);
  void add_product(std::int32_t slot, const Tensor& left, const Tensor& right);
  void add_rows(std::int32_t slot, const Tensor& source, const Tensor& rows);
  void store(std::int32_t slot, Tensor g);
  void accumulate(std::int32_t slot, Tensor term);

  // Pending products leftᵀ · right that are still to be added to a parameter's gradient.
  struct Products {
    std::int32_t slot;
    Index rows = 0;
    Tensors left = {}, right = {};
  };
  void add_sum(Products& products);

  // The contributions to a parameter's gradient, while all of them are to rows of it: `values` to
  // those that `rows` names. Their sum is there once the pass is complete.
  struct RowParts {
    std::int32_t slot;
    Tensors rows = {}, values = {};
    RowGradient sum = {};
  };
  PoolVector<RowParts>::iterator row_parts_of(std::int32_t slot) {
    return std::ranges::find(row_parts_, slot, &RowParts::slot);
  }
  void add_sum(RowParts& parts) const;
  void spread_rows(std::int32_t slot);

  Tape& tape_;
  GradientOptions options_;
  Site site_;
  const Backward* outer_;  // the pass from whose hook this one runs
  PoolVector<std::uint8_t> marks_;
  Chunked<Entry> gradients_;
  PoolVector<Many> many_;
  PoolVector<Products> products_;
  PoolVector<RowParts> row_parts_;
  bool by_rows_ = false;  // whether results may be RowGradients
  Receive receive_product_;
  Backward* later_ = nullptr;  // the pass over the next tape, where this one continues it
  PoolVector<Join> joins_;     // with that tape, parameters included
};

}  // namespace reel
