#pragma once

#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/rng.h>
#include <reel/autograd/tensor.h>

namespace reel {

/// How a new parameter is initialised: a function of a random number generator, a shape and a
/// dtype.
using Initializer = std::function<Tensor(Rng&, const Shape&, DType)>;

namespace detail {

class ParamStore;

struct ParamData {
  std::string name;
  Tensor value;
  std::uint64_t version = 0;  ///< counts the changes of the value
  std::size_t index = 0;      ///< index in its store
  /// Names of the equal blocks that make up the first axis, such as gates; for reports.
  std::vector<std::string> blocks = {};
  bool bound = true;      ///< whether a module has claimed it
  bool imported = false;  ///< created by `clone`, `to` or a file, not by the module
  std::weak_ptr<ParamStore> store = {};
};

}  // namespace detail

/// One named array of a parameter store, read-only; it is changed through a `Param`, which counts
/// the changes.
using ParamEntry = const detail::ParamData;

/// The name of an element, given its index in row-major order: "b[17]", "w_hh[forget, 3, 17]" if
/// the first axis has named blocks, "scale" for a scalar.
std::string coordinate_name(const ParamEntry& entry, Index flat);

/// A handle to a parameter, which converts to its current value wherever a tensor is expected; on a
/// tape it is a leaf. Copies share the parameter, so a copied module shares its weights.
///
/// A constructor that throws leaves nothing in the store: when an exception destroys the last
/// handle that `create` returned, and the value is still the initial one, the parameter is removed
/// too. (Creating it again gives the same numbers.)
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

  /// The value, recorded as a leaf of the current tape if there is one; or what a Substitution has
  /// put in its place.
  Tensor tensor() const;
  operator Tensor() const { return tensor(); }
  /// The value, not recorded, or what is in its place.
  const Tensor& value() const;

  /// Replaces the value. Throws ShapeError or DTypeError if its shape or dtype differs, and, as all
  /// that changes it, ValueError within a Substitution of it.
  void set(const Tensor& value, Site site = {});
  /// The numbers, for in-place writes; see Tensor::edit. The span may be kept: a tape that uses the
  /// parameter later copies its numbers, and refuses a gradient once they differ. Throws
  /// DTypeError, having changed nothing, if T is not the element type.
  template <Real T>
  std::span<T> edit(Site site = {}) {
    detail::ParamData& data = to_change(site);
    const std::span<T> numbers = data.value.template edit<T>(site);
    ++data.version;
    return numbers;
  }
  /// Counts a change, and makes the parameter the only owner of its buffer: for an optimizer, which
  /// then writes to it at once and keeps no pointer.
  void begin_update();
  /// Throws ValueError within a Substitution of it.
  void require_changeable(Site site = {}) const { to_change(site); }

  const std::shared_ptr<ParamEntry>& entry() const { return entry_; }

 private:
  friend class Params;
  friend class ScopedParamValue;

  // The only place where an entry can be modified; no entry is actually a const object.
  detail::ParamData& data() const { return const_cast<detail::ParamData&>(*entry_); }
  detail::ParamData& to_change(Site site) const;
  void withdraw() noexcept;

  std::shared_ptr<ParamEntry> entry_;
  bool created_ = false;  // by Params::create, not looked up
};

/// Temporarily replaces a parameter's value, then restores it, version included, as if nothing had
/// happened: for checks that perturb parameters.
class ScopedParamValue {
 public:
  explicit ScopedParamValue(const Param& param)
      : param_(param), value_(param.entry()->value), version_(param.entry()->version) {}
  ~ScopedParamValue() {
    param_.data().value = value_;
    param_.data().version = version_;
  }
  ScopedParamValue(const ScopedParamValue&) = delete;
  ScopedParamValue& operator=(const ScopedParamValue&) = delete;

  /// `value` has the parameter's shape and dtype.
  void assign(const Tensor& value) { param_.data().value = value; }

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

  /// Creates a new parameter, or claims one that came from `clone`, `to` or a file. `blocks` may
  /// name the equal blocks that make up its first axis, such as gates; reports use the names.
  /// Throws ValueError for a name that is taken or empty, ShapeError if the claimed one has another
  /// shape or the first axis is not divisible into that many blocks.
  Param create(std::string_view name, const Shape& shape, const Initializer& init,
               const std::vector<std::string>& blocks = {}, Site site = {}) const;
  /// Says what kind of layer this part is, such as "Gru", for files of other frameworks.
  void set_kind(std::string_view kind) const;
  /// What `set_kind` said, by the full names of the parts, in the whole store.
  const std::map<std::string, std::string, std::less<>>& kinds() const;
  /// The parameter of that name. Throws ValueError, listing the existing names, if there is none.
  Param operator[](const ParamName& name) const;

  /// The parameters of this part in the order of their creation.
  std::vector<Param> list() const;
  /// The total number of their elements.
  Index count() const;
  /// That of the store.
  DType dtype() const;
  /// The generator from which `param` of this store draws its initial values.
  Rng rng_of(const Param& param) const;

  /// An independent store with copies of the values, unclaimed: construct the model again on it.
  Params clone() const { return to(dtype()); }
  /// The same in another element type: train in f32, check the gradients in f64 (check_gradients).
  Params to(DType dtype) const;

  /// Whether `param` belongs to this part.
  bool contains(const ParamEntry& param) const;
  /// Whether both are parts of one store.
  bool shares_store_with(const Params& other) const { return store_ == other.store_; }
  /// Whether `param` belongs to this store, in any part.
  bool store_contains(const ParamEntry& param) const;
  /// For errors about a part without parameters: which names exist, and which one may be meant.
  std::string what_there_is() const;
  /// Visits the entries of this part without creating handles.
  template <class F>
  void each(F&& f) const {
    for (const auto& entry : entries())
      if (entry && entry->name.starts_with(prefix_)) f(entry);
  }
  /// The exclusive upper bound of `ParamEntry::index` in the whole store.
  std::size_t store_size() const { return entries().size(); }

 private:
  Params(std::shared_ptr<detail::ParamStore> store, std::string prefix, Site site);
  const std::vector<std::shared_ptr<ParamEntry>>& entries() const;

  std::shared_ptr<detail::ParamStore> store_;
  std::string prefix_;
  Site site_{nullptr};
};

}  // namespace reel
