#include <reel/autograd/params.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <reel/autograd/tape.h>

namespace reel {

std::string coordinate_name(const ParamEntry& entry, Index flat) {
  const Shape& shape = entry.value.shape();
  if (shape.rank() == 0) return entry.name;
  std::vector<std::string> places;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    Index i = flat / shape.stride(axis) % shape[axis];
    if (axis == 0 && !entry.blocks.empty()) {
      const Index rows = shape[0] / std::ssize(entry.blocks);
      places.push_back(entry.blocks[static_cast<std::size_t>(i / rows)]);
      i %= rows;
    }
    places.push_back(std::to_string(i));
  }
  return fmt::format("{}[{}]", entry.name, fmt::join(places, ", "));
}

Tensor Param::tensor() const {
  Tape* tape = Tape::current();
  return tape ? tape->leaf(entry_) : entry_->value;
}

void Param::set(const Tensor& value) {
  if (value.shape() != shape())
    throw ShapeError(fmt::format("parameter {} has shape {}, not {}", name(), shape().str(),
                                 value.shape().str()));
  if (value.dtype() != dtype())
    throw DTypeError(fmt::format("parameter {} is {}, not {}; convert the value with to()", name(),
                                 name_of(dtype()), name_of(value.dtype())));
  entry_->value = value.detach();
  ++entry_->version;
}

struct Params::Store {
  Rng rng;
  DType dtype;
  std::vector<std::shared_ptr<ParamEntry>> entries;

  std::shared_ptr<ParamEntry> find(std::string_view name) const {
    for (const auto& entry : entries)
      if (entry->name == name) return entry;
    return nullptr;
  }
  std::shared_ptr<ParamEntry> add(ParamEntry entry) {
    entry.index = entries.size();
    return entries.emplace_back(std::make_shared<ParamEntry>(std::move(entry)));
  }
};

Params::Params(std::uint64_t seed, DType dtype)
    : store_(std::make_shared<Store>(Store{Rng(seed), dtype, {}})) {
  if (!is_real(dtype)) throw DTypeError("Params: parameters are f32 or f64, not i32");
}

Params::Params(std::shared_ptr<Store> store, std::string prefix)
    : store_(std::move(store)), prefix_(std::move(prefix)) {}

const std::vector<std::shared_ptr<ParamEntry>>& Params::entries() const { return store_->entries; }

Params Params::operator/(std::string_view name) const {
  return Params(store_, fmt::format("{}{}.", prefix_, name));
}

Param Params::create(std::string_view name, const Shape& shape, const Initializer& init,
                     const std::vector<std::string>& blocks) const {
  const std::string full = prefix_ + std::string(name);
  if (!blocks.empty() && (shape.rank() == 0 || shape[0] % std::ssize(blocks) != 0))
    throw ShapeError(
        fmt::format("parameter {} has shape {}, which is not made of {} blocks of rows", full,
                    shape.str(), blocks.size()));
  if (const auto entry = store_->find(full)) {
    if (entry->bound)
      throw ValueError(fmt::format(
          "parameter {} exists already: give each module a part of its own, as in p / \"name\"",
          full));
    if (entry->value.shape() != shape)
      throw ShapeError(fmt::format("parameter {} has shape {}, but the module asks for {}", full,
                                   entry->value.shape().str(), shape.str()));
    entry->bound = true;
    entry->blocks = blocks;
    return Param(entry);
  }
  Rng rng = store_->rng.stream(full);
  return Param(
      store_->add({.name = full, .value = init(rng, shape, store_->dtype), .blocks = blocks}));
}

Param Params::operator[](std::string_view name) const {
  if (auto entry = store_->find(prefix_ + std::string(name))) return Param(std::move(entry));
  std::vector<std::string> names;
  each([&](const auto& entry) { names.push_back(entry->name.substr(prefix_.size())); });
  throw ValueError(fmt::format("there is no parameter {}{}; there are: {}", prefix_, name,
                               fmt::join(names, ", ")));
}

std::vector<Param> Params::list() const {
  std::vector<Param> params;
  each([&](const auto& entry) { params.emplace_back(entry); });
  return params;
}

Index Params::count() const {
  Index count = 0;
  each([&](const auto& entry) { count += entry->value.size(); });
  return count;
}

DType Params::dtype() const { return store_->dtype; }

Params Params::to(DType dtype) const {
  Params copy(store_->rng.state().seed, dtype);
  each([&](const auto& entry) {
    Tensor value = entry->value.to(dtype);
    dispatch_real(dtype, [&]<class T>() { value.edit<T>(); });  // a copy of its own
    ParamEntry unclaimed = *entry;
    unclaimed.name = entry->name.substr(prefix_.size());
    unclaimed.value = std::move(value);
    unclaimed.version = 0;
    unclaimed.bound = false;
    copy.store_->add(std::move(unclaimed));
  });
  return copy;
}

bool Params::contains(const ParamEntry& param) const {
  return param.index < entries().size() && entries()[param.index].get() == &param &&
         param.name.starts_with(prefix_);
}

}  // namespace reel
