#include <reel/autograd/substitution.h>

#include <fmt/format.h>

#include <algorithm>

namespace reel {
namespace {
thread_local const Substitution* innermost = nullptr;
}  // namespace

Substitution::Substitution(Values values, Site site) : values_(std::move(values)) {
  for (const auto& [entry, value] : values_) {
    if (!value.defined())
      throw ValueError(
          fmt::format("parameter {}: the value in its place is undefined", entry->name), site);
    if (value.shape() != entry->value.shape())
      throw ShapeError(fmt::format("parameter {} has shape {}, the value in its place {}",
                                   entry->name, entry->value.shape().str(), value.shape().str()),
                       site);
    if (value.dtype() != entry->value.dtype())
      throw DTypeError(
          fmt::format("parameter {} is {}, the value in its place {}; convert it with to()",
                      entry->name, name_of(entry->value.dtype()), name_of(value.dtype())),
          site);
  }
  std::ranges::sort(values_, {}, [](const auto& item) { return item.first.get(); });
  outer_ = std::exchange(innermost, this);
}

Substitution::~Substitution() { innermost = outer_; }

NoSubstitution::NoSubstitution() : before_(std::exchange(innermost, nullptr)) {}
NoSubstitution::~NoSubstitution() { innermost = before_; }

const Tensor* Substitution::find(ParamEntry* entry) {
  for (const Substitution* s = innermost; s; s = s->outer_) {
    const auto found = std::ranges::lower_bound(s->values_, entry, {},
                                                [](const auto& item) { return item.first.get(); });
    if (found != s->values_.end() && found->first.get() == entry) return &found->second;
  }
  return nullptr;
}

Substitution::Values Substitution::current() {
  Values all;
  for (const Substitution* s = innermost; s; s = s->outer_)
    for (const auto& item : s->values_)
      if (find(item.first.get()) == &item.second) all.push_back(item);
  return all;
}

}  // namespace reel
