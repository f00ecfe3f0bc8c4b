#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

namespace reel {

/// How a new parameter gets its values: a function of a random source, a shape and a dtype.
using Initializer = std::function<Tensor(Rng&, const Shape&, DType)>;

namespace detail {

class ParamStore;

struct ParamData {
  std::string name;
  Tensor value;
  std::uint64_t version = 0;  ///< counts the changes of the value
  std::size_t index = 0;      ///< place in its store
  /// Names of the equal blocks that the first axis is made of, such as gates; for reports.
  std::vector<std::string> blocks = {};
  bool bound = true;     ///< whether a module has claimed it
  bool brought = false;  ///< by `clone`, `to` or a file, and not made by the module
  /// Whether somebody has, or had, a span of the numbers for writing, who may write at any time.
  bool exposed = false;
  std::weak_ptr<ParamStore> store = {};
};

}  // namespace detail

/// One named array of a parameter store, to be read; it changes through a `Param`, which counts the
/// changes.
using ParamEntry = const detail::ParamData;

/// The name of an element by its place in row-major order: "b[17]", "w_hh[forget, 3, 17]" where the
/// first axis has named blocks, "scale" of a scalar.
std::string coordinate_name(const ParamEntry& entry, Index flat);

/// A handle to a parameter, which stands for its current value wherever a tensor is expected; on a
/// tape it is a leaf. Copies share the parameter, so a copied module shares its weights.
///
/// A constructor that throws leaves nothing in the store: where an exception destroys the last of
/// the handles that `create` returned, and the value is still the initial one, the parameter goes
/// too. (To create it again gives the same numbers.)
class Param {
 public:
  Param() = default;
  explicit Param(std::shared_ptr<ParamEntry> entry) : entry_(std::move(entry)) {}
  Param(const Param&) = default;
  Param(Param&&) = default;
  Param& operator=(const Param&) = default;
  Param& operator=(Param&&) = default;
  ~Param() {
    if (created_ && entry_ && entry_->version == 0 && entry_.use_count() == 2) withdraw();
  }

  bool defined() const { return entry_ != nullptr; }
  const std::string& name() const { return entry_->name; }
  const Shape& shape() const { return entry_->value.shape(); }
  DType dtype() const { return entry_->value.dtype(); }

  /// The value, recorded as a leaf of the current tape if there is one.
  Tensor tensor() const;
  operator Tensor() const { return tensor(); }
  /// The value alone.
  const Tensor& value() const { return entry_->value; }

  /// Replaces the value. Throws ShapeError or DTypeError when it is of another kind.
  void set(const Tensor& value, Site site = {});
  /// The numbers for writing in place; see Tensor::edit. The span may be kept: a tape that uses the
  /// parameter later takes a copy of its numbers, and refuses a gradient once they differ. Throws
  /// DTypeError, having changed nothing, when T is not the element type.
  template <Real T>
  std::span<T> edit() {
    const std::span<T> numbers = data().value.template edit<T>();
    ++data().version;
    data().exposed = true;
    return numbers;
  }
  /// Counts a change, and makes the buffer of the value the parameter's alone: for an optimizer,
  /// which then writes to it at once and keeps no pointer.
  void begin_update();

  const std::shared_ptr<ParamEntry>& entry() const { return entry_; }

 private:
  friend class Params;
  friend class LentParam;

  // The one place where an entry can be written to; none of them was made const.
  detail::ParamData& data() const { return const_cast<detail::ParamData&>(*entry_); }
  void withdraw() noexcept;

  std::shared_ptr<ParamEntry> entry_;
  bool created_ = false;  // by Params::create, and not looked up
};

/// Lends a parameter other values and gives it the old ones back, version included, as if nothing
/// had happened: for checks that move parameters about.
class LentParam {
 public:
  explicit LentParam(const Param& param)
      : param_(param), value_(param.value()), version_(param.entry()->version) {}
  ~LentParam() {
    param_.data().value = value_;
    param_.data().version = version_;
  }
  LentParam(const LentParam&) = delete;
  LentParam& operator=(const LentParam&) = delete;

  /// `value` is of the parameter's shape and dtype.
  void lend(const Tensor& value) { param_.data().value = value; }

 private:
  Param param_;
  Tensor value_;
  std::uint64_t version_;
};

/// The name of a parameter, or of a part of a store, and the line that says it.
class ParamName {
 public:
  template <std::convertible_to<std::string_view> Name>
  ParamName(const Name& name, Site site = {}) : text_(name), site_(site) {}

  operator std::string_view() const { return text_; }
  Site site() const { return site_; }

 private:
  std::string_view text_;
  Site site_;
};

/// A named store of parameters, or a part of one. Passed to the constructors of modules, which
/// create their parameters in it: `CharLm(Params p) : lstm(p / "lstm", ...)`. Creating a parameter
/// registers and names it ("lstm.w_hh"). A handle: copies see the same parameters.
class Params {
 public:
  /// An empty store. Each parameter draws its initial values from the stream of its name, so they
  /// depend on the seed and the name alone.
  explicit Params(std::uint64_t seed = 0, DType dtype = f32, Site site = {});

  /// The part of the store whose names begin with "name.". Throws ValueError for a name that is
  /// empty or has an empty part, as "a..b" has.
  Params operator/(const ParamName& name) const;
  /// The name of this part, "rnn.0"; empty for the store as a whole.
  std::string name() const { return prefix_.substr(0, prefix_.size() - !prefix_.empty()); }
  /// The line that named this part; without a file for a store as a whole.
  Site site() const { return site_; }

  /// Makes a new parameter, or claims one that `clone`, `to` or a file brought along. `blocks` may
  /// name the equal blocks that its first axis is made of, such as gates; reports use the names.
  /// Throws ValueError for a name that is taken or empty, ShapeError when the claimed one has
  /// another shape or the first axis is not made of that many blocks.
  Param create(std::string_view name, const Shape& shape, const Initializer& init,
               const std::vector<std::string>& blocks = {}, Site site = {}) const;
  /// The parameter of that name. Throws ValueError, listing the names there are, if there is none.
  Param operator[](const ParamName& name) const;

  /// The parameters of this part in the order of their creation.
  std::vector<Param> list() const;
  /// The number of numbers in them.
  Index count() const;
  DType dtype() const;

  /// A store of its own with copies of the values, unclaimed: construct the model once more on it.
  Params clone() const { return to(dtype()); }
  /// The same in another element type: train in f32, check the gradients in f64 (check_gradients).
  Params to(DType dtype) const;

  /// Whether `param` is of this part.
  bool contains(const ParamEntry& param) const;
  /// Whether `param` is of this store, in whatever part.
  bool store_contains(const ParamEntry& param) const;
  /// Why this part, which has no parameters, is none: what there is, and what may be meant.
  std::string what_there_is() const;
  /// Visits the entries of this part without making handles.
  template <class F>
  void each(F&& f) const {
    for (const auto& entry : entries())
      if (entry && entry->name.starts_with(prefix_)) f(entry);
  }
  /// `ParamEntry::index` is below it, in the whole store.
  std::size_t store_size() const { return entries().size(); }

 private:
  Params(std::shared_ptr<detail::ParamStore> store, std::string prefix, Site site);
  const std::vector<std::shared_ptr<ParamEntry>>& entries() const;

  std::shared_ptr<detail::ParamStore> store_;
  std::string prefix_;
  Site site_{nullptr};
};

}  // namespace reel
