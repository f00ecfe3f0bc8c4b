// A user's first program, as the compiler and the linker see it: one training step of an LSTM next
// to the user's own Eigen code, which must agree with the library on memory alignment; and what
// border.cpp checks.
#include <reel/autograd/matrix.h>
#include <reel/nn/cells/lstm.h>
#include <reel/reel.h>

#include <Eigen/QR>
#include <cstdio>
#include <string>

#include "border.h"

int main() {
  reel::Params params(1);
  const reel::nn::Lstm lstm(
      params / "lstm", 4, 3,
      {.weight_init = reel::nn::init::constant(0.1), .bias_init = reel::nn::init::constant(0.1)});
  reel::optim::Sgd sgd(params, {.learning_rate = 0.1});

  reel::Tape tape;
  const std::string broken = broken_at_the_border(tape);
  const auto [y, state] = lstm(reel::ones({5, 2, 4}));
  const reel::Tensor loss = mean(square(y));
  sgd.step(tape.gradient(loss, params));

  reel::Rng rng(2);
  const reel::Tensor q = reel::nn::init::orthogonal()(rng, {64, 64}, reel::f64);
  const Eigen::MatrixXd r = reel::matrix<double>(q).householderQr().matrixQR();
  std::printf("%s %d %s\n", y.shape().str().c_str(), r.diagonal().cwiseAbs().isOnes(1e-12),
              broken.c_str());
}
