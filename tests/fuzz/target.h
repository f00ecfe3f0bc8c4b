#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What reads bytes that anyone may have written, for libFuzzer (main.cpp) and for an ordinary test
/// (test_readers.cpp).
namespace reel::fuzz {

struct Target {
  std::string_view name;
  /// Valid inputs, which a fuzzer begins with. They are small, so that it tries many.
  std::vector<std::string> (*examples)();
  /// Inputs of up to a megabyte, valid or not, of the kinds that take the most time and memory.
  std::vector<std::string> (*large)();
  /// Reads an input, and throws a reel::Error if it is invalid. Anything else that it throws is a
  /// bug, and so is a std::logic_error if what was read contradicts itself.
  void (*read)(std::string_view input);
};

extern const Target safetensors, run_state, config, metrics, text, vocabulary, conllu, series, idx,
    piano_rolls, words, byte_pairs, onnx, npy;

std::span<const Target* const> targets();

/// Whether the target reads the input. Throws if the input is refused in any way but with one line
/// that is printable and not too long.
bool accepts(const Target& target, std::string_view input);

}  // namespace reel::fuzz
