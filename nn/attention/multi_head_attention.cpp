#include <reel/nn/attention/multi_head_attention.h>

#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/attention/attend.h>
#include <reel/nn/init.h>

namespace reel::nn {
namespace {

constexpr const char* module_title = "MultiHeadAttention";

const ModuleParams& checked(const ModuleParams& p, Index size, Index heads, Index key_size,
                            Index value_size) {
  begin_module(
      p, module_title,
      {{"size", size}, {"heads", heads}, {"key_size", key_size}, {"value_size", value_size}});
  if (size % heads != 0)
    throw ValueError(fmt::format("{}: the size {} must be a multiple of the number of heads, {}",
                                 module_name(p, module_title), size, heads),
                     SiteScope::current());
  return p;
}

// PyTorch draws Q, K and V as one matrix [3 size, size] if all their inputs have `size` features,
// with Glorot's bound for that.
LinearOptions projection(bool bias, Index size, Index key_size, Index value_size) {
  const bool one_matrix = key_size == size && value_size == size;
  return {.bias = bias,
          .weight_init = one_matrix ? init::uniform(std::sqrt(1.5 / static_cast<double>(size)))
                                    : init::xavier_uniform(),
          .bias_init = init::constant(0)};
}

detail::AttentionName name_of(const MultiHeadAttention& attention) {
  return {module_title, module_of(module_of(attention.key.w.name()))};
}

// [N, B, size] -> [B, heads, N, size / heads]
Tensor split_heads(const Tensor& x, Index heads) {
  const Index count = x.size(0), rows = x.size(1), size = x.size(2) / heads;
  if (count == 1) return reshape(x, {rows, heads, 1, size});
  return permute(reshape(x, {count, rows, heads, size}), {1, 2, 0, 3});
}

// [B, heads, Q, size / heads] -> [Q, B, heads, size / heads]
Tensor queries_first(const Tensor& x) {
  if (x.size(2) == 1) return reshape(x, {1, x.size(0), x.size(1), x.size(3)});
  return permute(x, {2, 0, 1, 3});
}

}  // namespace

MultiHeadAttention::MultiHeadAttention(const ModuleParams& p, Arg<Index> size, Arg<Index> heads,
                                       const MultiHeadAttentionOptions& options)
    : MultiHeadAttention(p, size, heads, options.key_size.value_or(size),
                         options.value_size.value_or(options.key_size.value_or(size)), options) {}

MultiHeadAttention::MultiHeadAttention(const ModuleParams& p, Index size, Index heads,
                                       Index key_size, Index value_size,
                                       const MultiHeadAttentionOptions& options)
    : heads(heads),
      query(checked(p, size, heads, key_size, value_size) / "query", size, size,
            projection(options.bias, size, key_size, value_size)),
      key(p / "key", key_size, size, projection(options.bias, size, key_size, value_size)),
      value(p / "value", value_size, size, projection(options.bias, size, key_size, value_size)),
      output(p / "output", size, size, {.bias = options.bias, .bias_init = init::constant(0)}),
      dropout(options.dropout, SiteScope::current()),
      weights(options.weights) {}

AttentionMemory MultiHeadAttention::memory(const Tensor& x, const std::optional<Tensor>& lengths,
                                           Site site) const {
  return memory({.keys = x, .values = x}, lengths, site);
}

// Keys [B, heads, size / heads, T], as the product with them reads them row by row, and values [B,
// heads, T, size / heads].
AttentionMemory MultiHeadAttention::memory(const KeysAndValues& x,
                                           const std::optional<Tensor>& lengths, Site site) const {
  const ModuleScope scope(module_of(key.w.name()), site);
  const AttentionMemory padded = detail::without_padding(name_of(*this), x, lengths);
  const Tensor k = key(padded.keys);
  const Index steps = k.size(0), rows = k.size(1), size = k.size(2) / heads;
  return {permute(reshape(k, {steps, rows, heads, size}), {1, 2, 3, 0}),
          split_heads(value(padded.values), heads), padded.hidden};
}

AttentionResult MultiHeadAttention::operator()(const Tensor& query, const AttentionMemory& memory,
                                               const Mode& mode, const AttentionOptions& options,
                                               Site site) const {
  const ModuleScope scope(module_of(key.w.name()), site);
  const detail::AttentionCall call(name_of(*this), query, memory, options);
  const Index rows = query.size(-2), count = call.queries().size(0);
  const Index size = output.w.shape()[0], each = size / heads;
  detail::require_keys(name_of(*this), memory, {rows, heads, each, call.steps()});

  const Tensor q = this->query(call.queries()) * (1 / std::sqrt(static_cast<double>(each)));
  const AttentionResult by_head =
      call.attend(matmul(split_heads(q, heads), memory.keys), dropout, mode);
  const Tensor context = reshape(queries_first(by_head.context), {count, rows, size});
  AttentionResult result{call.as_query(output(context)), {}};
  if (weights == HeadWeights::mean)
    result.weights = call.as_query(detail::swap_rows(mean(by_head.weights, 1)));
  if (weights == HeadWeights::each) result.weights = call.as_query(queries_first(by_head.weights));
  return result;
}

}  // namespace reel::nn
