#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <string_view>

#include <reel/autograd/op_checks.h>

namespace {

const char* kind(const reel::OpSpec& op) {
  switch (op.derivative) {
    case reel::OpSpec::Derivative::rule:
      return "rule";
    case reel::OpSpec::Derivative::fused:
      return "fused";
    default:
      return "none";
  }
}

void list_ops() {
  std::printf("%-20s %-8s %6s %7s\n", "op", "gradient", "orders", "samples");
  for (const reel::OpSpec* op : reel::registry())
    std::printf("%-20.*s %-8s %6d %7zu\n", static_cast<int>(op->name.size()), op->name.data(),
                kind(*op), reel::orders_checked(*op), op->samples.size());
}

// Runs the checks on the ops that are named, for who writes one; returns how many complaints there
// are.
int check_ops(std::span<char* const> names) {
  int count = 0;
  for (const reel::OpSpec* op : reel::registry())
    if (std::ranges::find(names, op->name) != names.end())
      for (const std::string& complaint : reel::check_op(*op)) {
        std::puts(complaint.c_str());
        ++count;
      }
  std::printf("%d complaints\n", count);
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "--list-ops") {
    list_ops();
    return 0;
  }
  if (command == "--check-ops")
    return check_ops({argv + 2, static_cast<std::size_t>(argc - 2)}) == 0 ? 0 : 1;
  return doctest::Context(argc, argv).run();
}
