#include <reel/datasets/span_scores.h>

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include <reel/autograd/engine/table.h>
#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

namespace reel::datasets {
namespace {

void require_label(std::string_view label, std::size_t i, Site site) {
  const bool has_type = label.size() > 2 && (label.starts_with("B-") || label.starts_with("I-"));
  if (label != "O" && !has_type)
    throw ValueError(fmt::format("label {} is {}, not O, B-TYPE or I-TYPE", i, in_quotes(label)),
                     site);
}

}  // namespace

std::vector<LabelledSpan> spans_of(std::span<const std::string> labels, StrayInside stray,
                                   Site site) {
  std::vector<LabelledSpan> spans;
  bool inside = false;  // of the last span
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::string_view label = labels[i];
    require_label(label, i, site);
    const std::string_view type = label.substr(std::min<std::size_t>(label.size(), 2));
    const bool continues = inside && label[0] == 'I' && spans.back().type == type;
    const bool begins =
        label[0] == 'B' || (label[0] == 'I' && !continues && stray == StrayInside::begins);
    const auto at = static_cast<Index>(i);
    if (begins) spans.push_back({at, at, std::string(type)});
    inside = begins || continues;
    if (inside) spans.back().end = at + 1;
  }
  return spans;
}

void SpanScores::add(std::span<const std::string> targets, std::span<const std::string> predictions,
                     Site site) {
  if (targets.size() != predictions.size())
    throw ValueError(fmt::format("SpanScores::add: there are {} targets, but {} predictions",
                                 targets.size(), predictions.size()),
                     site);
  const auto there = spans_of(targets, stray_, site), found = spans_of(predictions, stray_, site);
  for (const LabelledSpan& span : there) ++types_[span.type].targets;
  auto target = there.begin();  // both ascend, without overlaps
  for (const LabelledSpan& span : found) {
    FScore& score = types_[span.type];
    ++score.predictions;
    while (target != there.end() && target->begin < span.begin) ++target;
    if (target != there.end() && *target == span) ++score.correct;
  }
}

FScore SpanScores::total() const {
  FScore all;
  for (const auto& [type, score] : types_) all += score;
  return all;
}

double SpanScores::macro_f1() const {
  double sum = 0;
  for (const auto& [type, score] : types_) sum += score.f1();
  return types_.empty() ? 0 : sum / static_cast<double>(types_.size());
}

std::string SpanScores::str() const {
  Table table({"type", "targets", "predictions", "correct", "precision", "recall", "F1"});
  const auto add = [&](const std::string& name, const FScore& score) {
    table.add({name, std::to_string(score.targets), std::to_string(score.predictions),
               std::to_string(score.correct), fmt::format("{:.3f}", score.precision()),
               fmt::format("{:.3f}", score.recall()), fmt::format("{:.3f}", score.f1())});
  };
  for (const auto& [type, score] : types_) add(printable(type, 24), score);
  add("all", total());
  return table.str();
}

}  // namespace reel::datasets
