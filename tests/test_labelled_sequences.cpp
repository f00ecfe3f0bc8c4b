// The strings that examples/classify.cpp classifies.
#include <functional>
#include <numeric>

#include <doctest/doctest.h>

#include <reel/reel.h>

#include "../examples/support/labelled_sequences.h"

using namespace reel;
using namespace reel::examples;

namespace {

using Symbols = std::vector<Index>;

// Checks the class after every symbol of every string.
void check_classes(const std::string& task, const std::function<Index(const Symbols&)>& class_of) {
  const LabelledData data = strings(task, 7, 50);
  Rng rng(1);
  for (const Labelled& batch : {data.draw(rng), data.valid, data.tests[1]}) {
    const Tensor symbols = argmax(batch.x);
    for (Index row = 0; row < symbols.size(1); ++row) {
      Symbols read;
      for (Index t = 0; t < symbols.size(0); ++t) {
        read.push_back(static_cast<Index>(symbols.at({t, row})));
        REQUIRE(static_cast<Index>(batch.classes.at({t, row})) == class_of(read));
      }
    }
  }
}

// Where the symmetry a + 3 b of a triangle moves a corner: a reflection if b = 1, then a turn.
Index moved(Index corner, Index symmetry) {
  return ((symmetry < 3 ? corner : 3 - corner) + symmetry % 3) % 3;
}

}  // namespace

TEST_CASE("labelled strings: parity, majority and products of permutations") {
  const auto ones = [](const Symbols& bits) {
    return std::accumulate(bits.begin(), bits.end(), Index{0});
  };
  check_classes("parity", [&](const Symbols& bits) { return ones(bits) % 2; });
  check_classes("majority", [&](const Symbols& bits) -> Index {
    return 2 * ones(bits) > static_cast<Index>(bits.size());
  });
  check_classes("permutations", [](const Symbols& factors) {
    const auto images = [](Symbols corners, const Symbols& symmetries) {
      for (Index& corner : corners)
        for (const Index symmetry : symmetries) corner = moved(corner, symmetry);
      return corners;
    };
    for (Index product = 0;; ++product)
      if (images({0, 1, 2}, {product}) == images({0, 1, 2}, factors)) return product;
  });
}

TEST_CASE("labelled strings: sizes, and that tests have strings of their own") {
  const LabelledData data = strings("parity", 5, 8);
  Rng rng(1), same(1);
  const Labelled batch = data.draw(rng);
  CHECK(batch.x.shape() == Shape{5, 8, 2});
  CHECK(batch.x.to_vector() == data.draw(same).x.to_vector());
  CHECK(batch.x.to_vector() != data.draw(rng).x.to_vector());
  CHECK(data.valid.x.size(0) == 5);
  CHECK(data.valid.x.to_vector() != data.tests[0].x.to_vector());
  REQUIRE(data.tests.size() == 3);
  CHECK(data.tests[1].x.size(0) == 20);
  CHECK(data.tests[2].x.size(0) == 80);
}
