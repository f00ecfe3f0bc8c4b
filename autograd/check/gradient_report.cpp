#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/check/gradcheck.h>
#include <reel/autograd/engine/table.h>

namespace reel {

using Verdict = GradientReport::Verdict;

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok:
      return "ok";
    case Verdict::kink:
      return "kink";
    case Verdict::wrong:
      return "wrong";
    case Verdict::not_finite:
      return "not finite";
    case Verdict::not_deterministic:
      return "not deterministic";
  }
  return "";
}

namespace {

// As shown in tables: an error stands out.
std::string shown(Verdict verdict) {
  return verdict == Verdict::wrong ? "WRONG" : std::string(name_of(verdict));
}

std::string count_of_failures(const GradientReport& report) {
  const auto passed = std::ranges::count(report.rows, Verdict::ok, &GradientReport::Row::verdict);
  return fmt::format("gradients: {} of {} checks failed\n", std::ssize(report.rows) - passed,
                     report.rows.size());
}

}  // namespace

std::string GradientReport::str() const {
  Table table(
      {"input", "shape", "order", "verdict", "failed", "analytic", "numeric", "error", "worst"});
  for (const Row& row : rows)
    table.add({row.name, row.shape.str(), std::to_string(row.order), shown(row.verdict),
               fmt::format("{}/{}", row.failures, row.checked),
               fmt::format("{:.15g}", row.analytic), fmt::format("{:.15g}", row.numeric),
               fmt::format("{:.1e}", row.error), row.where});
  std::string text = count_of_failures(*this) + table.str();
  if (std::ranges::count(rows, Verdict::not_deterministic, &Row::verdict) > 0)
    text += "give the sources of random numbers that the function draws from in options.replay\n";
  return text;
}

std::string GradientReport::summary() const {
  std::string text = count_of_failures(*this);
  for (const Row& row : rows) {
    if (row.verdict == Verdict::ok) continue;
    text += fmt::format("{}, order {}: {}", row.checked > 0 ? row.where : row.name, row.order,
                        shown(row.verdict));
    if (row.checked > 0)
      text += fmt::format(" ({} of {}); analytic {:.4g}, numeric {:.4g}", row.failures, row.checked,
                          row.analytic, row.numeric);
    if (row.numeric != 0) text += fmt::format(", ratio {:.4g}", row.analytic / row.numeric);
    text += '\n';
  }
  return text;
}

}  // namespace reel
