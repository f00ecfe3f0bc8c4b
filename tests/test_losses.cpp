#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <sstream>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

#include "testing.h"

// Golden values are PyTorch 1.13's in float64; the comments say which call gives them, with F for
// torch.nn.functional.
using namespace reel;
using doctest::Approx;
using doctest::Contains;

namespace {

using Values = std::vector<double>;

Tensor logits() { return tensor({4, 3}, {0.5, -1, 2, 1.5, 0.25, -0.75, 0, 3, -2, 1, 1, 1}, f64); }
Tensor probabilities() {
  return tensor({4, 3}, {0.1, 0.2, 0.7, 0.5, 0.5, 0, 0, 1, 0, 0.25, 0.25, 0.5}, f64);
}
Tensor class_weights() { return tensor({3}, {0.5, 1, 2}, f64); }
Tensor i32s(const Values& values) {
  return tensor({static_cast<Index>(values.size())}, values, i32);
}
const Values targets{2, 0, 1, 1}, with_padding{2, -100, 1, 1};

Approx golden(double value) { return Approx(value).epsilon(1e-14); }

}  // namespace

TEST_CASE("cross_entropy agrees with PyTorch") {
  const Tensor x = logits(), t = i32s(targets), c = class_weights();
  // F.cross_entropy(x, t, weight=c, label_smoothing=0.1, ignore_index=-100)
  CHECK(cross_entropy(x, t).item() == golden(0.43139535752740954));
  CHECK(cross_entropy(x, t, {.class_weights = c}).item() == golden(0.4003458715695962));
  CHECK(cross_entropy(x, t, {.label_smoothing = 0.1}).item() == golden(0.5647286908607428));
  CHECK(cross_entropy(x, t, {.class_weights = c, .label_smoothing = 0.1}).item() ==
        golden(0.560604136304368));
  CHECK(cross_entropy(x, i32s(with_padding), {.ignore_index = -100}).item() ==
        golden(0.4649696069008047));
  Tape tape;
  const Tensor w = tape.watch(x);
  const Tensor loss = cross_entropy(
      w, i32s(with_padding), {.class_weights = c, .label_smoothing = 0.1, .ignore_index = -100});
  CHECK(loss.item() == golden(0.5359177003430572));
  const Values gradient = tape.gradient(loss, {w})[0].to_vector();
  const Values expected{0.07982664623376759,
                        0.010408108025537738,
                        -0.0902347542593053,
                        0,
                        0,
                        0,
                        0.007810535033352139,
                        0.007235193648860517,
                        -0.015045728682212583,
                        0.08055555555555556,
                        -0.1486111111111111,
                        0.06805555555555556};
  for (std::size_t i = 0; i < gradient.size(); ++i)
    CHECK(gradient[i] == Approx(expected[i]).epsilon(1e-12));
}

TEST_CASE("cross_entropy takes probabilities as targets") {
  const Tensor x = logits(), q = probabilities();
  // F.cross_entropy(x, q, weight=c, label_smoothing=0.1)
  CHECK(cross_entropy(x, q).item() == golden(0.7751453575274097));
  CHECK(cross_entropy(x, q, {.class_weights = class_weights(), .label_smoothing = 0.1}).item() ==
        golden(1.015472134866191));
  const Tensor certain = one_hot(i32s(targets), 3, f64);
  CHECK(cross_entropy(x, certain).item() == golden(cross_entropy(x, i32s(targets)).item()));
  const Tensor mask = tensor({4}, {1, 0, 0, 1}, f64);
  CHECK(cross_entropy(x, certain, mask).item() ==
        golden(cross_entropy(x, i32s(targets), mask).item()));
  // A class that cannot be the target may have no probability at all.
  CHECK(cross_entropy(tensor({2}, {0, -INFINITY}, f64), tensor({2}, {1, 0}, f64)).item() == 0);
}

