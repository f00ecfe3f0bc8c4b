#include <reel/nn/generate/logits.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <reel/autograd/error.h>

namespace reel::nn::detail {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

void check_logits(const char* caller, const Tensor& logits, Index rows, Site site) {
  if (logits.rank() != 2 || logits.size(0) != rows || logits.size(1) == 0)
    throw ShapeError(fmt::format("{}: logits have shape {}, not [{}, V], a row for each token",
                                 caller, logits.shape().str(), rows),
                     site);
  if (!is_real(logits.dtype()))
    throw DTypeError(fmt::format("{}: logits are i32, not f32 or f64", caller), site);
}

LogitRow logit_row(const char* caller, const Tensor& logits, Index row, Site site) {
  const Index size = logits.size(-1);
  LogitRow result(static_cast<std::size_t>(size));
  dispatch_real(logits.dtype(), [&]<class T>() {
    const T* from = logits.begin<T>() + row * size;
    std::transform(from, from + size, result.begin(), [](T x) { return static_cast<double>(x); });
  });
  const auto bad = std::ranges::find_if(result, [](double x) { return !(x < infinity); });
  if (bad == result.end()) return result;
  const std::string where = logits.size() == size ? "" : fmt::format(" of row {}", row);
  throw ValueError(fmt::format("{}: logit {}{} is {}; the model has diverged", caller,
                               bad - result.begin(), where, *bad),
                   site);
}

double log_sum_exp(std::span<const double> row) {
  const double largest = *std::ranges::max_element(row);
  if (largest == -infinity) return largest;
  double sum = 0;
  for (const double x : row) sum += std::exp(x - largest);
  return largest + std::log(sum);
}

}  // namespace reel::nn::detail
