#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <reel/autograd/check/op_checks.h>

#include "compositions.h"
#include "random_graphs.h"
#include "references.h"

namespace {

const char* kind(const reel::op::OpSpec& op) {
  switch (op.derivative) {
    case reel::op::OpSpec::Derivative::rule:
      return "rule";
    case reel::op::OpSpec::Derivative::fused:
      return "fused";
    default:
      return "none";
  }
}

void list_ops() {
  std::printf("%-20s %-8s %6s %7s\n", "op", "gradient", "orders", "samples");
  for (const reel::op::OpSpec* op : reel::op::registry())
    std::printf("%-20.*s %-8s %6d %7zu\n", static_cast<int>(op->name.size()), op->name.data(),
                kind(*op), reel::op::orders_checked(*op), op->samples.size());
  std::puts("\nmade of these:");
  for (const auto& composition : reel::testing::compositions())
    std::printf("%-20s %s\n", composition.name, reel::testing::ops_of(composition).c_str());
}

// Runs the checks on the named ops, for authors of ops; returns the number of complaints.
int check_ops(std::span<char* const> names) {
  int count = 0;
  for (const reel::op::OpSpec* op : reel::op::registry())
    if (std::ranges::find(names, op->name) != names.end())
      for (const std::string& complaint :
           reel::op::check_op(*op, reel::testing::reference_of(*op))) {
        std::puts(complaint.c_str());
        ++count;
      }
  std::printf("%d complaints\n", count);
  return count;
}

// Checks random graphs of ops: --random-graphs COUNT [--seed FIRST]. With a count of 1 and the seed
// of a failure, reproduces that graph and prints it.
int random_graphs(int argc, char** argv) {
  using namespace reel::testing;
  const bool has_seed = argc > 4 && std::string_view(argv[3]) == "--seed";
  const reel::Index count = argc > 2 ? std::atoll(argv[2]) : 0;
  const std::uint64_t seed = has_seed ? std::strtoull(argv[4], nullptr, 10) : 0;
  if (count < 1 || (argc > 3 && !has_seed)) {
    std::puts("usage: reel-tests --random-graphs COUNT [--seed FIRST]");
    return 2;
  }
  if (count == 1) std::fputs(random_graph(seed).text.c_str(), stdout);
  const RandomGraphsReport report = check_random_graphs(count, seed);
  for (const std::string& failure : report.failures) std::puts(failure.c_str());
  std::printf("%zd graphs of %zu ops: %zu false alarms, %zd at a kink\n", report.graphs,
              report.ops.size(), report.failures.size(), report.kinks);
  return report.failures.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  reel::pool::fill_blocks(0xFF);
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "--list-ops") {
    list_ops();
    return 0;
  }
  if (command == "--check-ops")
    return check_ops({argv + 2, static_cast<std::size_t>(argc - 2)}) == 0 ? 0 : 1;
  if (command == "--random-graphs") return random_graphs(argc, argv);
  return doctest::Context(argc, argv).run();
}
