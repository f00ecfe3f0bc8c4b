#include <reel/autograd/params.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <map>
#include <unordered_map>

#include <reel/autograd/message.h>
#include <reel/autograd/substitution.h>

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

void Param::set(const Tensor& value, Site site) {
  if (!value.defined())
    throw ValueError(fmt::format("parameter {}: the new value is undefined", name()), site);
  if (value.shape() != shape())
    throw ShapeError(fmt::format("parameter {} has shape {}, not {}", name(), shape().str(),
                                 value.shape().str()),
                     site);
  if (value.dtype() != dtype())
    throw DTypeError(fmt::format("parameter {} is {}, not {}; convert the value with to()", name(),
                                 name_of(dtype()), name_of(value.dtype())),
                     site);
  detail::ParamData& data = to_change(site);
  data.value = value.detach();
  ++data.version;
}

void Param::begin_update() {
  detail::ParamData& data = to_change(SiteScope::current());
  dispatch_real(dtype(), [&]<class T>() { data.value.template begin_update<T>(); });
  ++data.version;
}

const Tensor& Param::value() const {
  const Tensor* other = Substitution::find(entry_.get());
  return other ? *other : entry_->value;
}

detail::ParamData& Param::to_change(Site site) const {
  if (Substitution::find(entry_.get()))
    throw ValueError(fmt::format("parameter {} cannot be changed while another value is in its "
                                 "place (functional_call)",
                                 name()),
                     site);
  return data();
}

namespace detail {

class ParamStore {
 public:
  ParamStore(std::uint64_t seed, DType dtype) : rng(seed), dtype(dtype) {}

  std::shared_ptr<ParamData> find(std::string_view name) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return nullptr;
    return std::const_pointer_cast<ParamData>(entries[found->second]);
  }
  std::shared_ptr<ParamData> add(ParamData data) {
    data.index = entries.size();
    auto entry = std::make_shared<ParamData>(std::move(data));
    entries.push_back(entry);
    by_name_.emplace(entry->name, entry->index);
    return entry;
  }
  // Leaves a gap: gradients refer to the other parameters by index.
  void remove(const ParamData& entry) {
    by_name_.erase(entry.name);
    entries[entry.index].reset();
  }

  Rng rng;
  DType dtype;
  std::vector<std::shared_ptr<ParamEntry>> entries;
  std::map<std::string, std::string, std::less<>> kinds;  // of parts

 private:
  std::unordered_map<std::string_view, std::size_t> by_name_;  // the keys point into the entries
};

}  // namespace detail

// Called when an exception unwinds a constructor.
void Param::withdraw() noexcept {
  const auto store = entry_->store.lock();
  if (!store || std::uncaught_exceptions() == 0) return;
  if (entry_->imported)
    data().bound = false;
  else
    store->remove(*entry_);
}

namespace {

void require_name(std::string_view name, Site site) {
  if (name.empty() || name.front() == '.' || name.back() == '.' ||
      name.find("..") != std::string_view::npos)
    throw ValueError(fmt::format("\"{}\" is no name for parameters or a part of them; points join "
                                 "names that are not empty",
                                 name),
                     site);
}

}  // namespace

Params::Params(std::uint64_t seed, DType dtype, Site site)
    : store_(std::make_shared<detail::ParamStore>(seed, dtype)) {
  if (!is_real(dtype)) throw DTypeError("Params: parameters are f32 or f64, not i32", site);
}

Params::Params(std::shared_ptr<detail::ParamStore> store, std::string prefix, Site site)
    : store_(std::move(store)), prefix_(std::move(prefix)), site_(site) {}

const std::vector<std::shared_ptr<ParamEntry>>& Params::entries() const { return store_->entries; }

Params Params::operator/(const ParamName& name) const {
  const Site site = SiteScope::resolve(name.site());
  require_name(name, site);
  return Params(store_, fmt::format("{}{}.", prefix_, std::string_view(name)), site);
}

