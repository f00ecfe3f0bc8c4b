#pragma once

#include <optional>
#include <span>
#include <string_view>

#include <reel/autograd/error.h>
#include <reel/autograd/shape.h>

namespace reel {

/// Throws ValueError for an index outside of 0 .. count-1 that is not `exempt`, naming the op, the
/// index (called `noun`), its position and what it indexes (called `things`).
void check_indices(std::string_view op, std::string_view noun, std::string_view things,
                   std::span<const std::int32_t> indices, Index count,
                   std::optional<std::int32_t> exempt = {});
/// The same outside of an op, which knows its line by itself.
void check_indices(std::string_view caller, std::string_view noun, std::string_view things,
                   std::span<const std::int32_t> indices, Index count,
                   std::optional<std::int32_t> exempt, Site site);

}  // namespace reel
