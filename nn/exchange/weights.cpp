#include <reel/nn/exchange/weights.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/message.h>
#include <reel/autograd/tape.h>
#include <reel/nn/exchange/conversion.h>

namespace reel::nn {
namespace {

using exchange::Array;
using exchange::Conversion;
using exchange::Part;
using exchange::Values;

constexpr std::size_t longest = 80;  // of a name in a message

const char* name_of(GateOrder order) {
  constexpr std::array names{"Reel", "PyTorch", "Keras", "Flax"};
  return names[static_cast<std::size_t>(order)];
}

// In Keras and Flax the names of files are paths, with the modules that users have around.
bool is_path(GateOrder order) { return order == GateOrder::keras || order == GateOrder::flax; }

std::vector<Conversion> conversions_of(const std::vector<Part>& parts, GateOrder order,
                                       const NamedTensors* source) {
  if (order == GateOrder::torch) return exchange::as_torch(parts, source);
  std::vector<Conversion> conversions;
  std::ranges::transform(parts, std::back_inserter(conversions),
                         order == GateOrder::keras  ? exchange::as_keras
                         : order == GateOrder::flax ? exchange::as_flax
                                                    : exchange::unchanged);
  return conversions;
}

std::string with(std::string text, char old, char replacement) {
  std::ranges::replace(text, old, replacement);
  return text;
}

std::string joined(const Array& array, GateOrder order) {
  std::string name = is_path(order) ? with(array.layer, '.', '_') : array.layer;
  for (const std::string* part : {&array.between, &array.leaf})
    if (!part->empty()) name += (name.empty() ? "" : is_path(order) ? "/" : ".") + *part;
  return name;
}

// Whether a path has the layer, with points as "/" or "_", then the direction, and ends with the
// array.
bool fits(const std::string& path, const Array& array) {
  const std::string end = '/' + array.leaf, whole = '/' + path;
  if (!whole.ends_with(end)) return false;
  const std::string before = whole.substr(0, whole.size() - end.size()) + '/';
  for (const char point : {'/', '_'}) {
    const std::string layer = array.layer.empty() ? "" : '/' + with(array.layer, '.', point);
    const std::size_t at = before.find(layer + '/');
    if (at == before.npos) continue;
    const std::string between = before.substr(at + layer.size());
    if (array.direction.empty() || between.find('/' + array.direction) != between.npos) return true;
  }
  return false;
}

// The names of a source that an array has: one, none, or several by mistake.
std::vector<std::string> names_in(const NamedTensors& source, const Array& array, GateOrder order) {
  const std::string name = joined(array, order);
  if (source.tensors.contains(name) || source.unread.contains(name)) return {name};
  std::vector<std::string> found;
  if (!is_path(order)) return found;
  for (const auto& [there, value] : source.tensors)
    if (fits(there, array)) found.push_back(there);
  return found;
}

[[noreturn]] void fail(const std::string& what) {
  throw ValueError("load_weights: " + what, SiteScope::current());
}

// Reads a source into the values of a model, and takes note of what does not fit.
class Loader {
 public:
  Loader(const NamedTensors& source, GateOrder order, const LoadOptions& options, DType dtype)
      : source_(source), order_(order), options_(options), dtype_(dtype) {
    for (const auto& [name, value] : source.tensors) unused_.insert(name);
    for (const auto& [name, reason] : source.unread) unused_.insert(name);
  }

  void add(const Conversion& conversion) {
    std::vector<Tensor> arrays;
    std::size_t missing = 0, faults = faults_.size();
    for (const Array& array : conversion.arrays) {
      arrays.push_back(take(array));
      if (arrays.back().defined() || array.optional) continue;
      ++missing;
      missing_.push_back(joined(array, order_));
    }
    if (missing > 0 || faults < faults_.size()) return;
    for (auto& [name, value] : conversion.from(arrays))
      set(conversion.part->params.at(name), value);
  }

  // Throws unless all fits; changes the model.
  LoadReport finish() {
    std::vector<std::string> faults = faults_;
    if (!options_.partial) {
      for (const std::string& name : missing_)
        faults.push_back(printable(name, longest) + " is missing" + suggestion_for(name));
      for (const std::string& name : unused_)
        faults.push_back(printable(name, longest) + " belongs to no parameter of the model");
    }
    if (!faults.empty())
      fail(fmt::format("the weights of {} do not fit this model: {}", name_of(order_),
                       listed(faults)));
    for (auto& [param, value] : values_) param.set(value);
    return {missing_, {unused_.begin(), unused_.end()}};
  }

