#include <reel/nn/attention/general_attention.h>

#include <reel/autograd/engine/scope.h>
#include <reel/nn/attention/attend.h>

namespace reel::nn {

GeneralAttention::GeneralAttention(const ModuleParams& p, Arg<Index> query_size,
                                   Arg<Index> memory_size, const GeneralAttentionOptions& options)
    : key(begin_module(p, "GeneralAttention",
                       {{"query_size", query_size}, {"memory_size", memory_size}}) /
              "key",
          memory_size, query_size, {.bias = false}),
      dot({.dropout = options.dropout}, SiteScope::current()) {}

AttentionMemory GeneralAttention::memory(const Tensor& x, const std::optional<Tensor>& lengths,
                                         Site site) const {
  const ModuleScope scope(module_of(key.w.name()), site);
  const detail::AttentionName name{"GeneralAttention", module_of(module_of(key.w.name()))};
  // Padding is zero before the product with W: 0 times NaN would be part of its gradient.
  const AttentionMemory padded = detail::without_padding(name, {x, x}, lengths);
  return {permute(key(padded.keys), {1, 2, 0}), detail::swap_rows(padded.values), padded.hidden};
}

AttentionResult GeneralAttention::operator()(const Tensor& query, const AttentionMemory& memory,
                                             const Mode& mode, const AttentionOptions& options,
                                             Site site) const {
  const ModuleScope scope(module_of(key.w.name()), site);
  return dot(query, memory, mode, options);
}

}  // namespace reel::nn
