#pragma once

#include <string>
#include <vector>

namespace reel {

/// Rows of text in columns, each as wide as its longest cell; numbers are right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  /// Adds a row with a cell for each column.
  void add(std::vector<std::string> cells);
  std::string str() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace reel
