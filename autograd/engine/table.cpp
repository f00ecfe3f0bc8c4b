#include <reel/autograd/engine/table.h>

#include <algorithm>
#include <cctype>

namespace reel {
namespace {

bool is_number(const std::string& cell) {
  return cell.empty() || std::isdigit(static_cast<unsigned char>(cell[0])) ||
         (cell[0] == '-' && cell.size() > 1);
}

}  // namespace

Table::Table(std::vector<std::string> header) : rows_{std::move(header)} {}

void Table::add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

std::string Table::str() const {
  std::vector<std::size_t> widths(rows_[0].size());
  std::vector<bool> numeric(widths.size(), true);
  for (std::size_t r = 0; r < rows_.size(); ++r)
    for (std::size_t c = 0; c < widths.size(); ++c) {
      widths[c] = std::max(widths[c], rows_[r][c].size());
      if (r > 0 && !is_number(rows_[r][c])) numeric[c] = false;
    }
  std::string text;
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < widths.size(); ++c) {
      const std::string space(widths[c] - row[c].size(), ' ');
      text += c == 0 ? "" : "  ";
      text += numeric[c] ? space + row[c] : row[c] + space;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

}  // namespace reel
