#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include <reel/autograd/shape.h>

namespace reel {

/// The least number of elements to insert, delete or replace so that one sequence becomes the other
/// (Levenshtein, 1966). Of labels, over the number of those wanted, it is the label error rate.
template <class A, class B>
Index edit_distance(const A& a, const B& b) {
  std::vector<Index> row(std::size(b) + 1);  // of the part of a so far and each beginning of b
  std::iota(row.begin(), row.end(), Index{0});
  for (const auto& wanted : a) {
    Index diagonal = std::exchange(row[0], row[0] + 1);
    for (std::size_t k = 1; k < row.size(); ++k) {
      const Index replaced = diagonal + (wanted == b[k - 1] ? 0 : 1);
      diagonal = row[k];
      row[k] = std::min({row[k] + 1, row[k - 1] + 1, replaced});
    }
  }
  return row.back();
}

}  // namespace reel
