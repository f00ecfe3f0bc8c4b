#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "mutations.h"

using namespace reel;
using namespace reel::testing;
using Mode = GradcheckOptions::Mode;

namespace {

void check_mutations(const std::vector<Mutation>& mutations) {
  for (const Mutation& m : mutations)
    for (const Mode mode : {Mode::slow, Mode::fast}) {
      CAPTURE(m.name);
      CAPTURE(mode == Mode::fast);
      const auto right = check_gradients(m.right, m.inputs, {.order = m.order, .mode = mode});
      CHECK_MESSAGE(right.ok, right.str());
      const auto wrong = check_gradients(m.wrong, m.inputs, {.order = m.order, .mode = mode});
      CHECK_MESSAGE(!wrong.ok, wrong.str());
      // It is the order that is wrong, not one below.
      CHECK(std::ranges::none_of(wrong.rows, [&](const GradientReport::Row& row) {
        return row.order < m.order && row.verdict != GradientReport::Verdict::ok;
      }));
    }
}

}  // namespace

TEST_CASE("mutations: wrong gradients of ops are caught") { check_mutations(op_mutations()); }

TEST_CASE("mutations: wrong gradients of recurrent kernels are caught") {
  check_mutations(recurrent_mutations());
}

TEST_CASE("mutations: functions that give another gradient are caught") {
  check_mutations(function_mutations());
}

TEST_CASE("mutations: there are more than 40, and no two are the same") {
  std::set<std::string> names;
  for (const auto& mutations : {op_mutations(), recurrent_mutations(), function_mutations()})
    for (const Mutation& m : mutations) CHECK_MESSAGE(names.insert(m.name).second, m.name);
  CHECK(names.size() > 70);
}
