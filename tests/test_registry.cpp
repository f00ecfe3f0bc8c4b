// The registry of ops: what it holds, and how definitions enter and leave it.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include <reel/autograd/check/op_checks.h>
#include <reel/autograd/ops.h>

#include "complaints.h"
#include "compositions.h"
#include "testing.h"

using namespace reel;
using namespace reel::op;
using testing::lines;

namespace {

const OpSpec& op_named(std::string_view name) {
  const auto ops = registry();
  const auto found = std::ranges::find(ops, name, &OpSpec::name);
  REQUIRE(found != ops.end());
  return **found;
}

constexpr auto twice = []<class T>(Ctx<T> c) {
  for (std::size_t i = 0; i < c.out().size(); ++i) c.out()[i] = c.in(0)[i] + c.in(0)[i];
};
const auto twice_rule = rule([](Vjp& v) { v.add(0, [&] { return 2 * v.g(); }); }, keeps_nothing);

}  // namespace

TEST_CASE("the registry is sorted and its names are unique") {
  std::set<std::string_view> names;
  for (const OpSpec* op : registry()) names.insert(op->name);
  CHECK(names.size() == registry().size());
  CHECK(std::ranges::is_sorted(registry(), {}, &OpSpec::name));
  CHECK(orders_checked(op_named("tanh")) == 3);
  CHECK(orders_checked(op_named("relu")) == 2);
  CHECK(orders_checked(op_named("less")) == 0);
}

TEST_CASE("the registry and what is made of it hold every op that the library promises") {
  const char* const promised[] = {
      // one operand
      "neg", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "abs", "sign",
      "sin", "cos", "tan", "tanh", "sigmoid", "log_sigmoid", "relu", "leaky_relu", "elu", "gelu",
      "silu", "softplus", "erf", "clamp", "pow_scalar", "floor", "round",
      // two and three
      "add", "sub", "mul", "div", "pow", "maximum", "minimum", "less", "less_equal", "greater",
      "greater_equal", "equal", "not_equal", "logical_and", "logical_or", "logical_xor",
      "logical_not", "where", "lerp",
      // products and reductions
      "matmul", "affine", "outer", "dot", "sum", "mean", "max", "min", "prod", "var", "std",
      "logsumexp", "norm", "argmax", "argmin", "cumsum", "any", "all",
      // shapes and places
      "reshape", "permute", "transpose", "squeeze", "expand", "broadcast_to", "slice", "pad",
      "concat", "stack", "split", "flip", "repeat", "tril", "triu", "gather_rows",
      "scatter_add_rows", "take_along", "scatter_along", "one_hot", "masked_fill", "sort", "topk",
      // losses and layers
      "softmax", "log_softmax", "cross_entropy", "soft_cross_entropy", "crf_loss", "crf_decode",
      "crf_marginals", "ctc_loss", "nll", "bce_with_logits", "mse", "l1", "huber", "pinball",
      "kl_div", "layer_norm", "rms_norm", "dropout", "rnn", "gru", "lstm", "linear_scan"};
  std::set<std::string_view> there;
  for (const OpSpec* op : registry()) there.insert(op->name);
  for (const auto& composition : testing::compositions()) there.insert(composition.name);
  for (const char* name : promised) CHECK_MESSAGE(there.contains(name), name);
}

TEST_CASE("functions made of ops have the gradients of their ops") {
  Rng rng(1);
  for (const auto& composition : testing::compositions()) {
    CAPTURE(composition.name);
    CHECK(testing::ops_of(composition).size() > 0);
    const Tensor x = distinct({4, 6}).draw(rng, f64);
    const auto report = check_gradients(composition.call, std::vector{x}, {.order = 2});
    CHECK_MESSAGE(report.ok, report.str());
  }
}

TEST_CASE("an op exists in the registry while its definition lives") {
  const std::size_t before = registry().size();
  {
    const Op<> op{{"right_op", {"x"}, same_shape, twice, twice_rule, {normal({3})}}};
    CHECK(registry().size() == before + 1);
    const Complaints complaints = check_op(op.spec());
    CHECK_MESSAGE(complaints.empty(), lines(complaints));
  }
  CHECK(registry().size() == before);
}

TEST_CASE("two ops cannot have one name") {
  const auto define = [](const char* name, Site site) {
    return Op<>({name, {"x"}, same_shape, twice, twice_rule, {normal({3})}}, site);
  };
  const std::size_t before = registry().size();
  {
    const Op<> op = define("only_once", Site("a.cpp", 3));
    CHECK(testing::error_of<ValueError>([&] { define("only_once", Site("b.cpp", 5)); }) ==
          "only_once: there is an op of this name already, defined at a.cpp:3 (b.cpp:5)");
    CHECK(registry().size() == before + 1);
    const Tensor x = ones({3});
    CHECK(op({&x}, {}).to_vector() == std::vector<double>{2, 2, 2});
  }
  const Op<> again = define("only_once", Site("b.cpp", 5));
  CHECK(testing::error_of<ValueError>([&] { define("tanh", Site("b.cpp", 6)); }) ==
        "tanh: there is an op of this name already, defined at " + op_named("tanh").site.str() +
            " (b.cpp:6)");
}

TEST_CASE("threads may define ops, and look at them, at the same time") {
  const std::size_t before = registry().size();
  std::vector<std::thread> threads;
  std::atomic<int> found = 0;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, name = "thread_" + std::to_string(t)] {
      for (int i = 0; i < 200; ++i) {
        const Op<> op{{name.c_str(), {"x"}, same_shape, twice, twice_rule, {normal({3})}}};
        // Other tests' ops may be destroyed by now: only pointers are compared.
        found += static_cast<int>(std::ranges::count(registry(), &op.spec()));
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(found == 800);
  CHECK(registry().size() == before);
}
