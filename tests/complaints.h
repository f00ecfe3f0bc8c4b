#pragma once

#include <algorithm>
#include <string>

#include <reel/autograd/check/op_checks.h>

namespace reel::testing {

inline std::string lines(const op::Complaints& complaints) {
  std::string text;
  for (const std::string& complaint : complaints) text += complaint + '\n';
  return text;
}

/// Whether one of the complaints contains these words.
inline bool complains(const op::Complaints& complaints, std::string_view words) {
  return std::ranges::any_of(complaints, [&](const std::string& complaint) {
    return complaint.find(words) != std::string::npos;
  });
}

}  // namespace reel::testing
