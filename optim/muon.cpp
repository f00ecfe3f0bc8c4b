#include <reel/optim/muon.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <reel/autograd/ops.h>
#include <reel/autograd/tape.h>

namespace reel::optim {

Muon::Muon(const nn::ModuleParams& params, const MuonOptions& options)
    : Optimizer("muon", params, common_of(options),
                {{"momentum", options.momentum, 1}, {"epsilon", options.epsilon}}, {{"m"}},
                Decay::decoupled),
      options_(options) {
  check_epsilon(options.epsilon);
  if (options.iterations < 0)
    fail(fmt::format("iterations is {}, but has to be 0 or more", options.iterations));
  for (const double coefficient : options.coefficients)
    if (!std::isfinite(coefficient))
      fail(fmt::format("one of the coefficients is {}, but has to be finite", coefficient));
  refuse_lazy_rows();
  for (const Slot& slot : slots())
    if (slot.param.shape().rank() != 2)
      fail(
          fmt::format("parameter {} of shape {} is no matrix; freeze it in a group, and give it "
                      "to another optimizer",
                      slot.param.name(), slot.param.shape().str()));
}

void Muon::begin(Slot& slot, const Tensor& gradient, double clip) const {
  const NoRecord pause;
  const double mu = options_.momentum;
  const Tensor g = gradient.detach() * clip;
  Tensor& m = slot.moments[0];
  m = mu * m + (1 - mu) * g;
  slot.direction = orthogonalized(slot.param, options_.nesterov ? (1 - mu) * g + mu * m : m);
}

// The nearest matrix with orthogonal rows, or columns if there are more rows, about: its singular
// values are near 1, but not all equal.
Tensor Muon::orthogonalized(const Param& param, const Tensor& direction) const {
  const Index blocks = static_cast<Index>(blocks_of(param));
  const Index rows = param.shape()[0] / blocks, columns = param.shape()[1];
  const auto [a, b, c] = options_.coefficients;
  std::vector<Tensor> results;
  for (Index block = 0; block < blocks; ++block) {
    Tensor x = slice(direction, 0, block * rows, (block + 1) * rows);
    if (rows > columns) x = transpose(x);
    // Scaled first, as squares of large numbers overflow.
    const double largest = std::max(max(abs(x)).item(), options_.epsilon);
    x = x / largest;
    x = x / std::max(sqrt(sum(square(x))).item(), options_.epsilon / largest);
    for (int i = 0; i < options_.iterations; ++i) {
      const Tensor gram = matmul(x, transpose(x));
      x = a * x + matmul(b * gram + c * matmul(gram, gram), x);
    }
    results.push_back(rows > columns ? transpose(x) : x);
  }
  return concat(results, 0);
}

void Muon::update(const Piece& piece) const {
  const double rate = piece.learning_rate * scale_of(piece.slot.param);
  each<0>(of_direction(piece), [=]<class T>(T& p, T d) { p -= T(rate) * d; });
}

double Muon::scale_of(const Param& param) const {
  const auto rows = static_cast<double>(param.shape()[0]) / static_cast<double>(blocks_of(param));
  const auto columns = static_cast<double>(param.shape()[1]);
  if (options_.scale == MuonScale::original) return std::sqrt(std::max(1.0, rows / columns));
  return 0.2 * std::sqrt(std::max(rows, columns));
}

std::size_t Muon::blocks_of(const Param& param) const {
  return options_.by_block ? std::max<std::size_t>(1, param.entry()->blocks.size()) : 1;
}

}  // namespace reel::optim
