#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>

#include <reel/autograd/op.h>

#include "op_checks.h"

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
                kind(*op), reel::testing::orders_checked(*op), op->samples.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list-ops") == 0) {
    list_ops();
    return 0;
  }
  return doctest::Context(argc, argv).run();
}