TEST_CASE("nll of log_softmax is cross_entropy") {
  const Tensor log_p = log_softmax(logits());
  // F.nll_loss(log_p, t, weight=c, ignore_index=-100)
  CHECK(nll(log_p, i32s(with_padding), {.class_weights = class_weights(), .ignore_index = -100})
            .item() == golden(0.40905502933989274));
  const Tensor weights = tensor({4}, {1, 0.5, 0, 2}, f64);
  CHECK(nll(log_p, i32s(targets), {.weights = weights}).item() ==
        golden(cross_entropy(logits(), i32s(targets), weights).item()));
}

TEST_CASE("an ignored position contributes nothing, whatever its values") {
  Tensor x = logits();
  for (std::size_t i = 3; i < 6; ++i) x.edit<double>()[i] = NAN;
  const Tensor weights = tensor({4}, {1, 0, 1, 1}, f64);
  for (const bool by_weight : {true, false}) {
    Tape tape;
    const Tensor w = tape.watch(x);
    const Tensor loss = by_weight ? cross_entropy(w, i32s(targets), weights)
                                  : cross_entropy(w, i32s(with_padding), {.ignore_index = -100});
    CHECK(loss.item() == golden(0.4649696069008047));
    for (const double g : tape.gradient(loss, {w})[0].to_vector()) CHECK(std::isfinite(g));
  }
  CHECK(cross_entropy(x, one_hot(i32s(targets), 3, f64), weights).item() ==
        golden(0.4649696069008047));
  const Tensor bad = tensor({2}, {NAN, 3}, f64), mask = tensor({2}, {0, 1}, f64);
  CHECK(mse(bad, zeros({2}, f64), mask).item() == 9);
}

TEST_CASE("an empty mean is an error") {
  const Tensor x = logits(), none = zeros({4}, f64);
  const auto nothing =
      Contains("cross_entropy: there is nothing to average: the weights that count sum to 0 (");
  CHECK_THROWS_WITH_AS(cross_entropy(x, i32s(targets), none), nothing, ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, i32s({7, 7, 7, 7}), {.ignore_index = 7}), nothing,
                       ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, probabilities(), none), nothing, ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(zeros({0, 3}), i32s({})),
                       Contains("cross_entropy: there is nothing to average; logits is f32 [0, 3]"),
                       ValueError);
  CHECK_THROWS_WITH_AS(mse(none, none, none),
                       Contains("mse: there is nothing to average: the weights sum to 0 ("),
                       ValueError);
  CHECK_THROWS_WITH_AS(l1(zeros({0}), zeros({0})),
                       Contains("l1: there is nothing to average; x is f32 [0]"), ValueError);
}

TEST_CASE("targets out of range are errors unless they are ignored") {
  const Tensor x = logits();
  CHECK_THROWS_WITH_AS(
      cross_entropy(x, i32s({0, 3, 0, 0})),
      Contains("cross_entropy: target 3 at position 1 is not among the 3 classes (0 to 2) ("),
      ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, i32s({0, -100, -1, 0}), {.ignore_index = -100}),
                       Contains("target -1 at position 2"), ValueError);
  CHECK_THROWS_WITH_AS(nll(x, i32s({0, 0, 0, -1})), Contains("nll: target -1 at position 3"),
                       ValueError);
  CHECK_THROWS_WITH_AS(
      cross_entropy(x, i32s({0, 1})),
      Contains("cross_entropy: the targets must have the axes of the scores but the last"),
      ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, i32s(targets), {.class_weights = ones({4}, f64)}),
                       Contains("cross_entropy: there must be a class weight for each class"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, probabilities(), {.class_weights = ones({4, 3}, f64)}),
                       Contains("cross_entropy: there must be a class weight for each class"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, i32s(targets), {.label_smoothing = 1.5}),
                       Contains("cross_entropy: the label smoothing must be in [0, 1], not 1.5 ("),
                       ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, probabilities(), {.ignore_index = 0}),
                       Contains("cross_entropy: ignore_index needs targets that are classes"),
                       ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, ones({4}, f64)),
                       Contains("targets that are probabilities have the shape of the logits"),
                       ShapeError);
}

