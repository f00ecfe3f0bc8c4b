#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/init.h>
#include <reel/nn/linear.h>
#include <reel/nn/stacked.h>
#include <reel/optim/sgd.h>

#include "testing.h"

using namespace reel;
using doctest::Contains;

namespace {

Tensor draw(Rng& rng, const Shape& shape, DType dtype) { return rng.normal(shape, 0, 1, dtype); }

std::vector<std::string> names(const Params& params) {
  std::vector<std::string> result;
  for (const Param& p : params.list()) result.push_back(p.name());
  return result;
}

}  // namespace

TEST_CASE("parameters are named, listed and counted by part") {
  const Params params(1);
  const Params lstm = params / "lstm";
  lstm.create("w", {2, 3}, draw);
  params.create("b", {4}, draw);
  (lstm / "0").create("w", {1}, draw);
  CHECK(names(params) == std::vector<std::string>{"lstm.w", "b", "lstm.0.w"});
  CHECK(names(lstm) == std::vector<std::string>{"lstm.w", "lstm.0.w"});
  CHECK(params.count() == 11);
  CHECK(lstm.count() == 7);
  CHECK(lstm["w"].shape() == Shape{2, 3});
  CHECK(lstm.contains(*lstm["w"].entry()));
  CHECK(!lstm.contains(*params["b"].entry()));
}

TEST_CASE("initial values depend on the seed and the name alone") {
  const Params a(1), b(1), c(2);
  a.create("x", {3}, draw);
  const Tensor w = a.create("w", {3}, draw).value();
  CHECK(b.create("w", {3}, draw).value().to_vector() == w.to_vector());
  CHECK(c.create("w", {3}, draw).value().to_vector() != w.to_vector());
}

TEST_CASE("errors of the store name the parameter") {
  const Params params(1);
  const Params part = params / "cell";
  part.create("w", {2}, draw);
  CHECK_THROWS_WITH_AS(
      part.create("w", {2}, draw),
      Contains("parameter cell.w exists already: give each module a part of its own, as in p / "
               "\"name\" (" __FILE__ ":"),
      ValueError);
  part.create("b", {2}, draw);
  CHECK_THROWS_WITH_AS(part["v"],
                       Contains("there is no parameter cell.v; there are: w, b (" __FILE__ ":"),
                       ValueError);
  CHECK_THROWS_WITH_AS(Params(1, i32),
                       Contains("Params: parameters are f32 or f64, not i32 (" __FILE__ ":"),
                       DTypeError);
  Param w = part["w"];
  CHECK_THROWS_WITH_AS(w.set(zeros({3})), Contains("parameter cell.w has shape [2], not [3] ("),
                       ShapeError);
  CHECK_THROWS_WITH_AS(w.set(zeros({2}, f64)),
                       Contains("parameter cell.w is f32, not f64; convert the value with to() ("),
                       DTypeError);
  CHECK(w.entry()->version == 0);
  CHECK(params.count() == 4);
}

TEST_CASE("a copy of a store has values of its own, for a model built once more on it") {
  const Params params(1);
  Param w = params.create("w", {2}, [](Rng&, const Shape& s, DType t) { return full(s, 0.1, t); });
  const Params copy = params.clone(), exact = params.to(f64);
  w.edit<float>()[0] = 5;
  CHECK(copy["w"].value().at({0}) == doctest::Approx(0.1));
  CHECK(exact["w"].dtype() == f64);
  CHECK(exact["w"].value().at({1}) == static_cast<double>(0.1f));

  CHECK_THROWS_WITH_AS(
      copy.create("w", {3}, draw),
      Contains("parameter w has shape [2], but the module asks for [3] (" __FILE__ ":"),
      ShapeError);
  const Param claimed = copy.create("w", {2}, draw);
  CHECK(claimed.value().at({0}) == doctest::Approx(0.1));
  CHECK_THROWS_AS(copy.create("w", {2}, draw), ValueError);

  const Params part = (params / "a");
  part.create("b.w", {1}, draw);
  CHECK(names((part / "b").clone()) == std::vector<std::string>{"w"});
}

