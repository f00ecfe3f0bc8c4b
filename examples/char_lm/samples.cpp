#include "samples.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "json_lines.h"

namespace reel::char_lm {
namespace {

Sample sample_of(const Json& object) {
  return {.step = count_in(object, "step"),
          .epoch = static_cast<int>(std::min<Index>(count_in(object, "epoch"), 1'000'000)),
          .text = text_in(object, "text")};
}

}  // namespace

std::string json_line(const Sample& sample) {
  Json line;
  line["step"] = sample.step;
  line["epoch"] = sample.epoch;
  line["text"] = sample.text;
  return line.dump() + '\n';
}

void each_sample(const nn::Location& where, const std::function<void(Sample)>& f) {
  each_object(where, [&](const Json& object, std::uint64_t) {
    f(sample_of(object));
    return true;
  });
}

SamplesFile::SamplesFile(const nn::Location& where, Index last_step) : where_(where) {
  std::uint64_t kept = 0;
  each_object(where, [&](const Json& object, std::uint64_t end) {
    const Sample sample = sample_of(object);
    if (sample.step > last_step) return false;
    step_ = sample.step;
    kept = end;
    return true;
  });
  cut_off(where, kept);
}

void SamplesFile::append(const Sample& sample) {
  append_line(where_, json_line(sample));
  step_ = sample.step;
}

}  // namespace reel::char_lm