TEST_CASE("losses of pairs of numbers agree with PyTorch") {
  const Tensor x = tensor({4}, {0.5, -2, 3, 0}, f64), t = tensor({4}, {1, 0, 0.25, 0.75}, f64);
  CHECK(mse(x, t).item() == golden(3.09375));           // F.mse_loss(x, t)
  CHECK(l1(x, t).item() == golden(1.5));                // F.l1_loss(x, t)
  CHECK(huber(x, t, 1.5).item() == golden(1.3203125));  // F.huber_loss(x, t, delta=1.5)
  CHECK(pinball(x, t, 0.3).item() == golden((0.3 * 3.25 + 0.7 * 2.75) / 4));
  // F.binary_cross_entropy_with_logits(x, t)
  CHECK(bce_with_logits(x, t).item() == golden(0.8981848818391917));
  // F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(3.0))
  CHECK(bce_with_logits(x, t, {.positive_weight = 3}).item() == golden(1.4012269855859423));
  // F.kl_div(F.log_softmax(logits, -1), probabilities, reduction='batchmean')
  CHECK(kl_div(log_softmax(logits()), probabilities()).item() == golden(0.14147373154160942));
}

TEST_CASE("the losses of extreme numbers are finite") {
  for (const DType dtype : {f32, f64}) {
    const Tensor x = tensor({2}, {700, -700}, dtype);
    CHECK(bce_with_logits(x, tensor({2}, {1, 0}, dtype)).item() < 1e-300);
    CHECK(bce_with_logits(x, tensor({2}, {0, 1}, dtype)).item() == 700);
    CHECK(cross_entropy(x, tensor({}, {1}, i32)).item() == 1400);
    Tape tape;
    const Tensor w = tape.watch(x);
    CHECK(tape.gradient(bce_with_logits(w, tensor({2}, {0, 1}, dtype)), {w})[0].to_vector() ==
          Values{0.5, -0.5});
  }
}

namespace {

// A loss of a matrix x [4, 3], called with and without weights, and its weights of 1.
struct Weighted {
  const char* name;
  std::function<Tensor(const Tensor& x, const Tensor& weights, const Tensor& class_weights)> loss;
  Shape weights;
};

std::vector<Weighted> weighted_losses() {
  const Tensor p = probabilities(), t = i32s(targets);
  const auto options = [](const Tensor& w, const Tensor& c) {
    return CrossEntropyOptions{.weights = w, .class_weights = c, .label_smoothing = 0.25};
  };
  return {
      {"cross_entropy",
       [=](const Tensor& x, const Tensor& w, const Tensor& c) {
         return cross_entropy(x, t, options(w, c));
       },
       {4}},
      {"nll",
       [=](const Tensor& x, const Tensor& w, const Tensor& c) { return nll(x, t, options(w, c)); },
       {4}},
      {"cross_entropy of probabilities",
       [=](const Tensor& x, const Tensor& w, const Tensor& c) {
         return cross_entropy(x, p, options(w, c));
       },
       {4}},
      {"mse", [=](const Tensor& x, const Tensor& w, const Tensor&) { return mse(x, p, {w}); }, {}},
      {"l1", [=](const Tensor& x, const Tensor& w, const Tensor&) { return l1(x, p, {w}); }, {}},
      {"huber",
       [=](const Tensor& x, const Tensor& w, const Tensor&) { return huber(x, p, 1, {w}); },
       {}},
      {"pinball",
       [=](const Tensor& x, const Tensor& w, const Tensor&) { return pinball(x, p, 0.3, {w}); },
       {}},
      {"bce_with_logits",
       [=](const Tensor& x, const Tensor& w, const Tensor&) {
         return bce_with_logits(x, p, {.weights = w});
       },
       {}},
      {"kl_div",
       [=](const Tensor& x, const Tensor& w, const Tensor&) { return kl_div(x, p, {w}); },
       {}},
  };
}

// How many values a tape has, as its last line says.
std::string values_on(const Tape& tape) {
  std::ostringstream out;
  tape.print(out);
  const std::string text = out.str();
  const std::size_t end = text.rfind(" values, "), begin = text.rfind(' ', end - 1) + 1;
  return text.substr(begin, end - begin);
}

}  // namespace

