#include "text_parts.h"

#include <reel/autograd/error.h>
#include <reel/datasets/text.h>

namespace reel::examples {

TextParts::TextParts(const std::string& train_path, const std::string& valid_path,
                     const std::string& test_path) {
  if (valid_path.empty() != test_path.empty())
    throw ValueError("--valid and --test go together; without both the text is split");
  train = datasets::read_text(train_path);
  if (!valid_path.empty()) {
    valid = datasets::read_text(valid_path);
    test = datasets::read_text(test_path);
    return;
  }
  const auto line_after = [&](std::size_t byte) { return train.find('\n', byte) + 1; };
  const std::size_t first = line_after(train.size() * 8 / 10),
                    second = line_after(train.size() * 9 / 10);
  if (first == 0 || second <= first || second == train.size())
    throw ValueError(train_path + " has too few lines to be split; give --valid and --test");
  test = train.substr(second);
  valid = train.substr(first, second - first);
  train.resize(first);
}

}  // namespace reel::examples
