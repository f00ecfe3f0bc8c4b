#pragma once

#include <functional>
#include <string>
#include <vector>

#include <reel/autograd/rng.h>

namespace reel::examples {

/// Sequences, and after each step the class of what has been read.
struct Labelled {
  Tensor x;        ///< [T, B, D]
  Tensor classes;  ///< i32 [T, B]
};

/// What a classifier is trained on and tested with.
struct LabelledData {
  Index classes;
  std::function<Labelled(Rng&)> draw;  ///< a batch for training
  Labelled valid;
  std::vector<Labelled> tests;
};

/// The tasks about random strings, which need a state that is tracked without an error: "parity"
/// and "majority" of bits, and "permutations", the product of permutations of three things.
inline const std::vector<std::string> string_tasks{"parity", "majority", "permutations"};

/// Strings of one of these tasks; the tests are of the same length, 4 times and 16 times as long.
LabelledData strings(const std::string& name, Index length, Index batch);

/// The paths of images and labels in the format of MNIST.
struct DigitFiles {
  std::string images, labels, test_images, test_labels;
};

/// Images of ten classes, row by row. The last sixth of the training images, 10,000 of MNIST,
/// validates. Throws FileError for a file that cannot be read, and ValueError for images and labels
/// of different numbers.
LabelledData digits(const DigitFiles& files, Index batch);

}  // namespace reel::examples
