#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include <reel/autograd/engine/buffer.h>
#include <reel/autograd/shape.h>

namespace reel::kernels {

/// Where each row of a table of `count` rows occurs in a list of rows.
class RowSources {
 public:
  RowSources(std::span<const std::int32_t> rows, Index count)
      : begin_(count + 2), order_(std::ssize(rows)) {
    // A counting sort: counts are stored two places further on, accumulated, and shifted by one
    // place while filling.
    std::fill_n(begin_.data(), count + 2, Index{0});
    for (std::int32_t row : rows) ++begin_[row + 2];
    for (Index r = 0; r < count; ++r) begin_[r + 1] += begin_[r];
    for (Index i = 0; i < std::ssize(rows); ++i)
      order_[begin_[rows[static_cast<std::size_t>(i)] + 1]++] = i;
  }

  /// The places of a row in the list, ascending.
  std::span<const Index> operator[](Index row) const {
    return {order_.data() + begin_[row], order_.data() + begin_[row + 1]};
  }

 private:
  Scratch<Index> begin_, order_;
};

}  // namespace reel::kernels
