#include <algorithm>
#include <iterator>
#include <stdexcept>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

#include "target.h"

namespace reel::fuzz {

std::span<const Target* const> targets() {
  static constexpr const Target* all[] = {
      &safetensors, &run_state, &config,      &metrics, &text,       &vocabulary, &conllu,
      &series,      &idx,       &piano_rolls, &words,   &byte_pairs, &onnx,       &npy};
  return all;
}

bool accepts(const Target& target, std::string_view input) try {
  target.read(input);
  return true;
} catch (const Error& error) {
  const std::string_view message = error.what();
  if (message.size() > 1000 || message != printable(message))
    throw std::logic_error("a message is too long or not printable");
  return false;
}

}  // namespace reel::fuzz
