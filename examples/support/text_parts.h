#pragma once

#include <string>

namespace reel::examples {

/// A text to learn from, one that chooses the epoch, and one to test on.
struct TextParts {
  /// Reads them; if only the first is given its lines are split: 80 % of the bytes are for training
  /// and 10 % for each other part. Throws ValueError if one of the others is given alone or the
  /// text has too few lines, and what datasets::read_text throws.
  TextParts(const std::string& train_path, const std::string& valid_path,
            const std::string& test_path);

  std::string train, valid, test;
};

}  // namespace reel::examples
