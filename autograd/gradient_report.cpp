#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <reel/autograd/gradcheck.h>

namespace reel {

using Verdict = GradientReport::Verdict;

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok:
      return "ok";
    case Verdict::kink:
      return "kink";
    case Verdict::wrong:
      return "WRONG";
    case Verdict::not_finite:
      return "not finite";
    case Verdict::not_deterministic:
      return "not deterministic";
  }
  return "";
}

std::string GradientReport::str() const {
  using Cells = std::array<std::string, 9>;
  std::vector<Cells> table{
      {"input", "shape", "order", "verdict", "failed", "analytic", "numeric", "error", "worst"}};
  Index failed = 0;
  for (const Row& row : rows) {
    failed += row.verdict != Verdict::ok;
    table.push_back(
        {row.name, row.shape.str(), std::to_string(row.order), std::string(name_of(row.verdict)),
         fmt::format("{}/{}", row.failures, row.checked), fmt::format("{:.15g}", row.analytic),
         fmt::format("{:.15g}", row.numeric), fmt::format("{:.1e}", row.error), row.where});
  }
  std::array<std::size_t, 9> widths{};
  for (const Cells& cells : table)
    for (std::size_t c = 0; c < cells.size(); ++c) widths[c] = std::max(widths[c], cells[c].size());
  std::string text = fmt::format("gradients: {} of {} checks failed\n", failed, rows.size());
  for (const Cells& cells : table) {
    for (std::size_t c = 0; c + 1 < cells.size(); ++c)
      text += cells[c] + std::string(widths[c] - cells[c].size() + 2, ' ');
    text += cells.back() + '\n';
  }
  if (std::ranges::count(rows, Verdict::not_deterministic, &Row::verdict) > 0)
    text += "give the sources of random numbers that the function draws from in options.replay\n";
  return text;
}

}  // namespace reel
