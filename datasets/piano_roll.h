#pragma once

#include <filesystem>
#include <vector>

#include <reel/autograd/tensor.h>

namespace reel::datasets {

/// Polyphonic music as piano rolls: sequences f32 [T, 88], 1 where a key sounds at a step. Key k is
/// MIDI note 21 + k, from the lowest A of a piano to its highest C.
struct PianoRolls {
  std::vector<Tensor> train, valid, test;
};

/// Reads music in the form of Boulanger-Lewandowski et al. (ICML 2012) in JSON:
///
///     {"train": [[[60, 64], [], [62]], ...], "valid": [...], "test": [...]}
///
/// three lists of sequences of steps of MIDI notes 21 .. 108; -1 is a voice that rests, with which
/// some files fill up their steps. Throws FileError, naming part, sequence and step (from 0), for
/// anything else, and for more than 2,000,000 steps.
PianoRolls read_piano_rolls(const std::filesystem::path& path, Site site = {});

}  // namespace reel::datasets