TEST_CASE("weights that are not given are 1, bit for bit, and not on the tape") {
  for (const Weighted& l : weighted_losses()) {
    CAPTURE(std::string(l.name));
    const bool classes = l.weights.rank() > 0;
    Tape with, without;
    const auto gradients = [&](Tape& tape, const Tensor& w, const Tensor& c) {
      const TapeScope scope(&tape);
      const Tensor x = tape.watch(logits()), y = l.loss(x, w, c);
      // The scores, the targets, the value, and what softmax keeps.
      const int hidden = std::string_view(l.name).starts_with("cross_entropy") ? 2 : 0;
      if (!w.defined()) CHECK(values_on(tape) == std::to_string(3 + hidden));
      const Tensor g = tape.gradient(y, {x}, {.create_graph = true})[0];
      std::vector<Tensor> results{y.detach(), g.detach()};
      if (g.trace().generation != 0)  // not constant
        results.push_back(tape.gradient(sum(square(g)), {x})[0]);
      return results;
    };
    const auto given = gradients(with, ones(l.weights, f64), classes ? ones({3}, f64) : Tensor());
    const auto absent = gradients(without, {}, {});
    REQUIRE(given.size() == absent.size());
    for (std::size_t i = 0; i < given.size(); ++i) CHECK(testing::same_bits(given[i], absent[i]));
  }
}

TEST_CASE("errors of losses name what the user called and gave") {
  using testing::error_of;
  const Site site("train.cpp", 12);
  const Tensor x = zeros({2, 3}), q = full({2, 3}, 0.25), t = zeros({2}, i32);
  CHECK(error_of<ShapeError>([&] {
          cross_entropy(x, zeros({2, 2}), {}, site);
        }) ==
        "cross_entropy: targets that are classes are i32 in the shape of the logits without the "
        "last axis, and targets that are probabilities have the shape of the logits; logits is f32 "
        "[2, 3], targets is f32 [2, 2] (train.cpp:12)");
  CHECK(error_of<ShapeError>([&] { cross_entropy(x, q, {.class_weights = ones({2})}, site); }) ==
        "cross_entropy: there must be a class weight for each class; logits is f32 [2, 3], targets "
        "is f32 [2, 3], class_weights is f32 [2] (train.cpp:12)");
  CHECK(error_of<DTypeError>([&] { cross_entropy(x, q, {.weights = ones({2}, f64)}, site); }) ==
        "cross_entropy: the arguments differ in dtype; convert one with to(); logits is f32 [2, "
        "3], targets is f32 [2, 3], weights is f64 [2] (train.cpp:12)");
  CHECK(error_of<ValueError>([&] { cross_entropy(x, q, {.weights = zeros({2})}, site); }) ==
        "cross_entropy: there is nothing to average: the weights that count sum to 0 "
        "(train.cpp:12)");
  CHECK(error_of<ValueError>([&] { cross_entropy({}, q, {}, site); }) ==
        "cross_entropy: logits is undefined: it was never given a value (train.cpp:12)");
  CHECK(error_of<ShapeError>([&] { cross_entropy(x, zeros({3}, i32), {}, site); }) ==
        "cross_entropy: the targets must have the axes of the scores but the last, which is the "
        "classes; logits is f32 [2, 3], targets is i32 [3] (train.cpp:12)");
  CHECK(error_of<ShapeError>([&] { nll(scalar(1), t, {}, site); }) ==
        "nll: the targets must have the axes of the scores but the last, which is the classes; "
        "log_probabilities is f32 [], targets is i32 [2] (train.cpp:12)");
  CHECK(error_of<ShapeError>([&] { mse(x, zeros({2}), {}, site); }) ==
        "mse: the targets must have the shape of x; loss functions do not broadcast; x is f32 [2, "
        "3], targets is f32 [2] (train.cpp:12)");
  Tape tape;
  const Tensor w = tape.watch(q);
  const Tensor loss = cross_entropy(x, w, {}, site);
  tape.gradient(loss, {w});
  Tape other;
  CHECK(error_of<StaleTensorError>([&] {
          cross_entropy(other.watch(x), w, {}, site);
        }).starts_with("cross_entropy: targets was recorded on "));
}

