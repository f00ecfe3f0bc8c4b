#include <reel/nn/attention/dot_attention.h>

#include <cmath>

#include <reel/autograd/ops.h>
#include <reel/nn/attention/attend.h>

namespace reel::nn {

constexpr detail::AttentionName name{"DotAttention"};

DotAttention::DotAttention(const DotAttentionOptions& options, Site site)
    : scaled(options.scaled), dropout(options.dropout, site) {}

AttentionMemory DotAttention::memory(const Tensor& x, const std::optional<Tensor>& lengths,
                                     Site site) const {
  return memory({.keys = x, .values = x}, lengths, site);
}

// Keys [B, D, T], as the product with them reads them row by row, and values [B, T, V].
AttentionMemory DotAttention::memory(const KeysAndValues& x, const std::optional<Tensor>& lengths,
                                     Site site) const {
  const SiteScope scope(site);
  const AttentionMemory padded = detail::without_padding(name, x, lengths);
  return {permute(padded.keys, {1, 2, 0}), detail::swap_rows(padded.values), padded.hidden};
}

AttentionResult DotAttention::operator()(const Tensor& query, const AttentionMemory& memory,
                                         const Mode& mode, const AttentionOptions& options,
                                         Site site) const {
  const SiteScope scope(site);
  const detail::AttentionCall call(name, query, memory, options);
  const Index features = query.size(-1);
  detail::require_keys(name, memory, {query.size(-2), features, call.steps()});
  Tensor q = detail::swap_rows(call.queries());
  if (scaled) q = q * (1 / std::sqrt(static_cast<double>(features)));
  return call.attend_once(matmul(q, memory.keys), dropout, mode);
}

}  // namespace reel::nn