 private:
  // The array, undefined if it is not there or does not fit.
  Tensor take(const Array& array) {
    const std::vector<std::string> names = names_in(source_, array, order_);
    if (names.empty()) return {};
    if (names.size() > 1)
      fail(fmt::format("{} of {} could be each of {}; rename all but one", array.leaf, array.layer,
                       listed(names)));
    const std::string& name = names.front();
    if (!used_.insert(name).second)
      fail(fmt::format("{} fits two arrays of the model, the second one {} of {}",
                       printable(name, longest), array.leaf, array.layer));
    unused_.erase(name);
    const Tensor& value = source_[name];
    if (value.shape() == array.shape) return converted(name, value);
    faults_.push_back(fmt::format("{} is {}, but the model has {}", printable(name, longest),
                                  value.shape().str(), array.shape.str()));
    return {};
  }

  Tensor converted(const std::string& name, const Tensor& value) {
    if (value.dtype() == i32 || (value.dtype() == f64 && dtype_ == f32 && !options_.round))
      throw DTypeError(
          fmt::format("load_weights: {} is {}, but the model {}{}", printable(name, longest),
                      reel::name_of(value.dtype()), reel::name_of(dtype_),
                      value.dtype() == f64 ? "; build it in f64, or ask for {.round = true}" : ""),
          SiteScope::current());
    return value.to(dtype_);
  }

  // Tied layers share a parameter, which has one value.
  void set(const Param& param, const Tensor& value) {
    const auto [place, is_new] = by_name_.emplace(param.name(), values_.size());
    if (is_new)
      values_.emplace_back(param, value);
    else if (values_[place->second].second.to_vector() != value.to_vector())
      faults_.push_back(fmt::format("{} has two values, but the model ties the layers that have it",
                                    param.name()));
  }

  std::string suggestion_for(const std::string& name) const {
    const auto meant = nearest(name, {unused_.begin(), unused_.end()});
    return meant ? fmt::format(" (is it {}?)", printable(*meant, longest)) : "";
  }

  const NamedTensors& source_;
  GateOrder order_;
  LoadOptions options_;
  DType dtype_;
  std::vector<std::string> missing_, faults_;
  std::set<std::string> unused_, used_;
  std::map<std::string, std::size_t> by_name_;
  std::vector<std::pair<Param, Tensor>> values_;
};

}  // namespace

std::string LoadReport::str() const {
  if (complete()) return "all weights were loaded";
  std::vector<std::string> parts;
  if (!missing.empty()) parts.push_back("not in the file: " + listed(missing));
  if (!unused.empty()) parts.push_back("not used: " + listed(unused));
  return parts.size() == 1 ? parts[0] : parts[0] + "; " + parts[1];
}

NamedTensors exchange::exported(const std::vector<Conversion>& conversions, GateOrder order) {
  NamedTensors result;
  for (const Conversion& conversion : conversions) {
    Values values;
    for (const auto& [name, param] : conversion.part->params) values.emplace(name, param.value());
    const std::vector<Tensor> arrays = conversion.to(values);
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      const std::string name = joined(conversion.arrays[i], order);
      if (!result.tensors.emplace(name, arrays[i].detach()).second)
        throw ValueError(fmt::format("weights_as: two arrays would have the name {} in {}; rename "
                                     "the part {}",
                                     name, name_of(order), conversion.part->name),
                         SiteScope::current());
    }
  }
  return result;
}

NamedTensors weights_as(GateOrder order, const Params& params, Site site) {
  const SiteScope scope(site);
  const NoRecord pause;
  const std::vector<Part> parts = exchange::parts_of(params);
  return exchange::exported(conversions_of(parts, order, nullptr), order);
}

LoadReport load_weights(const NamedTensors& source, GateOrder order, const Params& params,
                        const LoadOptions& options, Site site) {
  const SiteScope scope(site);
  const NoRecord pause;
  const std::vector<Part> parts = exchange::parts_of(params);
  Loader loader(source, order, options, params.dtype());
  for (const Conversion& conversion : conversions_of(parts, order, &source)) loader.add(conversion);
  return loader.finish();
}

GateOrder gate_order_of(const NamedTensors& source, Site site) {
  const auto any = [&](const auto& is) {
    return std::ranges::any_of(source.tensors, [&](const auto& item) { return is(item.first); });
  };
  const auto ends = [](const char* end) {
    return [end](const std::string& name) { return ("/" + name).ends_with(end); };
  };
  if (any([](const std::string& name) { return name.find("weight_ih") != name.npos; }))
    return GateOrder::torch;
  if (any(ends("/recurrent_kernel"))) return GateOrder::keras;
  for (const char* state : {"/hi/kernel", "/hn/kernel", "/h/kernel"})
    if (any(ends(state))) return GateOrder::flax;
  if (any([](const std::string& name) { return ("." + name).ends_with(".w_ih"); }))
    return GateOrder::reel;
  throw ValueError(
      "the order of the gates cannot be told from the names: none of them is one of "
      "PyTorch (weight_ih_l0), Keras (recurrent_kernel), Flax (hi/kernel) or Reel "
      "(w_ih); say whose weights they are",
      site);
}

}  // namespace reel::nn
