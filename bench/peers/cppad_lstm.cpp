// The gradient of an LSTM in scalars by CppAD, recorded anew each time.
#include <cppad/cppad.hpp>

#include "scalar_lstm.h"

int main() {
  using Active = CppAD::AD<double>;
  return scalar_lstm::measure([](const scalar_lstm::Sizes& size, const std::vector<double>& values,
                                 const std::vector<double>& x) {
    std::vector<Active> parameters(values.begin(), values.end());
    CppAD::Independent(parameters);
    const std::vector<Active> total = {scalar_lstm::loss(size, parameters, x)};
    CppAD::ADFun<double> function(parameters, total);  // with the values of order 0
    return function.Reverse(1, std::vector<double>{1.0});
  });
}
