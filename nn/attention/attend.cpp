#include <reel/nn/attention/attend.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/nn/sizes.h>

namespace reel::nn::detail {
namespace {

// i32 [B, 1, T], 1 from each row's length on; undefined if no row has padding.
Tensor padding_of(const std::string& who, const Tensor& lengths, Index steps) {
  const auto all = lengths.values<std::int32_t>();
  const auto empty = std::ranges::find(all, 0);
  if (empty != all.end())
    throw ValueError(fmt::format("{}: row {} of the memory has the length 0, so there is nothing "
                                 "to attend to; leave the row out",
                                 who, empty - all.begin()),
                     SiteScope::current());
  if (std::ranges::all_of(all, [&](std::int32_t length) { return length == steps; })) return {};
  Tensor padding({lengths.size(), 1, steps}, i32);
  std::int32_t* to = padding.begin_update<std::int32_t>().data();
  for (std::int32_t length : all)
    for (Index t = 0; t < steps; ++t) *to++ = t >= length;
  return padding;
}

Tensor either(const Tensor& hidden, const Tensor& more) {
  return hidden.defined() ? logical_or(hidden, more) : more;
}

std::string kind_of(const Tensor& x) {
  return x.defined() ? fmt::format("{} {}", name_of(x.dtype()), x.shape().str()) : "undefined";
}

// The mask as [B, Q, T], with sizes of 1 where it is to be repeated.
Tensor rows_first(const AttentionName& name, const Tensor& mask, const Shape& weights) {
  bool fits = mask.defined() && mask.dtype() == i32 && mask.rank() == weights.rank();
  for (int axis = 0; fits && axis < weights.rank(); ++axis)
    fits = mask.size(axis) == weights[axis] || mask.size(axis) == 1;
  if (!fits)
    throw ShapeError(fmt::format("{}: the mask must be i32 {}, or have the size 1 in some axes, "
                                 "but is {}",
                                 name.str(), weights.str(), kind_of(mask)),
                     SiteScope::current());
  return mask.rank() == 2 ? expand(mask, 1) : swap_rows(mask);
}

// Throws if everything is hidden, i32 [B, Q, T], from some query.
void require_visible(const AttentionName& name, const Tensor& hidden, bool one_step) {
  const Tensor blind = all(hidden, -1);
  const auto values = blind.values<std::int32_t>();
  const Index at = std::ranges::find(values, 1) - values.begin();
  if (at == blind.size()) return;
  const Index row = at / blind.size(1);
  const std::string which = one_step ? fmt::format("row {}", row)
                                     : fmt::format("query {} of row {}", at % blind.size(1), row);
  throw ValueError(fmt::format("{}: the mask, with the lengths, hides every step of the memory "
                               "from {}; let it attend to one at least",
                               name.str(), which),
                   SiteScope::current());
}

}  // namespace

std::string AttentionName::str() const {
  return part.empty() ? module : fmt::format("{} {}", module, part);
}

Tensor swap_rows(const Tensor& x) {
  const Shape swapped = x.shape().with(0, x.size(1)).with(1, x.size(0));
  return x.size(0) == 1 || x.size(1) == 1 ? reshape(x, swapped) : transpose(x, 0, 1);
}

AttentionMemory without_padding(const AttentionName& name, const KeysAndValues& x,
                                const std::optional<Tensor>& lengths) {
  const std::string who = name.str();
  require_sequence(who.c_str(), x.keys);
  require_sequence(who.c_str(), x.values);
  const Site site = SiteScope::current();
  if (x.keys.size(0) != x.values.size(0) || x.keys.size(1) != x.values.size(1))
    throw ShapeError(fmt::format("{}: the keys {} and values {} differ in steps or rows", who,
                                 x.keys.shape().str(), x.values.shape().str()),
                     site);
  const Tensor given = resolve_lengths({.lengths = lengths}, x.keys, who.c_str(), site);
  const Tensor hidden = given.defined() ? padding_of(who, given, x.keys.size(0)) : Tensor();
  if (!hidden.defined()) return {x.keys, x.values, {}};
  return {with_zero_padding(x.keys, given), with_zero_padding(x.values, given), hidden};
}

AttentionCall::AttentionCall(const AttentionName& name, const Tensor& query,
                             const AttentionMemory& memory, const AttentionOptions& options)
    : memory_(memory), one_step_(query.defined() && query.rank() == 2) {
  const Site site = SiteScope::current();
  if (!memory.keys.defined() || !memory.values.defined())
    throw ValueError(
        fmt::format("{}: the memory is undefined; make one by memory(x, lengths)", name.str()),
        site);
  const Index rows = memory.values.size(0);
  if (!query.defined() || query.rank() < 2 || query.rank() > 3 || query.size(-2) != rows)
    throw ShapeError(fmt::format("{}: the query must be [{}, D] or [Q, {}, D], for the rows of the "
                                 "memory, but is {}",
                                 name.str(), rows, rows, kind_of(query)),
                     site);
  queries_ = one_step_ ? expand(query, 0) : query;
  hidden_ = hidden_from(name, options);
}

Tensor AttentionCall::hidden_from(const AttentionName& name,
                                  const AttentionOptions& options) const {
  const Index count = queries_.size(0);
  Tensor hidden = memory_.hidden;
  if (options.causal && one_step_)
    throw ValueError(fmt::format("{}: causal is for queries [Q, B, D]; the query of one step, "
                                 "[B, D], attends to what the mask lets it",
                                 name.str()),
                     SiteScope::current());
  if (options.causal) hidden = either(hidden, expand(triu(full({count, steps()}, 1, i32), 1), 0));
  if (!options.mask) return hidden;
  const Index rows = queries_.size(1);
  const Shape weights = one_step_ ? Shape{rows, steps()} : Shape{count, rows, steps()};
  hidden = either(hidden, logical_not(rows_first(name, *options.mask, weights)));
  require_visible(name, hidden, one_step_);
  return hidden;
}

AttentionResult AttentionCall::attend(const Tensor& scores, const Dropout& dropout,
                                      const Mode& mode) const {
  // Not -∞, which a tape with check_finite would report: e to the power of the difference is 0 too.
  const double least = scores.dtype() == f64 ? std::numeric_limits<double>::lowest()
                                             : std::numeric_limits<float>::lowest();
  Tensor visible = scores;
  if (hidden_.defined())
    visible = masked_fill(scores, scores.rank() == 4 ? expand(hidden_, 1) : hidden_, least);
  const Tensor weights = softmax(visible, -1);
  return {matmul(dropout(weights, mode), memory_.values), weights};
}

Tensor AttentionCall::as_query(const Tensor& y) const { return one_step_ ? squeeze(y, 0) : y; }

AttentionResult AttentionCall::attend_once(const Tensor& scores, const Dropout& dropout,
                                           const Mode& mode) const {
  const AttentionResult rows = attend(scores, dropout, mode);
  return {as_query(swap_rows(rows.context)), as_query(swap_rows(rows.weights))};
}

void require_keys(const AttentionName& name, const AttentionMemory& memory, const Shape& keys) {
  if (memory.keys.shape() == keys) return;
  throw ShapeError(fmt::format("{}: the memory's keys are {}, not {}; a memory is made by memory() "
                               "of the attention that uses it",
                               name.str(), memory.keys.shape().str(), keys.str()),
                   SiteScope::current());
}

}  // namespace reel::nn::detail