TEST_CASE("a parameter stands for a tensor") {
  const Params params(1, f64);
  const Param w =
      params.create("w", {2}, [](Rng&, const Shape& s, DType t) { return full(s, 3, t); });
  const Tensor plain = w;
  CHECK(plain.trace().generation == 0);
  CHECK((w * w).to_vector() == std::vector<double>{9, 9});
  CHECK((2 - w).to_vector() == std::vector<double>{-1, -1});
  CHECK((-w).to_vector() == std::vector<double>{-3, -3});
  CHECK(tanh(w).size() == 2);
  Tape tape;
  const Gradients g = tape.gradient(sum(w * w + 2 * w), params);
  CHECK(g["w"].to_vector() == std::vector<double>{8, 8});
  CHECK(g[w].to_vector() == std::vector<double>{8, 8});
}

TEST_CASE("gradients are values: added, scaled, measured") {
  const Params params(1, f64);
  const Param a = params.create("a", {2}, draw), b = params.create("b", {1}, draw),
              unused = params.create("unused", {5}, draw);
  const auto gradient_of = [&](auto f) {
    Tape tape;
    return tape.gradient(f(), params);
  };
  Gradients g = gradient_of([&] { return sum(3 * a); });
  CHECK(g.find(b) == nullptr);
  CHECK_THROWS_WITH_AS(
      g["b"],
      Contains("there is no gradient of parameter b: the loss did not depend on it (" __FILE__ ":"),
      GradientError);
  g += gradient_of([&] { return sum(a) + 4 * sum(b); });
  CHECK(g["a"].to_vector() == std::vector<double>{4, 4});
  CHECK(g["b"].to_vector() == std::vector<double>{4});
  CHECK(g.norm() == doctest::Approx(std::sqrt(48)));
  const Gradients before = g;
  g *= 0.5;
  CHECK(g["a"].to_vector() == std::vector<double>{2, 2});
  CHECK(before["a"].to_vector() == std::vector<double>{4, 4});
  int visited = 0;
  before.each([&](const auto& entry, const Tensor&) { visited += entry->name != "unused"; });
  CHECK(visited == 2);

  CHECK_THROWS_WITH_AS(g.set(*a.entry(), zeros({3}, f64)),
                       "parameter a is f64 [2], its gradient cannot be f64 [3]", ShapeError);
  const Params other(1);
  const Param stranger = other.create("a", {2}, draw);
  CHECK_THROWS_WITH_AS(g.set(*stranger.entry(), zeros({2})),
                       "parameter a is not of these gradients' store", ValueError);
  CHECK(g.find(unused) == nullptr);
}

TEST_CASE("only the asked part of a store gets gradients") {
  const Params params(1, f64);
  const Param w = (params / "head").create("w", {1}, draw), u = params.create("u", {1}, draw);
  Tape tape;
  const Gradients g = tape.gradient(sum(w * u), params / "head");
  CHECK(g["w"].item() == u.value().item());
  CHECK(g.find(u) == nullptr);
}

TEST_CASE("shared and repeated parameters get the sum of their gradients") {
  const Params params(1, f64);
  const Param w =
      params.create("w", {1}, [](Rng&, const Shape& s, DType t) { return full(s, 2, t); });
  const Param same = w;
  Tape tape;
  CHECK(tape.gradient(sum(w * same * same), params)["w"].item() == 12);
}

TEST_CASE("many parameters find their leaves") {
  const Params params(1, f64);
  std::vector<Param> list;
  for (int i = 0; i < 300; ++i) list.push_back(params.create(std::to_string(i), {1}, draw));
  Tape tape;
  Tensor loss = scalar(0, f64);
  for (int repeat = 0; repeat < 2; ++repeat)
    for (int i = 0; i < 300; ++i)
      loss = loss + (i + 1) * sum(list[static_cast<std::size_t>(i)].tensor());
  const Gradients g = tape.gradient(loss, params);
  for (int i = 0; i < 300; ++i) REQUIRE(g[list[static_cast<std::size_t>(i)]].item() == 2 * (i + 1));
}

TEST_CASE("blocks of rows have names") {
  const Params params(1);
  const Param w = params.create("w", {6, 2}, nn::init::constant(0), {"reset", "update", "new"});
  CHECK(coordinate_name(*w.entry(), 0) == "w[reset, 0, 0]");
  CHECK(coordinate_name(*w.entry(), 7) == "w[update, 1, 1]");
  CHECK(coordinate_name(*w.entry(), 11) == "w[new, 1, 1]");
  const Param b = params.create("b", {2}, nn::init::constant(0));
  CHECK(coordinate_name(*b.entry(), 1) == "b[1]");
  CHECK(coordinate_name(*params.create("s", {}, nn::init::constant(0)).entry(), 0) == "s");
  CHECK_THROWS_WITH_AS(
      params.create("v", {5, 2}, nn::init::constant(0), {"input", "forget"}),
      Contains("parameter v has shape [5, 2], which is not made of 2 blocks of rows (" __FILE__
               ":"),
      ShapeError);
}

