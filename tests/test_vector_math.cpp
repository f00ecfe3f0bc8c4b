// Vector functions: their accuracy, special values and equal bits in every lane.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <utility>
#include <vector>

#include <reel/autograd/kernels/vector_math.h>

#include "testing.h"

using namespace reel;
using namespace reel::kernels;
using testing::sanitized;

namespace {

// Distance from the correctly rounded value in units of its last place; infinite for a NaN, an
// infinity or a zero that should be something else.
template <class T>
double ulps(T got, long double exact_value) {
  const T wanted = static_cast<T>(exact_value);
  if (std::isnan(wanted)) return std::isnan(got) ? 0 : HUGE_VAL;
  if (std::isinf(wanted) || std::isinf(got) || std::isnan(got)) return got == wanted ? 0 : HUGE_VAL;
  const T magnitude = std::fabs(wanted);
  const T unit = std::nextafter(magnitude, std::numeric_limits<T>::infinity()) - magnitude;
  return static_cast<double>(
      std::fabs((static_cast<long double>(got) - static_cast<long double>(wanted)) / unit));
}

template <class T, class F>
[[gnu::noinline]] void apply(const T* x, T* y, Index n, F f) {
  for (Index i = 0; i < n; ++i) y[i] = f(x[i]);
}

// `f` as a vector loop against `oracle` on a dense sweep of [low, high], and vector lanes against
// each other.
template <class T, class F, class Oracle>
void sweep(const char* name, F f, Oracle oracle, double low, double high, double bound = 2) {
  const Index n = sanitized ? 2003 : 60013;
  std::vector<T> x(static_cast<std::size_t>(n)), y(x.size()), shifted(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<T>(low + (high - low) * static_cast<double>(i) / static_cast<double>(n - 1));
  apply(x.data(), y.data(), n, f);
  for (Index begin = 0; begin < n; begin += 13)  // short loops: other lanes, and tails
    apply(x.data() + begin, shifted.data() + begin, std::min<Index>(13, n - begin), f);
  double worst = 0;
  bool alone_the_same = true;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst = std::max(worst, ulps(y[i], oracle(static_cast<long double>(x[i]))));
    const T alone = f(x[i]);
    alone_the_same &= std::memcmp(&alone, &y[i], sizeof(T)) == 0;
  }
  INFO(name, " from ", low, " to ", high);
  CHECK(worst <= bound);
  CHECK(std::memcmp(y.data(), shifted.data(), y.size() * sizeof(T)) == 0);
  CHECK(alone_the_same);
}

long double sigmoid_oracle(long double x) {
  return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}

long double sech_square_oracle(long double x) {
  const long double e = std::exp(-2 * std::fabs(x));
  return 4 * e / ((1 + e) * (1 + e));
}

// cos(2 pi x), from a quarter of a turn, of which nothing is rounded.
long double cos_turns_oracle(long double x) {
  const long double quarter = std::round(4 * x);
  const long double angle = 2 * std::numbers::pi_v<long double> * (x - quarter / 4);
  const auto which = static_cast<Index>(quarter) & 3;
  const long double value = which % 2 == 0 ? std::cos(angle) : std::sin(angle);
  return which == 1 || which == 2 ? -value : value;
}

}  // namespace

TEST_CASE_TEMPLATE("vector math is within 2 ulp, with the same bits in every lane", T, float,
                   double) {
  const auto exp = [](T x) { return vexp(x); };
  const auto expm1 = [](T x) { return vexpm1(x); };
  const auto log = [](T x) { return vlog(x); };
  const auto tanh = [](T x) { return vtanh(x); };
  const auto sigmoid = [](T x) { return vsigmoid(x); };
  const auto exact_exp = [](long double x) { return std::exp(x); };
  const auto exact_expm1 = [](long double x) { return std::expm1(x); };
  const auto exact_log = [](long double x) { return std::log(x); };
  const auto exact_tanh = [](long double x) { return std::tanh(x); };
  const bool single = std::is_same_v<T, float>;
  const double limit = single ? 106 : 750, tiny = single ? 1e-38 : 2e-308;
  for (double range : {limit, 30.0, 2.0, 0.6, 1e-3, 1e-12, tiny}) {
    sweep<T>("exp", exp, exact_exp, -range, range);
    sweep<T>("expm1", expm1, exact_expm1, -range, range);
    sweep<T>("tanh", tanh, exact_tanh, -range, range);
    sweep<T>("sigmoid", sigmoid, sigmoid_oracle, -range, range);
    sweep<T>("log", log, exact_log, 0, range);
  }
  sweep<T>("exp", exp, exact_exp, single ? -104 : -746, single ? -87 : -708);  // subnormal results
  sweep<T>("sigmoid", sigmoid, sigmoid_oracle, single ? -104 : -746, single ? -87 : -708);
  sweep<T>("exp", exp, exact_exp, single ? 88.5 : 709.5, single ? 89 : 710);
  sweep<T>("log", log, exact_log, 0.99, 1.01);
  sweep<T>("log", log, exact_log, 1, static_cast<double>(std::numeric_limits<T>::max()));
}

