#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include <reel/autograd/error.h>

#include "json_lines.h"
#include "metrics.h"

namespace reel::char_lm {
namespace {

const Json& array_in(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array())
    throw ValueError(fmt::format("it has no array \"{}\"", key));
  return *found;
}

const Json& object_of(const Json& json, std::string_view what) {
  if (!json.is_object()) throw ValueError(fmt::format("its {} is not an object", what));
  return json;
}

// Null stands for an infinite number.
std::vector<double> numbers_in(const Json& object, const std::string& key) {
  std::vector<double> numbers;
  for (const Json& value : array_in(object, key)) {
    if (!value.is_number() && !value.is_null())
      throw ValueError(fmt::format("its \"{}\" does not hold numbers alone", key));
    numbers.push_back(value.is_null() ? INFINITY : value.get<double>());
  }
  return numbers;
}

// Of the models of the command these three gates are a tanh; the others are a sigmoid.
double lowest_of(std::string_view gate) {
  return gate == "hidden" || gate == "new" || gate == "cell" ? -1 : 0;
}

nn::GateReport gate_of(const Json& json) {
  object_of(json, "gate");
  nn::GateReport gate{.name = text_in(json, "name"),
                      .lowest = lowest_of(text_in(json, "name")),
                      .saturated = number_in(json, "saturated")};
  const Json& counts = array_in(json, "histogram");
  if (counts.size() != gate.histogram.size())
    throw ValueError("its \"histogram\" does not have 20 bins");
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (!counts[i].is_number_unsigned() || counts[i].get<std::uint64_t>() >= std::uint64_t{1} << 53)
      throw ValueError("its \"histogram\" does not hold counts alone");
    gate.histogram[i] = counts[i].get<Index>();
  }
  return gate;
}

nn::LayerReport layer_of(const Json& json) {
  object_of(json, "layer");
  nn::LayerReport layer{.name = text_in(json, "name"),
                        .gradient_norms = numbers_in(json, "gradient_norms"),
                        .jacobian_norms = numbers_in(json, "jacobian_norms")};
  for (const Json& gate : array_in(json, "gates")) layer.gates.push_back(gate_of(gate));
  if (const auto found = json.find("time_constants"); found != json.end()) {
    const auto quantile = [&](const char* name) {
      return number_if(object_of(*found, "time_constants"), name).value_or(INFINITY);
    };
    layer.time_constants = {quantile("p5"), quantile("median"), quantile("p95")};
  }
  return layer;
}

Diagnosis diagnosis_of(const Json& json) {
  Diagnosis diagnosis;
  for (const Json& layer : array_in(object_of(json, "diagnostics"), "layers"))
    diagnosis.layers.push_back(layer_of(layer));
  return diagnosis;
}

// Earlier versions have it in the diagnostics.
std::optional<optim::ClipCount> clip_of(const Json& json) {
  const auto found = json.find("clip");
  if (found == json.end()) return std::nullopt;
  const Json& clip = object_of(*found, "clip");
  return optim::ClipCount{.steps = count_in(clip, "steps"),
                          .clipped = count_in(clip, "clipped"),
                          .mean_norm = number_in(clip, "mean_norm"),
                          .largest_norm = number_in(clip, "largest_norm")};
}

Metrics metrics_of(const Json& json) {
  Metrics m{.step = count_in(json, "step"),
            .epoch = static_cast<int>(std::min<Index>(count_in(json, "epoch"), 1'000'000)),
            .train_loss = number_in(json, "train_loss"),
            .valid_loss = number_if(json, "valid_loss"),
            .lr = number_in(json, "lr"),
            .grad_norm = number_in(json, "grad_norm"),
            .chars_per_s = number_in(json, "chars_per_s"),
            .elapsed_s = number_in(json, "elapsed_s"),
            .clip = clip_of(json),
            .skipped = json.contains("skipped") ? count_in(json, "skipped") : 0};
  if (const auto found = json.find("diagnostics"); found != json.end()) {
    m.diagnosis = diagnosis_of(*found);
    if (!m.clip) m.clip = clip_of(*found);
  }
  return m;
}

}  // namespace

void each_metrics(const nn::Location& where, const std::function<void(const Metrics&)>& f) {
  each_object(where, [&](const Json& object, std::uint64_t) {
    f(metrics_of(object));
    return true;
  });
}

}  // namespace reel::char_lm