TEST_CASE("gradients of no store take that of the first that are added") {
  const Params params(1, f64);
  const Param a = params.create("a", {2}, draw), b = params.create("b", {1}, draw);
  const auto gradient_of = [&](auto f, const Params& of) {
    Tape tape;
    return tape.gradient(f(), of);
  };
  Gradients total;
  for (int window = 0; window < 3; ++window)
    total += gradient_of([&] { return sum(3 * a) + sum(b); }, params);
  CHECK(total["a"].to_vector() == std::vector<double>{9, 9});
  CHECK(total["b"].item() == 3);
  CHECK(total.norm() == doctest::Approx(std::sqrt(81 + 81 + 9)));
  CHECK(total.params().contains(*a.entry()));
  total += total;
  CHECK(total["b"].item() == 6);
  Gradients nothing;
  nothing += Gradients();
  CHECK(nothing.norm() == 0);

  // Gradients of another store add nothing at all.
  const Params other(1, f64);
  const Param c = other.create("a", {2}, draw);
  CHECK_THROWS_AS(total += gradient_of([&] { return sum(c); }, other), ValueError);
  CHECK(total["a"].to_vector() == std::vector<double>{18, 18});
  // A parameter that was created later works too.
  const Param late = params.create("late", {1}, draw);
  total.set(*late.entry(), ones({1}, f64));
  CHECK(total["late"].item() == 1);
}

TEST_CASE("a gradient for a part that is not there lists what there is") {
  const Params params(1);
  const nn::Linear head(params / "head", 2, 3), gate(params / "deep" / "gate", 2, 3);
  const auto message = [&](const Params& of) {
    Tape tape;
    const Tensor loss = sum(square(head(ones({1, 2})))) + sum(gate(ones({1, 2})));
    try {
      tape.gradient(loss, of);
    } catch (const ValueError& e) {
      CHECK(tape.size() > 0);  // nothing is lost
      CHECK(tape.gradient(loss, params).norm() > 0);
      return std::string(e.what());
    }
    return std::string("nothing thrown");
  };
  CHECK(message(params / "haed")
            .starts_with("gradient: there are no parameters under haed; did you mean head? There "
                         "are: head, deep ("));
  CHECK(message(params / "typo")
            .starts_with("gradient: there are no parameters under typo; there are: head, deep ("));
  CHECK(message(params / "deep" / "gaet")
            .starts_with("gradient: there are no parameters under deep.gaet; did you mean gate? "
                         "There are: gate ("));
  CHECK(message(params / "dep" / "gate").find("under dep.gate; ") != std::string::npos);
  const Params other(1);
  const nn::Linear same_names(other / "head", 2, 3);
  const std::string foreign = message(other);
  CHECK(
      foreign.starts_with("gradient: none of these parameters was used on this tape, which has "
                          "parameter "));
  CHECK(foreign.find("is the model of another store? (") != std::string::npos);
  CHECK(message(Params(1)).starts_with("gradient: the store has no parameters; "));
  Tape tape_of_lists;
  const Tensor y = sum(head(ones({1, 2})));
  for (const Params& wrong : {other, params / "typo"})
    CHECK_THROWS_WITH_AS(
        tape_of_lists.gradient(y, wrong.list()),
        Contains("belongs to a store that was used on this tape; is it the list of "
                 "another model, or of a part that does not exist? (" __FILE__ ":"),
        ValueError);
  const auto lists = tape_of_lists.gradient(y, (params / "deep").list(), {.keep = true});
  CHECK(lists.size() == 2);
  CHECK(sum(abs(lists[0])).item() == 0);
  // A part of the model on which this loss does not depend is not an error.
  const nn::Linear unused(params / "unused", 2, 3);
  Tape tape;
  CHECK(tape.gradient(sum(head(ones({1, 2}))), params / "unused").norm() == 0);
  CHECK_THROWS_WITH_AS(optim::Sgd(params / "typo", {}), doctest::Contains("no parameters to train"),
                       ValueError);
  CHECK_THROWS_WITH_AS(
      params["haed.w"],
      Contains("there is no parameter haed.w; did you mean head.w? There are: head.w, "
               "head.b, deep.gate.w, deep.gate.b, unused.w, unused.b (" __FILE__ ":"),
      ValueError);
}