TEST_CASE_TEMPLATE("logarithms of 1 + x, powers and slopes are exact to the last places", T, float,
                   double) {
  const auto log1p = [](T x) { return vlog1p(x); };
  const auto exact_log1p = [](long double x) { return std::log1p(x); };
  for (double range : {1e30, 100.0, 2.0, 0.5, 1e-3, 1e-12})
    sweep<T>("log1p", log1p, exact_log1p, 0, range);
  for (double range : {0.999999, 0.5, 1e-3, 1e-12})
    sweep<T>("log1p", log1p, exact_log1p, -range, 0);
  const auto cos_turns = [](T x) { return vcos_turns(x); };
  for (double range : {1000.0, 1.0, 0.01})
    sweep<T>("cos_turns", cos_turns, cos_turns_oracle, -range, range);
  const auto sech_square = [](T x) { return vsech_square(x); };
  for (double range : {std::is_same_v<T, float> ? 40.0 : 350.0, 10.0, 1.0, 1e-3})
    sweep<T>("sech_square", sech_square, sech_square_oracle, -range, range, 4);
  for (const T e : {T(0.5), T(2.5), T(-1.5), T(3), T(7.25)}) {
    const auto pow = [e](T x) { return vpow(x, e); };
    const auto exact_pow = [e](long double x) { return std::pow(x, static_cast<long double>(e)); };
    sweep<T>("pow", pow, exact_pow, 1e-4, 20, 1);
  }
}

TEST_CASE_TEMPLATE("softplus is within 2 ulp", T, float, double) {
  const auto softplus = [](T x) { return vsoftplus(x); };
  const auto exact = [](long double x) {
    return std::max(x, 0.0L) + std::log1p(std::exp(-std::fabs(x)));
  };
  for (double range : {std::is_same_v<T, float> ? 87.0 : 700.0, 20.0, 2.0, 1e-3})
    sweep<T>("softplus", softplus, exact, -range, range);
}

// Where the power is near the largest or least number, an error of the logarithm counts 256 times.
TEST_CASE("powers of floats are within 2 ulp up to the ends of the range") {
  const auto check = [](float e, double low, double high) {
    const auto pow = [e](float x) { return vpow(x, e); };
    const auto exact = [e](long double x) { return std::pow(x, static_cast<long double>(e)); };
    sweep<float>("pow", pow, exact, low, high);
  };
  check(252, 0.71, 1.41);
  check(-252, 0.71, 1.41);
  check(40, 0.12, 9);
  check(-1.3F, 1e-28, 1e28);
  check(0.01F, 1e-37, 1e38);
  check(7e6F, 0.99999, 1.00001);
}

TEST_CASE("powers of floats have the special values of std::pow") {
  using Limits = std::numeric_limits<float>;
  const float infinity = Limits::infinity(), nan = Limits::quiet_NaN();
  const float numbers[] = {0,     1,        2,   0.5F,   3, 2.5F, 16777217.0F * 3, 1e10F,
                           1e30F, infinity, nan, 1e-30F, 7, -7,   Limits::max(),   Limits::min()};
  const auto agree = [](float got, float wanted) {
    if (std::isnan(wanted)) return std::isnan(got);
    if (std::fabs(wanted) < Limits::min()) wanted = std::copysign(0.0F, wanted);
    return ulps(got, wanted) <= 1 && std::signbit(got) == std::signbit(wanted);
  };
  for (const float a : numbers)
    for (const float b : numbers)
      for (const auto& pair : {std::pair{a, b}, {-a, b}, {a, -b}, {-a, -b}}) {
        const float x = pair.first, e = pair.second;
        CAPTURE(x);
        CAPTURE(e);
        CHECK(agree(vpow(x, e), std::pow(x, e)));
        if (e != 0 && !std::isnan(e)) CHECK(agree(vpow(x, prepared(e)), std::pow(x, e)));
      }
}

TEST_CASE_TEMPLATE("vector math at zeros, infinities, NaN and the ends of the range", T, float,
                   double) {
  using Limits = std::numeric_limits<T>;
  const T infinity = Limits::infinity(), nan = Limits::quiet_NaN(), least = Limits::denorm_min();
  const T most = Limits::max();
  auto is = [](T got, T wanted) {
    return got == wanted && std::signbit(got) == std::signbit(wanted);
  };

  CHECK(is(vexp(T(0)), 1));
  CHECK(is(vexp(T(-0.0)), 1));
  CHECK(is(vexp(infinity), infinity));
  CHECK(is(vexp(most), infinity));
  CHECK(is(vexp(-infinity), 0));
  CHECK(is(vexp(-most), 0));

  CHECK(is(vexpm1(infinity), infinity));
  CHECK(is(vexpm1(-infinity), -1));
  CHECK(is(vexpm1(-most), -1));

  CHECK(is(vlog(T(1)), 0));
  CHECK(is(vlog(infinity), infinity));
  CHECK(is(vlog(T(0)), -infinity));
  CHECK(is(vlog(T(-0.0)), -infinity));
  CHECK(std::isnan(vlog(T(-1))));
  CHECK(std::isnan(vlog(-least)));
  CHECK(std::isnan(vlog(-infinity)));
  CHECK(ulps(vlog(least), std::log(static_cast<long double>(least))) <= 2);

  CHECK(is(vtanh(infinity), 1));
  CHECK(is(vtanh(-infinity), -1));
  CHECK(is(vtanh(most), 1));

  CHECK(is(vsigmoid(T(0)), T(0.5)));
  CHECK(is(vsigmoid(infinity), 1));
  CHECK(is(vsigmoid(-infinity), 0));
  CHECK(is(vsigmoid(-most), 0));

  for (T x : {T(0), T(-0.0), least, -least, Limits::min(), -Limits::min()}) {
    CHECK(is(vexpm1(x), x));
    CHECK(is(vtanh(x), x));
  }
  CHECK(std::isnan(vexp(nan)));
  CHECK(std::isnan(vexpm1(nan)));
  CHECK(std::isnan(vlog(nan)));
  CHECK(std::isnan(vtanh(nan)));
  CHECK(std::isnan(vsigmoid(nan)));
}
