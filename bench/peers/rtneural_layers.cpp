// RTNeural's side of the benchmark, a worker of bench/compare.py: rtneural_layers THREADS
// Its layers have their sizes as template arguments, so it does the sizes below alone.
#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <RTNeural/RTNeural.h>

#include "../protocol.h"

namespace {

using protocol::Json;
using protocol::Prepared;
using protocol::size_in;
using Matrix = std::vector<std::vector<float>>;

class Draw {
 public:
  explicit Draw(int hidden) : uniform_(-bound(hidden), bound(hidden)) {}
  std::vector<float> vector(int size) {
    std::vector<float> numbers(size);
    for (float& x : numbers) x = uniform_(random_);
    return numbers;
  }
  Matrix matrix(int rows, int cols) {
    Matrix numbers(rows);
    for (auto& row : numbers) row = vector(cols);
    return numbers;
  }

 private:
  static float bound(int hidden) { return 1 / std::sqrt(static_cast<float>(hidden)); }
  std::mt19937 random_{1};
  std::uniform_real_distribution<float> uniform_;
};

template <int hidden>
void set_bias(RTNeural::LSTMLayerT<float, 1, hidden>& layer, Draw& draw) {
  layer.setBVals(draw.vector(4 * hidden));
}
template <int hidden>
void set_bias(RTNeural::GRULayerT<float, 1, hidden>& layer, Draw& draw) {
  layer.setBVals(draw.matrix(2, 3 * hidden));
}

// A sample at a time, the state carried along.
template <class Layer, int hidden>
Prepared streaming(int gates, std::int64_t steps) {
  const auto model = std::make_shared<RTNeural::ModelT<float, 1, hidden, Layer>>();
  Draw draw(hidden);
  Layer& layer = model->template get<0>();
  layer.setWVals(draw.matrix(1, gates * hidden));
  layer.setUVals(draw.matrix(hidden, gates * hidden));
  set_bias(layer, draw);
  model->reset();
  const std::vector<float> samples = draw.vector(static_cast<int>(steps));
  return {[=] {
            for (const float sample : samples) {
              alignas(64) const float in[] = {sample};
              model->forward(in);
            }
          },
          {}};
}

template <int hidden>
Prepared of_kind(const Json& row) {
  if (row.at("kind") == "lstm")
    return streaming<RTNeural::LSTMLayerT<float, 1, hidden>, hidden>(4, size_in(row, "steps"));
  return streaming<RTNeural::GRULayerT<float, 1, hidden>, hidden>(3, size_in(row, "steps"));
}

Prepared prepare(const Json& row) {
  if (row.at("work") != "streaming") return {};
  switch (size_in(row, "hidden")) {
    case 8:
      return of_kind<8>(row);
    case 16:
      return of_kind<16>(row);
    case 32:
      return of_kind<32>(row);
    case 64:
      return of_kind<64>(row);
    case 128:
      return of_kind<128>(row);
    default:
      return {};
  }
}

}  // namespace

int main() {
  return protocol::serve({{"peer", "RTNeural"}, {"version", "with Eigen"}, {"detail", "C++"}},
                         prepare);
}
