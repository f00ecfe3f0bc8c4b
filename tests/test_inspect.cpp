#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>
#include <reel/nn/cells/lstm.h>
#include <reel/nn/linear.h>
#include <reel/nn/unroll.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using doctest::Contains;
using testing::error_of;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// y = tanh(x · w), at lines of a fictitious program.
Tensor small_model(const Tensor& x, const Param& w) {
  return reel::tanh(matmul(x, w, false, false, Site("model.cpp", 3)), Site("model.cpp", 4));
}

Tensor filled(Rng&, const Shape& shape, DType dtype) { return full(shape, 0.5, dtype); }

}  // namespace

TEST_CASE("a tape prints a table of its records") {
  const Params params(1);
  const Param w = params.create("head.w", {2, 3}, filled);
  Tape tape;
  const Tensor x = tape.watch(ones({4, 2}));
  const Tensor y = small_model(x, w);
  std::ostringstream out;
  tape.print(out);
  CHECK(out.str() ==
        "record  op      inputs                    outputs    bytes  held  module  step  place\n"
        "     0  matmul  %0 [4, 2], head.w [2, 3]  %2 [4, 3]     48    48  head          "
        "model.cpp:3\n"
        "     1  tanh    %2 [4, 3]                 %3 [4, 3]     48     0                "
        "model.cpp:4\n"
        "2 records, 4 values, 1 parameters; outputs of 96 bytes, 48 of them held\n");
}

TEST_CASE("a tape says how many bytes of results it holds, shared ones once") {
  Tape tape;
  const Tensor x = tape.watch(ones({4, 2}));
  CHECK(tape.held_bytes() == 0);
  const Tensor y = exp(x);  // reads its output
  CHECK(tape.held_bytes() == 32);
  const Tensor flat = reshape(y, {8});
  const Tensor z = flat * flat;  // reads the buffer that reshape shares with exp
  CHECK(tape.held_bytes() == 32);
  const Tensor loss = sum(exp(z));  // reads its output
  CHECK(tape.held_bytes() == 64);
  tape.gradient(loss, {x});
  CHECK(tape.held_bytes() == 0);
}

TEST_CASE("a tape draws its graph") {
  const Params params(1);
  const Param w = params.create("head.w", {2, 3}, filled);
  Tape tape;
  const Tensor y = small_model(tape.watch(ones({4, 2})), w);
  CHECK(tape.dot() ==
        "digraph tape {\n"
        "  node [shape=box, fontname=\"sans-serif\"];\n"
        "  v0 [label=\"%0\\n[4, 2]\", style=filled, fillcolor=lightgrey];\n"
        "  v1 [label=\"head.w\\n[2, 3]\", style=filled, fillcolor=lightyellow];\n"
        "  r0 [label=\"matmul\\nhead\", style=rounded];\n"
        "  v0 -> r0 [label=\"[4, 2]\"];\n"
        "  v1 -> r0 [label=\"[2, 3]\"];\n"
        "  r1 [label=\"tanh\", style=rounded];\n"
        "  r0 -> r1 [label=\"[4, 3]\"];\n"
        "}\n");
}

TEST_CASE("records know their module and time step") {
  const Params params(1);
  const nn::Unroll<nn::LstmCell> layer(params / "lstm", 2, 3);
  Tape tape;
  layer(tape.watch(ones({2, 1, 2})));
  std::ostringstream out;
  tape.print(out);
  CHECK(out.str().find("lstm       1  ") != std::string::npos);
  CHECK(out.str().find("lstm       2  ") == std::string::npos);
}