TEST_CASE("a weight applies to all elements under it") {
  const Tensor x = tensor({2, 2}, {1, 2, 3, 4}, f64), t = zeros({2, 2}, f64);
  CHECK(mse(x, t).item() == golden(30 / 4.));
  CHECK(mse(x, t, tensor({2}, {1, 3}, f64)).item() == golden((5 + 3 * 25) / 8.));
  CHECK(mse(x, t, tensor({2, 2}, {0, 0, 0, 1}, f64)).item() == 16);
  const Tensor p = tensor({2, 2}, {1, 0, 0.5, 0.5}, f64);
  CHECK(kl_div(-x, p, tensor({2}, {1, 0}, f64)).item() == 1);
  CHECK(kl_div(-x, p, tensor({2}, {0, 2}, f64)).item() == golden(3.5 - std::log(2)));
  CHECK_THROWS_WITH_AS(
      mse(x, t, ones({1, 2}, f64)),
      Contains("mse: the weights must have leading axes of x; x is f64 [2, 2], targets is f64 [2, "
               "2], weights is f64 [1, 2] ("),
      ShapeError);
  CHECK_THROWS_WITH_AS(kl_div(x, t, ones({2, 2}, f64)), Contains("at most all but the last"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(mse(x, zeros({2}, f64)),
                       Contains("mse: the targets must have the shape of x"), ShapeError);
  CHECK_THROWS_WITH_AS(huber(x, t, 0), Contains("huber: delta must be positive, not 0 ("),
                       ValueError);
}

TEST_CASE("a quantile of the data is where their pinball loss is least") {
  // Of the 11 numbers 0, 1, ..., 10 the quantile 0.8 is 8: 8 are below it and 2 above.
  const Tensor t = arange(11).to(f64);
  const auto slope = [&](double at) {
    Tape tape;
    const Tensor x = tape.watch(scalar(at, f64));
    const Tensor loss = pinball(broadcast_to(x, {11}), t, 0.8, {.reduction = LossReduction::sum});
    return tape.gradient(loss, {x})[0].item();
  };
  CHECK(slope(7.5) == golden(-0.8));  // 8 * 0.2 - 3 * 0.8
  CHECK(slope(8) == golden(0));       // 8 * 0.2 - 2 * 0.8, and nothing of x = t
  CHECK(slope(8.5) == golden(0.2));
  CHECK_THROWS_WITH_AS(pinball(t, t, 1),
                       Contains("pinball: the quantile must be between 0 and 1, not 1 ("),
                       ValueError);
}

TEST_CASE("the gradient of a probability of 0 omits its logarithm") {
  Tape tape;
  const Tensor x = tensor({2}, {-1, -2}, f64), t = tape.watch(tensor({2}, {0, 1}, f64));
  CHECK(tape.gradient(kl_div(x, t), {t})[0].to_vector() == Values{1, 3});
}

TEST_CASE("rms_norm divides by the root of the mean square") {
  const Tensor x = tensor({2, 3}, {1, -2, 3, 0.5, 0.25, -4}, f64);
  // x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * gain
  const Values expected{0.4629095539120194,  -0.4629095539120194, 2.7774573234721163,
                        0.21442230979770957, 0.05360557744942739, -3.430756956763353};
  const Values y = rms_norm(x, tensor({3}, {1, 0.5, 2}, f64)).to_vector();
  for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == golden(expected[i]));
  CHECK_THROWS_WITH_AS(
      rms_norm(x, ones({2}, f64)),
      Contains("rms_norm: x has 3 features, but the layer takes 2; x is f64 [2, 3]"), ShapeError);
}
