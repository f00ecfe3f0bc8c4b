#pragma once

#include <reel/nn/generate/logits.h>
#include <reel/nn/generate/sample.h>

namespace reel::nn::detail {

/// A token of these logits, by settings that are valid. Throws ValueError if every symbol is
/// forbidden, or for a seen token that there is not.
std::int32_t draw(const char* caller, LogitRow logits, const Sampling& sampling,
                  std::span<const std::int32_t> seen, Rng& rng, Site site);

}  // namespace reel::nn::detail
