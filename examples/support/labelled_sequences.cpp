#include "labelled_sequences.h"

#include <fmt/format.h>

#include <reel/autograd/error.h>
#include <reel/autograd/ops.h>
#include <reel/datasets/idx.h>

namespace reel::examples {
namespace {

// What the next symbol makes of a state, which is 0 at first.
struct Task {
  Index symbols, classes;
  Index (*next)(Index state, Index symbol);
  Index (*class_of)(Index state);
};

Index itself(Index state) { return state; }

// The product of permutations of three things, or symmetries of a triangle: a + 3 b is a turn by a
// thirds, after a reflection if b = 1, and a turn before a reflection is its opposite after it.
Index product(Index first, Index then) {
  const Index turn = then < 3 ? first % 3 : 3 - first % 3;
  return (then + turn) % 3 + 3 * ((first / 3 + then / 3) % 2);
}

Task task_of(const std::string& name) {
  if (name == "majority")
    return {2, 2, [](Index excess, Index bit) { return excess + 2 * bit - 1; },
            [](Index excess) -> Index { return excess > 0; }};
  if (name == "permutations") return {6, 6, product, itself};
  return {2, 2, [](Index parity, Index bit) { return (parity + bit) % 2; }, itself};
}

Labelled draw(const Task& task, Index length, Index batch, Rng& rng) {
  Tensor symbols({length, batch}, i32), classes({length, batch}, i32);
  std::vector<Index> states(static_cast<std::size_t>(batch));
  const std::span written = symbols.edit<std::int32_t>(), after = classes.edit<std::int32_t>();
  for (std::size_t i = 0; i < written.size(); ++i) {
    Index& state = states[i % states.size()];
    const Index symbol = rng.integer(task.symbols);
    state = task.next(state, symbol);
    written[i] = static_cast<std::int32_t>(symbol);
    after[i] = static_cast<std::int32_t>(task.class_of(state));
  }
  return {one_hot(symbols, task.symbols), classes};
}

// Those images with these numbers; the rows of an image are the steps of a sequence.
Labelled pick(const Tensor& images, const Tensor& labels, const Tensor& numbers) {
  const Index rows = images.size(1), columns = images.size(2), count = numbers.size();
  const Tensor picked = gather_rows(reshape(images, {-1, rows * columns}), numbers);
  return {transpose(reshape(picked, {count, rows, columns}), 0, 1),
          broadcast_to(take_along(labels, numbers, 0), {rows, count})};
}

std::pair<Tensor, Tensor> read(const std::string& images_file, const std::string& labels_file) {
  const Tensor images = datasets::read_idx_images(images_file);
  const Tensor labels = datasets::read_idx_labels(labels_file);
  if (images.size(0) != labels.size())
    throw ValueError(fmt::format("{} has {} images, but {} has {} labels", images_file,
                                 images.size(0), labels_file, labels.size()));
  return {images, labels};
}

}  // namespace

LabelledData strings(const std::string& name, Index length, Index batch) {
  const Task task = task_of(name);
  Rng rng(12345);
  const auto held_out = [&](Index steps) { return draw(task, steps, 500, rng); };
  return {task.classes,
          [=](Rng& training) { return draw(task, length, batch, training); },
          held_out(length),
          {held_out(length), held_out(4 * length), held_out(16 * length)}};
}

LabelledData digits(const DigitFiles& files, Index batch) {
  const auto [images, labels] = read(files.images, files.labels);
  const auto [test_images, test_labels] = read(files.test_images, files.test_labels);
  const Index count = labels.size(), train = count - count / 6;
  const auto draw = [=, images = images, labels = labels](Rng& rng) {
    Tensor numbers({batch}, i32);
    for (std::int32_t& i : numbers.edit<std::int32_t>())
      i = static_cast<std::int32_t>(rng.integer(train));
    return pick(images, labels, numbers);
  };
  return {10,
          draw,
          pick(images, labels, arange(train, count)),
          {pick(test_images, test_labels, arange(test_labels.size()))}};
}

}  // namespace reel::examples
