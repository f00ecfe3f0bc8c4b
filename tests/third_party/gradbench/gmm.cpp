// The log posterior of a mixture of Gaussians, with a Wishart prior.
#include <reel/autograd/functional.h>
#include <reel/autograd/ops.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "evals.h"

using namespace reel;

namespace gradbench {
namespace {

struct Mixture {
  Tensor x;  // [N, D]
  Index d, k, n;
  double m, gamma;
  Tensor entries;  // i32 [D D]: where each element of a factor is in (l, exp q, 0)
};

// A factor is lower triangular: exp q is its diagonal, and l the rest, column by column.
Tensor factor_entries(Index d) {
  const Index diagonal = d * (d - 1) / 2, zero = diagonal + d;
  std::vector<Index> entries(static_cast<std::size_t>(d * d), zero);
  for (Index j = 0, next = 0; j < d; ++j) {
    entries[static_cast<std::size_t>(j * d + j)] = diagonal + j;
    for (Index i = j + 1; i < d; ++i) entries[static_cast<std::size_t>(i * d + j)] = next++;
  }
  return tensor({d * d}, entries);
}

double log_prior_constant(const Mixture& given) {
  const double d = static_cast<double>(given.d), n = d + given.m + 1;
  double log_gamma = 0.25 * d * (d - 1) * std::log(std::numbers::pi);  // multivariate, of n / 2
  for (Index j = 1; j <= given.d; ++j)
    log_gamma += std::lgamma(0.5 * (n + 1 - static_cast<double>(j)));
  return n * d * (std::log(given.gamma) - 0.5 * std::numbers::ln2) - log_gamma;
}

// alpha [K], mu [K, D], q [K, D], l [K, D (D - 1) / 2]
Tensor objective(const Mixture& given, std::span<const Tensor> in) {
  const Tensor &alpha = in[0], &mu = in[1], &q = in[2], &l = in[3];
  const Index d = given.d, k = given.k, n = given.n;
  const Tensor diagonal = exp(q), sum_q = sum(q, 1);
  const Tensor columns = transpose(concat({l, diagonal, zeros({k, 1}, f64)}, 1));
  const Tensor factors = reshape(transpose(gather_rows(columns, given.entries)), {k, d, d});

  // Q (x - mu) for all points and components as one product.
  const Tensor shift = neg(matmul(factors, expand(mu, 2)));  // [K, D, 1]
  const Tensor z = affine(given.x, reshape(factors, {k * d, d}), reshape(shift, {k * d}));
  const Tensor distances = sum(square(reshape(z, {n, k, d})), 2);
  const Tensor likelihood = sum(logsumexp(alpha + sum_q - 0.5 * distances, 1)) -
                            static_cast<double>(n) * logsumexp(alpha);
  const Tensor prior = 0.5 * given.gamma * given.gamma * (sum(square(diagonal)) + sum(square(l))) -
                       given.m * sum(sum_q);
  const double constant = static_cast<double>(k) * log_prior_constant(given) -
                          0.5 * static_cast<double>(n * d) * std::log(2 * std::numbers::pi);
  return likelihood - prior + constant;
}

Prepared made(const Json& input, bool gradient) {
  const Mixture given{.x = matrix_of(input.at("x")),
                      .d = input.at("d"),
                      .k = input.at("k"),
                      .n = input.at("n"),
                      .m = input.at("m"),
                      .gamma = input.at("gamma"),
                      .entries = factor_entries(input.at("d"))};
  const std::vector<Tensor> variables = {vector_of(input.at("alpha")), matrix_of(input.at("mu")),
                                         matrix_of(input.at("q")), matrix_of(input.at("l"))};
  const auto f = [given](std::span<const Tensor> in) { return objective(given, in); };
  if (!gradient) return {[=] { return Tensors{f(variables)}; }, first_to_json};
  return {[=] {
            Tensors all;
            for (Tensor& g : vjp(f, variables, scalar(1, f64)).gradients)
              all.push_back(std::move(g));
            return all;
          },
          [](const Tensors& g) {
            return Json{{"alpha", to_json(g[0])},
                        {"mu", to_json(g[1])},
                        {"q", to_json(g[2])},
                        {"l", to_json(g[3])}};
          }};
}

}  // namespace

Module gmm() {
  return {{"objective", [](const Json& input) { return made(input, false); }},
          {"jacobian", [](const Json& input) { return made(input, true); }}};
}

}  // namespace gradbench