TEST_CASE("a hook sees the gradient and may replace it") {
  Tape tape;
  const Tensor x = tape.watch(tensor({2}, {1, 2}, f64));
  const Tensor y = square(x);
  std::vector<double> seen;
  SUBCASE("it inspects") {
    tape.on_gradient(y, [&](const Tensor& g) {
      seen = g.to_vector();
      return Tensor();
    });
    CHECK(tape.gradient(sum(3 * y), {x})[0].to_vector() == std::vector<double>{6, 12});
    CHECK(seen == std::vector<double>{3, 3});
  }
  SUBCASE("it scales, and a second one sees the scaled gradient") {
    tape.on_gradient(y, [](const Tensor& g) { return 10 * g; });
    tape.on_gradient(y, [&](const Tensor& g) {
      seen = g.to_vector();
      return g + 1;
    });
    CHECK(tape.gradient(sum(y) + sum(y), {x})[0].to_vector() == std::vector<double>{42, 84});
    CHECK(seen == std::vector<double>{20, 20});
  }
  SUBCASE("on the variable itself, once for all contributions") {
    int calls = 0;
    tape.on_gradient(x, [&](const Tensor& g) {
      ++calls;
      return -g;
    });
    CHECK(tape.gradient(sum(y) + sum(x), {x})[0].to_vector() == std::vector<double>{-3, -5});
    CHECK(calls == 1);
  }
  SUBCASE("also where nobody asked for the gradient of the tensor") {
    const Tensor z = tape.watch(scalar(2, f64));
    tape.on_gradient(z, [&](const Tensor& g) {
      seen = g.to_vector();
      return Tensor();
    });
    tape.gradient(sum(y * z), {x});
    CHECK(seen == std::vector<double>{5});
  }
  SUBCASE("not where no gradient arrives") {
    tape.on_gradient(y, [&](const Tensor& g) {
      seen = g.to_vector();
      return Tensor();
    });
    tape.gradient(sum(x), {x});
    CHECK(seen.empty());
  }
  SUBCASE("the second derivative goes through it") {
    tape.on_gradient(y, [](const Tensor& g) { return g * g; });
    const Tensor loss = 3 * sum(y);
    const Tensor g = tape.gradient(loss, {x}, {.create_graph = true})[0];
    CHECK(g.to_vector() == std::vector<double>{18, 36});
    CHECK(tape.gradient(sum(g), {x})[0].to_vector() == std::vector<double>{18, 18});
  }
}

TEST_CASE("a hook on a parameter") {
  const Params params(1, f64);
  const Param w = params.create("w", {2}, filled);
  Tape tape;
  tape.on_gradient(w, [](const Tensor& g) { return 0.5 * g; });
  CHECK(tape.gradient(sum(4 * w), params)["w"].to_vector() == std::vector<double>{2, 2});
}

TEST_CASE("a hook that fails is an error of the pass") {
  const auto gradient_with = [](bool on_variable, const GradientHook& hook) {
    return error_of<GradientError>([&] {
      Tape tape;
      const Tensor x = tape.watch(ones({2}));
      const Tensor y = square(x, Site("model.cpp", 8));
      tape.on_gradient(on_variable ? x : y, hook);
      const Tensor loss = sum(y);
      try {
        tape.gradient(loss, {x});
      } catch (const Error&) {
        CHECK(tape.size() == 0);
        CHECK(tape.gradient(sum(tape.watch(ones({2}))), {tape.watch(x.detach())}).size() == 1);
        throw;
      }
    });
  };
  CHECK(gradient_with(false, [](const Tensor&) { return ones({3}); }) ==
        "the hook's result is f32 [3], but the gradient is f32 [2] (in the gradient of square "
        "recorded at model.cpp:8)");
  CHECK(gradient_with(true, [](const Tensor&) -> Tensor { throw Error("no"); }) ==
        "no (in a hook)");
  Tape tape;
  CHECK(
      error_of<GradientError>([&] { tape.on_gradient(ones({2}), nullptr); })
          .starts_with("on_gradient: the tensor was not recorded on this tape; watch() the inputs "
                       "that it depends on, or use parameters, while the tape is current; "
                       "detach() and to() give constants ("));
}

