#include <reel/nn/attention/additive_attention.h>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/attention/attend.h>

namespace reel::nn {
namespace {

detail::AttentionName name_of(const AdditiveAttention& attention) {
  return {"AdditiveAttention", module_of(module_of(attention.key.w.name()))};
}

}  // namespace

AdditiveAttention::AdditiveAttention(const ModuleParams& p, Arg<Index> query_size,
                                     Arg<Index> memory_size, Arg<Index> size,
                                     const AdditiveAttentionOptions& options)
    : query(
          begin_module(p, "AdditiveAttention",
                       {{"query_size", query_size}, {"memory_size", memory_size}, {"size", size}}) /
              "query",
          query_size, size, {.bias = false}),
      key(p / "key", memory_size, size),
      score(p / "score", size, 1, {.bias = false}),
      dropout(options.dropout, SiteScope::current()) {}

// Keys [B, 1, T, size] and values [B, T, memory_size].
AttentionMemory AdditiveAttention::memory(const Tensor& x, const std::optional<Tensor>& lengths,
                                          Site site) const {
  const ModuleScope scope(module_of(key.w.name()), site);
  const AttentionMemory padded = detail::without_padding(name_of(*this), {x, x}, lengths);
  return {expand(detail::swap_rows(key(padded.keys)), 1), detail::swap_rows(padded.values),
          padded.hidden};
}

AttentionResult AdditiveAttention::operator()(const Tensor& query, const AttentionMemory& memory,
                                              const Mode& mode, const AttentionOptions& options,
                                              Site site) const {
  const ModuleScope scope(module_of(key.w.name()), site);
  const detail::AttentionCall call(name_of(*this), query, memory, options);
  const Index rows = query.size(-2), count = call.queries().size(0);
  detail::require_keys(name_of(*this), memory, {rows, 1, call.steps(), key.w.shape()[0]});
  const Tensor q = expand(detail::swap_rows(this->query(call.queries())), 2);
  const Tensor scores = score(tanh(q + memory.keys));  // [B, Q, T, 1]
  return call.attend_once(reshape(scores, {rows, count, call.steps()}), dropout, mode);
}

}  // namespace reel::nn
