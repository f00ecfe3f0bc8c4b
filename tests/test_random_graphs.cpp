#include <doctest/doctest.h>

#include <functional>

#include <reel/autograd/engine/op.h>
#include <reel/autograd/kernels/broadcast.h>
#include <reel/autograd/ops.h>

#include "random_graphs.h"
#include "testing.h"

using namespace reel;
using namespace reel::op;
using namespace reel::testing;

TEST_CASE("random graphs: no false alarm") {
  const Index count = rounds(sanitized ? 250 : 500, 20'000);
  const RandomGraphsReport report = check_random_graphs(count, 0);
  for (const std::string& failure : report.failures) FAIL_CHECK(failure);
  CHECK(report.kinks <= count / 250);
  for (const OpSpec* op : registry())
    CHECK_MESSAGE(report.ops.contains(op->name), op->name, " is in no random graph");
}

TEST_CASE("random graphs: a graph is a function of its seed") {
  const RandomGraph graph = random_graph(5), same = random_graph(5), other = random_graph(6);
  CHECK(graph.text == same.text);
  CHECK(graph.text != other.text);
  std::vector<Tensor> inputs;
  for (const NamedInput& input : graph.inputs) inputs.push_back(input.value);
  CHECK(graph.f(inputs).to_vector() == same.f(inputs).to_vector());
}

TEST_CASE("random graphs: a new op is in them, and found if it is wrong") {
  const auto is_found = [](double factor) {
    struct Factor {
      double value;
    };
    const Op<Factor> op{{
        .name = "new_op",
        .arguments = {"a", "b"},
        .shape = broadcast_shape,
        .forward =
            []<Real T>(Ctx<T> c) {
              kernels::broadcast_binary(c.out_shape(), c.out().data(), c.in(0).data(), c.shape(0),
                                        c.in(1).data(), c.shape(1), std::multiplies<T>{});
            },
        .gradient = rule(
            [](Vjp& v, const Factor& f) {
              v.add(0, [&] { return f.value * (v.g() * v.in(1)); });
              v.add(1, [&] { return v.g() * v.in(0); });
            },
            keeps_inputs),
        .samples = {with_inputs(normal({2, 3}), positive({3})).attr(Factor{factor})},
    }};
    const RandomGraphsReport report = check_random_graphs(300, 10000);
    CHECK(report.ops.contains("new_op"));
    return std::ranges::any_of(report.failures, [](const std::string& failure) {
      return failure.starts_with("random graph, seed 10") &&
             failure.find("new_op(") != std::string::npos &&
             failure.find("WRONG") != std::string::npos;
    });
  };
  CHECK(is_found(1.001));
}