Param Params::create(std::string_view name, const Shape& shape, const Initializer& init,
                     const std::vector<std::string>& blocks, Site site) const {
  require_name(name, site);
  const std::string full = prefix_ + std::string(name);
  if (!blocks.empty() && (shape.rank() == 0 || shape[0] % std::ssize(blocks) != 0))
    throw ShapeError(
        fmt::format("parameter {} has shape {}, which is not made of {} blocks of rows", full,
                    shape.str(), blocks.size()),
        site);
  auto entry = store_->find(full);
  if (entry) {
    if (entry->bound)
      throw ValueError(
          fmt::format("parameter {} exists already: give each module a part of its own, as in p / "
                      "\"name\"",
                      full),
          site);
    if (entry->value.shape() != shape)
      throw ShapeError(fmt::format("parameter {} has shape {}, but the module asks for {}", full,
                                   entry->value.shape().str(), shape.str()),
                       site);
    entry->bound = true;
    entry->blocks = blocks;
  } else {
    Rng rng = store_->rng.stream(full);
    const SiteScope scope(site);
    Tensor value = init(rng, shape, store_->dtype).detach();
    if (value.shape() != shape || value.dtype() != store_->dtype)
      throw ShapeError(fmt::format("parameter {} is {} {}, but its initial values are {} {}", full,
                                   name_of(store_->dtype), shape.str(), name_of(value.dtype()),
                                   value.shape().str()),
                       site);
    entry =
        store_->add({.name = full, .value = std::move(value), .blocks = blocks, .store = store_});
  }
  Param param(std::move(entry));
  param.created_ = true;
  return param;
}

void Params::set_kind(std::string_view kind) const { store_->kinds.insert_or_assign(name(), kind); }

const std::map<std::string, std::string, std::less<>>& Params::kinds() const {
  return store_->kinds;
}

Param Params::operator[](const ParamName& name) const {
  const std::string_view wanted = name;
  if (auto entry = store_->find(prefix_ + std::string(wanted))) return Param(std::move(entry));
  std::vector<std::string> names;
  each([&](const auto& entry) { names.push_back(entry->name.substr(prefix_.size())); });
  throw ValueError(fmt::format("there is no parameter {}{}{}", printable(prefix_),
                               printable(wanted), suggestion(wanted, names)),
                   name.site());
}

std::string Params::what_there_is() const {
  const std::string name = this->name();
  if (name.empty()) return "the store has no parameters; construct the model first";
  // The names next to it: those of its longest existing parent part.
  std::string parent = name, wanted;
  std::vector<std::string> names;
  while (names.empty() && !parent.empty()) {
    const std::size_t dot = parent.rfind('.');
    wanted = parent.substr(dot == std::string::npos ? 0 : dot + 1);
    parent = dot == std::string::npos ? "" : parent.substr(0, dot);
    const std::string prefix = parent.empty() ? "" : parent + ".";
    for (const auto& entry : entries())
      if (entry && entry->name.starts_with(prefix)) {
        std::string part = entry->name.substr(prefix.size());
        part = part.substr(0, part.find('.'));
        if (std::ranges::find(names, part) == names.end()) names.push_back(std::move(part));
      }
  }
  return fmt::format("there are no parameters under {}{}", printable(name),
                     suggestion(wanted, names));
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

Rng Params::rng_of(const Param& param) const { return store_->rng.stream(param.name()); }

Params Params::to(DType dtype) const {
  Params copy(store_->rng.state().seed, dtype);
  each([&](const auto& entry) {
    Tensor value = entry->value.to(dtype);
    dispatch_real(dtype, [&]<class T>() { value.begin_update<T>(); });  // its own copy
    detail::ParamData unclaimed = *entry;
    unclaimed.name = entry->name.substr(prefix_.size());
    unclaimed.value = std::move(value);
    unclaimed.version = 0;
    unclaimed.bound = false;
    unclaimed.imported = true;
    unclaimed.store = copy.store_;
    copy.store_->add(std::move(unclaimed));
  });
  for (const auto& [part, kind] : store_->kinds)
    if (part.starts_with(prefix_)) copy.store_->kinds.emplace(part.substr(prefix_.size()), kind);
  return copy;
}

bool Params::store_contains(const ParamEntry& param) const {
  return param.index < entries().size() && entries()[param.index].get() == &param;
}

bool Params::contains(const ParamEntry& param) const {
  return store_contains(param) && param.name.starts_with(prefix_);
}

}  // namespace reel
