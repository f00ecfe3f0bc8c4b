#pragma once

#include <cstddef>

#include <reel/reel.h>

/// Objects with static storage duration that use the library before main and after it.
namespace early {

extern const reel::Tensor sum_of_ones, tripled, trained;
extern const reel::Params params;
extern const reel::nn::Lstm lstm;
extern const std::size_t ops_before_main;
extern reel::Tensor kept, kept_by_thread_pool;

}  // namespace early