TEST_CASE("names are not empty, nor are their parts") {
  const Params params(1);
  for (const char* name : {"", ".", "a.", ".a", "a..b"}) {
    CAPTURE(name);
    CHECK_THROWS_WITH_AS(params / name, Contains("join names that are not empty (" __FILE__ ":"),
                         ValueError);
    CHECK_THROWS_WITH_AS(params.create(name, {1}, draw), Contains("is no name"), ValueError);
  }
  CHECK((params / "a.b" / "c").name() == "a.b.c");
  CHECK(params.name().empty());
  CHECK(params.list().empty());
}

TEST_CASE("a constructor that throws leaves no parameter behind") {
  const Params params(1);
  const nn::Linear kept(params / "kept", 2, 2);
  int calls = 0, fails_at = 0;
  const Initializer failing = [&](Rng& rng, const Shape& shape, DType dtype) {
    if (++calls == fails_at) throw std::runtime_error("no luck");
    return rng.normal(shape, 0, 1, dtype);
  };
  struct Model {
    Model(const Params& p, const Initializer& init)
        : lstm(p / "rnn", 2, 3, {}, nn::LstmOptions{.weight_init = init}),
          head(p / "head", 3, 2, {.weight_init = init}) {}
    nn::Stacked<nn::Lstm> lstm;
    nn::Linear head;
  };
  const std::vector<std::string> before = names(params);
  for (fails_at = 1; fails_at <= 5; ++fails_at) {  // four matrices of the stack, one of the head
    calls = 0;
    CHECK_THROWS_WITH(Model(params, failing), "no luck");
    CHECK(names(params) == before);
    CHECK(params.count() == 6);
  }
  calls = 0;
  const Model model(params, failing);
  CHECK(names(params).size() == before.size() + 8);
  CHECK(params["rnn.1.w_hh"].shape() == Shape{12, 3});
  // A taken name, detected only after the first parameter.
  params.create("taken.b", {1}, draw);
  CHECK_THROWS_AS(nn::Linear(params / "taken", 2, 2), ValueError);
  CHECK(names(params / "taken") == std::vector<std::string>{"taken.b"});
  // When an exception ends a scope, trained parameters stay, and so do those that were looked up.
  try {
    nn::Linear trained(params / "trained", 2, 2);
    trained.w.edit<float>()[0] = 7;
    trained.b.set(ones({2}));
    const Param looked_up = params["kept.w"];
    throw std::runtime_error("later");
  } catch (const std::runtime_error&) {
  }
  CHECK(params["trained.w"].value().at({0, 0}) == 7);
  CHECK(params["kept.w"].shape() == Shape{2, 2});
  // Parameters of a copy can be claimed again.
  const Params copy = params.clone();
  calls = 0;
  fails_at = 3;
  CHECK_THROWS_AS(nn::Linear(copy / "kept", 2, 3), ShapeError);
  CHECK(nn::Linear(copy / "kept", 2, 2).w.shape() == Shape{2, 2});
}

TEST_CASE("a new parameter has the shape that was asked for") {
  const Params params(1);
  const auto wrong = [](Rng&, const Shape&, DType dtype) { return zeros({3}, dtype); };
  CHECK_THROWS_WITH_AS(
      params.create("w", {2}, wrong),
      Contains("parameter w is f32 [2], but its initial values are f32 [3] (" __FILE__ ":"),
      ShapeError);
  CHECK(params.list().empty());
}

TEST_CASE("creating many parameters takes time in proportion") {
  const auto time_of = [](int count) {
    const Params params(1);
    return testing::cpu_seconds([&] {
      for (int i = 0; i < count; ++i)
        (params / std::to_string(i)).create("w", {1}, [](Rng&, const Shape& s, DType t) {
          return zeros(s, t);
        });
    });
  };
  double few = time_of(2'000), many = time_of(32'000);
  for (int i = 0; i < 2; ++i) {
    few = std::min(few, time_of(2'000));
    many = std::min(many, time_of(32'000));
  }
  CHECK(many <
        60 * few);  // 16 times as many; a linear search each time would take 256 times as long
}