TEST_CASE("a tape with check_finite names the first number that is not finite") {
  Tape tape({.check_finite = true});
  SUBCASE("forward") {
    const Tensor x = tape.watch(tensor({2, 2}, {1, 2, -1, 4}));
    CHECK(error_of<NotFiniteError>([&] { reel::log(x, Site("model.cpp", 5)); }) ==
          "check_finite: output 0 of log is NaN at [1, 0] of [2, 2] (model.cpp:5)");
    CHECK(tape.size() == 0);
  }
  SUBCASE("with the argument that brought it") {
    const Tensor x = tape.watch(ones({2}));
    CHECK(error_of<NotFiniteError>([&] {
            mul(x, tensor({2}, {1, infinity}), Site("model.cpp", 6));
          }) ==
          "check_finite: output 0 of mul is infinite at [1] of [2]; its argument b is infinite at "
          "[1] of [2] (model.cpp:6)");
  }
  SUBCASE("with the time step and the module, in an unrolled cell") {
    const Params params(1);
    const nn::Unroll<nn::LstmCell> layer(params / "lstm", 1, 1);
    Tensor x = ones({5, 1, 1});
    x.edit<float>()[3] = std::nanf("");
    const std::string text = error_of<NotFiniteError>([&] { layer(x); });
    CHECK(text.find("output 0 of affine is NaN at [0, 0] of [1, 4] (time step 3)") !=
          std::string::npos);
    CHECK(text.find("in module lstm") != std::string::npos);
  }
  SUBCASE("with the time step, in a fused layer") {
    Tensor x = ones({5, 1, 1});
    x.edit<float>()[3] = std::nanf("");
    const Tensor w = tape.watch(ones({1, 1}));
    const std::string text = error_of<NotFiniteError>([&] {
      rnn(x, w, w, zeros({1}), zeros({1, 1}), Activation::tanh, {}, Site("m.cpp", 7));
    });
    CHECK(text ==
          "check_finite: output 0 of rnn is NaN at [3, 0, 0] of [5, 1, 1] (time step 3); its "
          "argument x is NaN at [3, 0, 0] of [5, 1, 1] (time step 3) (m.cpp:7)");
  }
  SUBCASE("backward") {
    const Tensor x = tape.watch(tensor({2}, {4, 0}));
    const Tensor y = sum(reel::sqrt(x, Site("model.cpp", 9)));
    CHECK(error_of<NotFiniteError>([&] { tape.gradient(y, {x}); }) ==
          "check_finite: the gradient of %0 is infinite at [1] of [2] (in the gradient of sqrt "
          "recorded at model.cpp:9)");
    CHECK(tape.size() == 0);
  }
  SUBCASE("not what is finite") {
    const Tensor x = tape.watch(tensor({2}, {4, 9}));
    CHECK(tape.gradient(sum(reel::sqrt(x)), {x})[0].at({0}) == doctest::Approx(0.25));
  }
}

TEST_CASE("a tape without check_finite lets infinities pass") {
  Tape tape;
  const Tensor x = tape.watch(zeros({2}));
  CHECK(tape.gradient(sum(reel::sqrt(x)), {x})[0].at({0}) == infinity);
}

TEST_CASE("a profile says where time and memory went") {
  const Params params(1);
  const nn::Linear head(params / "head", 2, 3);
  Tape tape({.profile = true});
  for (int i = 0; i < 2; ++i) {
    const Tensor y = sum(reel::tanh(head(ones({4, 2}))));
    tape.gradient(y, params);
  }
  int forward = 0, backward = 0;
  std::int64_t bytes = 0, last = -1;
  for (const Profile::Event& event : tape.profile().events()) {
    (event.pass == Profile::Pass::forward ? forward : backward) += event.op == "affine";
    if (event.op == "affine") {
      bytes += event.bytes;
      CHECK(tape.profile().modules()[static_cast<std::size_t>(event.module)] == "head");
    }
    CHECK(event.duration_ns >= 0);
    CHECK(event.begin_ns >= last);
    last = event.begin_ns;
  }
  CHECK(forward == 2);
  CHECK(backward == 2);
  CHECK(bytes == 2 * 4 * 3 * 4);
  const std::string text = tape.profile().str();
  CHECK(text.find("affine") != std::string::npos);
  CHECK(text.find("head ") != std::string::npos);
  CHECK(text.find("(none)") != std::string::npos);
  CHECK(text.find("100.0%") != std::string::npos);

  const TemporaryDirectory directory;
  const std::string path = (directory / "trace.json").string();
  tape.profile().save_chrome_trace(path);
  const auto trace = nlohmann::json::parse(std::ifstream(path));
  CHECK(trace["traceEvents"].size() == tape.profile().events().size());
  CHECK(trace["traceEvents"][0]["name"] == "affine");
  CHECK(trace["traceEvents"][0]["ph"] == "X");
  CHECK(trace["traceEvents"][0]["args"]["module"] == "head");
  const std::string nowhere = (directory / "missing/trace.json").string();
  CHECK(error_of<FileError>([&] { tape.profile().save_chrome_trace(nowhere); }) ==
        nowhere + ": the trace cannot be written there");
}

TEST_CASE("nothing is measured unless requested") {
  Tape tape;
  const Tensor x = tape.watch(ones({2}));
  tape.gradient(sum(x), {x});
  CHECK(tape.profile().events().empty());
}
