#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <reel/autograd/shape.h>

namespace reel::datasets {

/// A word of a treebank with its ten columns but ID, which is its place; "_" stands for nothing.
struct ConlluWord {
  std::string form, lemma;
  std::string upos;  ///< the universal part of speech: NOUN, VERB ...
  std::string xpos, feats;
  Index head = 0;  ///< the ID of the word it depends on, counted from 1; 0 for the root, -1 for "_"
  std::string deprel, deps, misc;
};

/// A sentence; comments without their '#' and the spaces after it: "sent_id = dev-1".
struct ConlluSentence {
  std::vector<std::string> comments = {};
  std::vector<ConlluWord> words = {};

  /// The words as they are written.
  std::vector<std::string> forms() const;
  /// Their universal parts of speech.
  std::vector<std::string> upos() const;
};

/// Reads a treebank in CoNLL-U (universaldependencies.org/format.html): lines of ten columns
/// between tabs, a blank line after each sentence (which the last may lack), LF or CRLF. Lines of
/// multiword tokens (ID 1-2) and empty nodes (ID 8.1) are checked and skipped. Throws FileError
/// naming line and column for anything else, and if there are no sentences.
std::vector<ConlluSentence> read_conllu(const std::filesystem::path& path);

}  // namespace reel::datasets
