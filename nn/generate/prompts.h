#pragma once

#include <optional>

#include <reel/nn/generate/generate.h>

namespace reel::nn::detail {

/// Throws ValueError, naming the caller, unless there are prompts, none is empty, the length is
/// positive and the end token is not negative.
void check_prompts(const char* caller, const Prompts& prompts, Index max_length,
                   std::optional<std::int32_t> end, Site site);
/// Throws ValueError unless the end token is one of those that the logits [..., V] are of.
void check_end(const char* caller, std::optional<std::int32_t> end, const Tensor& logits,
               Site site);

}  // namespace reel::nn::detail
