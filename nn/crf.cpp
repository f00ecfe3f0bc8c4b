#include <reel/nn/crf.h>

#include <fmt/format.h>

#include <limits>
#include <string_view>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/message.h>
#include <reel/nn/init.h>

namespace reel::nn {
namespace {

// A label of a scheme of spans: 'B' and "PER" for B-PER, 'O' and "" for O.
struct SpanLabel {
  char place;
  std::string_view type;

  bool continues() const { return place == 'I' || place == 'E'; }
  // Whether the span may go on, which in BIOES it has to.
  bool open() const { return place == 'B' || place == 'I'; }
};

SpanLabel span_label(std::string_view label, std::size_t i, Site site) {
  if (label == "O") return {'O', {}};
  if (label.size() > 2 && label[1] == '-' &&
      std::string_view("BIES").find(label[0]) != std::string_view::npos)
    return {label[0], label.substr(2)};
  throw ValueError(
      fmt::format("span_constraints: label {} is {}, not O, B-TYPE, I-TYPE, E-TYPE or S-TYPE", i,
                  in_quotes(label)),
      site);
}

// A mask with 1 at these elements.
Tensor mask_of(const Shape& shape, const std::vector<Index>& elements) {
  if (elements.empty()) return {};
  Tensor mask = zeros(shape, i32);
  const auto numbers = mask.begin_update<std::int32_t>();
  for (const Index i : elements) numbers[static_cast<std::size_t>(i)] = 1;
  return mask;
}

Tensor allowed(const Tensor& scores, const Tensor& forbidden) {
  if (!forbidden.defined()) return scores;
  return masked_fill(scores, forbidden, -std::numeric_limits<double>::infinity());
}
Tensor constant(const Param& scores, const Tensor& forbidden) {
  return allowed(scores.value().detach(), forbidden);
}

}  // namespace

CrfConstraints span_constraints(const std::vector<std::string>& labels, Site site) {
  std::vector<SpanLabel> parts;
  bool ends_are_labelled = false;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    parts.push_back(span_label(labels[i], i, site));
    ends_are_labelled |= parts.back().place == 'E' || parts.back().place == 'S';
  }
  CrfConstraints result;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const SpanLabel& from = parts[i];
    if (from.continues()) result.begin.push_back(static_cast<Index>(i));
    if (ends_are_labelled && from.open()) result.end.push_back(static_cast<Index>(i));
    for (std::size_t j = 0; j < parts.size(); ++j) {
      const SpanLabel& to = parts[j];
      const bool goes_on = from.open() && to.continues() && from.type == to.type;
      const bool must = to.continues() || (ends_are_labelled && from.open());
      if (must && !goes_on)
        result.transitions.emplace_back(static_cast<Index>(i), static_cast<Index>(j));
    }
  }
  return result;
}

Crf::Crf(const ModuleParams& p, Arg<Index> count, const CrfConstraints& constraints) {
  begin_module(p, "Crf", {{"count", count}});
  const auto checked = [&](Index label) {
    if (label < 0 || label >= count)
      throw ValueError(fmt::format("{}: a constraint is on label {}, but there are {} (0 to {})",
                                   module_name(p, "Crf"), label, Index{count}, count - 1),
                       SiteScope::current());
    return label;
  };
  std::vector<Index> pairs;
  for (const auto& pair : constraints.transitions)
    pairs.push_back(checked(pair.first) * count + checked(pair.second));
  for (const auto* const list : {&constraints.begin, &constraints.end})
    for (const Index label : *list) checked(label);
  no_transitions_ = mask_of({count, count}, pairs);
  no_begin_ = mask_of({count}, constraints.begin);
  no_end_ = mask_of({count}, constraints.end);
  transitions = p.create("transitions", {count, count}, init::constant(0));
  begin = p.create("begin", {count}, init::constant(0));
  end = p.create("end", {count}, init::constant(0));
}

Tensor Crf::loss(const Tensor& emissions, const Tensor& labels, const CrfLossOptions& options,
                 Site site) const {
  const ModuleScope scope(transitions.name(), site);
  return crf_loss(emissions, allowed(transitions, no_transitions_), allowed(begin, no_begin_),
                  allowed(end, no_end_), labels, options);
}

CrfPath Crf::decode(const Tensor& emissions, const std::optional<Tensor>& lengths,
                    Site site) const {
  const ModuleScope scope(transitions.name(), site);
  return crf_decode(emissions.detach(), constant(transitions, no_transitions_),
                    constant(begin, no_begin_), constant(end, no_end_), lengths);
}

Tensor Crf::marginals(const Tensor& emissions, const std::optional<Tensor>& lengths,
                      Site site) const {
  const ModuleScope scope(transitions.name(), site);
  return crf_marginals(emissions.detach(), constant(transitions, no_transitions_),
                       constant(begin, no_begin_), constant(end, no_end_), lengths);
}

}  // namespace reel::nn
