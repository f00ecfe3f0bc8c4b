#include <reel/datasets/confusion_matrix.h>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include <reel/autograd/engine/table.h>
#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/datasets/counted.h>

namespace reel::datasets {
namespace {

constexpr Index most_classes = 4096;  // counts take the square of it
constexpr std::size_t longest_name = 24;

Index required(Index classes, Site site) {
  if (classes < 1 || classes > most_classes)
    throw ValueError(
        fmt::format("ConfusionMatrix: there are {} classes, not 1 to {}", classes, most_classes),
        site);
  return classes;
}

}  // namespace

ConfusionMatrix::ConfusionMatrix(Arg<Index> classes, Site site)
    : classes_(required(classes, site)), counts_(static_cast<std::size_t>(classes_ * classes_)) {}

ConfusionMatrix::ConfusionMatrix(std::vector<std::string> names, Site site)
    : ConfusionMatrix(names.size(), site) {
  names_ = std::move(names);
}

void ConfusionMatrix::add(const Tensor& targets, const Tensor& predictions, const Ignored& ignored,
                          Site site) {
  const auto positions = counted("ConfusionMatrix::add", targets, predictions, ignored, site);
  for (const auto [target, prediction] : positions) {
    require_class(target, site);
    require_class(prediction, site);
  }
  for (const auto [target, prediction] : positions) ++counts_[place(target, prediction)];
}

Index ConfusionMatrix::count(Arg<Index> target, Arg<Index> prediction, Site site) const {
  require_class(target, site);
  require_class(prediction, site);
  return counts_[place(target, prediction)];
}

Index ConfusionMatrix::total() const {
  return std::accumulate(counts_.begin(), counts_.end(), Index{0});
}

double ConfusionMatrix::accuracy() const { return micro_f1(); }

FScore ConfusionMatrix::score(Arg<Index> c, Site site) const {
  require_class(c, site);
  FScore score{.correct = counts_[place(c, c)]};
  for (Index other = 0; other < classes_; ++other) {
    score.targets += counts_[place(c, other)];
    score.predictions += counts_[place(other, c)];
  }
  return score;
}

double ConfusionMatrix::macro_f1() const {
  double sum = 0;
  Index occurring = 0;
  for (Index c = 0; c < classes_; ++c) {
    const FScore of_class = score(c);
    if (of_class.targets + of_class.predictions == 0) continue;
    sum += of_class.f1();
    ++occurring;
  }
  return occurring == 0 ? 0 : sum / static_cast<double>(occurring);
}

double ConfusionMatrix::micro_f1(std::span<const Index> without, Site site) const {
  for (const Index c : without) require_class(c, site);
  FScore all;
  for (Index c = 0; c < classes_; ++c)
    if (std::ranges::find(without, c) == without.end()) all += score(c);
  return all.f1();
}

std::string ConfusionMatrix::str() const {
  std::vector<std::string> header{"target"};
  for (Index c = 0; c < classes_; ++c) header.push_back(name(c));
  for (const char* column : {"precision", "recall", "F1"}) header.emplace_back(column);
  Table table(std::move(header));
  for (Index c = 0; c < classes_; ++c) {
    const FScore of_class = score(c);
    std::vector<std::string> row{name(c)};
    for (Index other = 0; other < classes_; ++other)
      row.push_back(std::to_string(counts_[place(c, other)]));
    for (const double x : {of_class.precision(), of_class.recall(), of_class.f1()})
      row.push_back(fmt::format("{:.3f}", x));
    table.add(std::move(row));
  }
  return table.str();
}

void ConfusionMatrix::require_class(Index c, Site site) const {
  if (c < 0 || c >= classes_)
    throw ValueError(
        fmt::format("ConfusionMatrix: there is no class {}; there are {}", c, classes_), site);
}

std::string ConfusionMatrix::name(Index c) const {
  return names_.empty() ? std::to_string(c)
                        : printable(names_[static_cast<std::size_t>(c)], longest_name);
}

}  // namespace reel::datasets
