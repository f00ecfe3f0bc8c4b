// The gradient of an LSTM in scalars by Adept 2, which is one source with its header.
#include <adept_source.h>

#include "scalar_lstm.h"

int main() {
  adept::Stack stack;
  return scalar_lstm::measure([&](const scalar_lstm::Sizes& size, const std::vector<double>& values,
                                  const std::vector<double>& x) {
    std::vector<adept::adouble> parameters(values.begin(), values.end());
    stack.new_recording();
    adept::adouble total = scalar_lstm::loss(size, parameters, x);
    total.set_gradient(1.0);
    stack.reverse();
    std::vector<double> result(values.size());
    for (std::size_t i = 0; i < result.size(); ++i) parameters[i].get_gradient(result[i]);
    return result;
  });
}
