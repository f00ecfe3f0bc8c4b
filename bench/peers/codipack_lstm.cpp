// The gradient of an LSTM in scalars by CoDiPack.
#include <codi.hpp>

#include "scalar_lstm.h"

int main() {
  using Active = codi::RealReverse;
  return scalar_lstm::measure([](const scalar_lstm::Sizes& size, const std::vector<double>& values,
                                 const std::vector<double>& x) {
    std::vector<Active> parameters(values.begin(), values.end());
    auto& tape = Active::getTape();
    tape.reset();
    tape.setActive();
    for (Active& p : parameters) tape.registerInput(p);
    Active total = scalar_lstm::loss(size, parameters, x);
    tape.registerOutput(total);
    tape.setPassive();
    total.setGradient(1.0);
    tape.evaluate();
    std::vector<double> result;
    for (const Active& p : parameters) result.push_back(p.getGradient());
    return result;
  });
}
