// Inspection of a tape: a table, a graph, and the first number that is not finite.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <set>

#include <reel/autograd/engine/inspect.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/engine/table.h>
#include <reel/autograd/tape.h>

namespace reel {
using namespace op;

std::optional<std::string> first_not_finite(const Tensor& x, std::int32_t step) {
  if (!x.defined() || !is_real(x.dtype())) return {};
  return dispatch_real(x.dtype(), [&]<class T>() -> std::optional<std::string> {
    const std::span<const T> numbers = x.values<T>();
    const auto found = std::ranges::find_if(numbers, [](T v) { return !std::isfinite(v); });
    if (found == numbers.end()) return {};
    std::vector<Index> place;
    for (int axis = 0; axis < x.rank(); ++axis)
      place.push_back((found - numbers.begin()) / x.shape().stride(axis) % x.shape()[axis]);
    // Sequences are time-major.
    const Index time = step >= 0 ? step : x.rank() == 3 ? place[0] : -1;
    return fmt::format("{} at [{}] of {}{}", std::isnan(*found) ? "NaN" : "infinite",
                       fmt::join(place, ", "), x.shape().str(),
                       time < 0 ? "" : fmt::format(" (time step {})", time));
  });
}

namespace {

std::int64_t bytes_of(const Shape& shape, DType dtype) {
  return shape.size() * static_cast<std::int64_t>(size_of(dtype));
}

}  // namespace

// The module that was set, or else that of the first parameter among the inputs.
std::string_view Tape::module_name(const Record& record) const {
  if (record.module >= 0) return place_of(record).module;
  for (std::int32_t i = 0; i < record.input_count; ++i)
    if (const ParamEntry* entry = parameter(input_slot(record, i))) return module_of(entry->name);
  return {};
}

const ParamEntry* Tape::parameter(std::int32_t slot) const {
  const auto found = std::ranges::find(leaves_, slot, &Leaf::slot);
  return found == leaves_.end() ? nullptr : found->entry.get();
}

// A parameter's name, or the number of the slot.
std::string Tape::slot_name(std::int32_t slot) const {
  const ParamEntry* entry = parameter(slot);
  return entry ? entry->name : fmt::format("%{}", slot);
}

void Tape::print() const { print(std::cout); }

void Tape::print(std::ostream& out) const {
  const auto described = [this](std::int32_t slot) {
    return slot_name(slot) + " " + slots_[static_cast<std::size_t>(slot)].shape.str();
  };
  Table table({"record", "op", "inputs", "outputs", "bytes", "held", "module", "step", "place"});
  std::int64_t all_bytes = 0, all_held = 0;
  for (std::size_t r = 0; r < records_.size(); ++r) {
    const Record& record = records_[r];
    std::vector<std::string> inputs, outputs;
    for (std::int32_t i = 0; i < record.input_count; ++i)
      if (const std::int32_t slot = input_slot(record, i); slot >= 0)
        inputs.push_back(described(slot));
    std::int64_t bytes = 0, held = 0;
    for (std::int32_t k = 0; k < record.output_count; ++k) {
      const Slot& slot = slots_[static_cast<std::size_t>(record.first_output + k)];
      outputs.push_back(described(record.first_output + k));
      bytes += bytes_of(slot.shape, slot.dtype);
      if (slot.buffer) held += bytes_of(slot.shape, slot.dtype);
    }
    table.add({std::to_string(r), std::string(record.op->name),
               fmt::format("{}", fmt::join(inputs, ", ")),
               fmt::format("{}", fmt::join(outputs, ", ")), std::to_string(bytes),
               std::to_string(held), std::string(module_name(record)),
               record.step < 0 ? "" : std::to_string(record.step), record.site().place()});
    all_bytes += bytes;
    all_held += held;
  }
  out << table.str()
      << fmt::format("{} records, {} values, {} parameters; outputs of {} bytes, {} of them held\n",
                     records_.size(), slots_.size(), leaves_.size(), all_bytes, all_held);
}

std::int64_t Tape::held_bytes() const {
  std::set<const void*> counted;
  std::int64_t bytes = 0;
  for (std::size_t r = 0; r < records_.size(); ++r)
    for (std::int32_t k = 0; k < records_[r].output_count; ++k) {
      const Slot& slot = slots_[static_cast<std::size_t>(records_[r].first_output + k)];
      if (slot.buffer && counted.insert(slot.buffer.data()).second)
        bytes += bytes_of(slot.shape, slot.dtype);
    }
  return bytes;
}

std::string Tape::dot() const {
  std::string text = "digraph tape {\n  node [shape=box, fontname=\"sans-serif\"];\n";
  std::vector<std::string> maker(slots_.size());  // the node that produced a value
  for (std::size_t r = 0; r < records_.size(); ++r)
    for (std::int32_t k = 0; k < records_[r].output_count; ++k)
      maker[static_cast<std::size_t>(records_[r].first_output + k)] = fmt::format("r{}", r);
  for (std::size_t s = 0; s < slots_.size(); ++s) {
    if (!maker[s].empty()) continue;
    maker[s] = fmt::format("v{}", s);
    const auto slot = static_cast<std::int32_t>(s);
    text +=
        fmt::format("  v{} [label=\"{}\\n{}\", style=filled, fillcolor={}];\n", s, slot_name(slot),
                    slots_[s].shape.str(), parameter(slot) ? "lightyellow" : "lightgrey");
  }
  for (std::size_t r = 0; r < records_.size(); ++r) {
    const Record& record = records_[r];
    const std::string_view module = module_name(record);
    text += fmt::format("  r{} [label=\"{}{}{}\", style=rounded];\n", r, record.op->name,
                        module.empty() ? "" : "\\n", module);
    for (std::int32_t i = 0; i < record.input_count; ++i) {
      if (input_slot(record, i) < 0) continue;  // absent
      const auto slot = static_cast<std::size_t>(input_slot(record, i));
      text +=
          fmt::format("  {} -> r{} [label=\"{}\"];\n", maker[slot], r, slots_[slot].shape.str());
    }
  }
  return text + "}\n";
}

void Tape::check_finite(const OpSpec& op, std::span<const Tensor* const> inputs,
                        std::span<const Tensor> outputs, Site site) const {
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const auto found = first_not_finite(outputs[k], current_place.step);
    if (!found) continue;
    std::string text = fmt::format("check_finite: output {} of {} is {}", k, op.called(), *found);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (const auto cause = first_not_finite(*inputs[i], -1))
        text +=
            fmt::format("; its argument {} is {}", op.argument(static_cast<int>(i)).name, *cause);
    throw NotFiniteError(text, site);
  }
}

void Tape::add_to_profile(const OpSpec& op, std::span<const Tensor> outputs,
                          const Profile::TimePoint& begin) {
  std::int64_t bytes = 0;
  for (const Tensor& y : outputs) bytes += bytes_of(y.shape(), y.dtype());
  profile_.add(op.name, Profile::Pass::forward, current_place.module, current_place.step, begin,
               bytes);
}

}  // namespace reel
