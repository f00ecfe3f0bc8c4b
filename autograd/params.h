#pragma once

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

/// One named array of a parameter store. Use it through `Param`.
struct ParamEntry {
  std::string name;
  Tensor value;
  std::uint64_t version = 0;  ///< counts the changes of the value
  std::size_t index = 0;      ///< place in its store
  /// Names of the equal blocks that the first axis is made of, such as gates; for reports.
  std::vector<std::string> blocks = {};
  bool bound = true;  ///< whether a module has claimed it
};

/// The name of an element by its place in row-major order: "b[17]", "w_hh[forget, 3, 17]" where the
/// first axis has named blocks, "scale" of a scalar.
std::string coordinate_name(const ParamEntry& entry, Index flat);

/// A handle to a parameter, which stands for its current value wherever a tensor is expected; on a
/// tape it is a leaf. Copies share the parameter, so a copied module shares its weights.
class Param {
 public:
  Param() = default;
  explicit Param(std::shared_ptr<ParamEntry> entry) : entry_(std::move(entry)) {}

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
  void set(const Tensor& value);
  /// The numbers for writing in place; see Tensor::edit.
  template <Real T>
  std::span<T> edit() {
    ++entry_->version;
    return entry_->value.edit<T>();
  }

  const std::shared_ptr<ParamEntry>& entry() const { return entry_; }

 private:
  std::shared_ptr<ParamEntry> entry_;
};

/// A named store of parameters, or a part of one. Passed to the constructors of modules, which
/// create their parameters in it: `CharLm(Params p) : lstm(p / "lstm", ...)`. Creating a parameter
/// registers and names it ("lstm.w_hh"). A handle: copies see the same parameters.
class Params {
 public:
  /// An empty store. Each parameter draws its initial values from the stream of its name, so they
  /// depend on the seed and the name alone.
  explicit Params(std::uint64_t seed = 0, DType dtype = f32);

  /// The part of the store whose names begin with "name.".
  Params operator/(std::string_view name) const;

  /// Makes a new parameter, or claims one that `clone`, `to` or a file brought along. `blocks` may
  /// name the equal blocks that its first axis is made of, such as gates; reports use the names.
  /// Throws ValueError for a name that is taken, ShapeError when the claimed one has another shape
  /// or the first axis is not made of that many blocks.
  Param create(std::string_view name, const Shape& shape, const Initializer& init,
               const std::vector<std::string>& blocks = {}) const;
  /// The parameter of that name. Throws ValueError, listing the names there are, if there is none.
  Param operator[](std::string_view name) const;

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
  /// Visits the entries of this part without making handles.
  template <class F>
  void each(F&& f) const {
    for (const auto& entry : entries())
      if (entry->name.starts_with(prefix_)) f(entry);
  }
  /// The number of entries of the whole store; `ParamEntry::index` is below it.
  std::size_t store_size() const { return entries().size(); }

 private:
  struct Store;
  Params(std::shared_ptr<Store> store, std::string prefix);
  const std::vector<std::shared_ptr<ParamEntry>>& entries() const;

  std::shared_ptr<Store> store_;
  std::string prefix_;
};

}  // namespace reel
