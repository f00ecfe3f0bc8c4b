#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <reel/nn/files/location.h>

#include "metrics.h"
#include "run_config.h"
#include "run_directory.h"
#include "search_space.h"

namespace reel::char_lm {

/// A search: all that cannot be found in the directories of its trials. It is the content of
/// tune.json.
struct Search {
  int trials = 0;
  SearchSpace space;
  TextId text;
  VocabularyPtr vocabulary;
  std::map<std::string, std::string> failed = {};  ///< by the name of a trial: why it failed
};

/// As many as have names of one length, and as a search at random needs.
constexpr int most_trials = 999;

/// The file tune.json in the directory of a search.
nn::Location search_file(const RunDirectory& directory);
/// Replaces it, and a vocabulary.txt that does not fit in it. Throws FileError.
void write_search(const RunDirectory& directory, const Search& search);
/// Reads it. Throws FileError if it is not such a search.
Search read_search(const RunDirectory& directory);

/// A trial, as far as the files of its run tell.
struct Trial {
  std::string name;  ///< "trial-001", that of its directory
  Drawn drawn;
  std::map<int, Metrics> epochs = {};  ///< the lines of the epochs that are trained and saved
  int reached = 0;                     ///< the epoch of the last rung at whose end it was compared
  std::string failure = {};            ///< why it is out, if it failed

  /// Validation loss after `reached`, in nats per character.
  double loss() const;
  /// Seconds that its training took up to there.
  double seconds() const;
};

/// The trials of a search, none of them read.
std::vector<Trial> trials_of(const Search& search);
/// Reads which epochs are trained and saved. Throws FileError if the run there is not of this
/// trial.
void read_epochs(const std::filesystem::path& directory, const Search& search, Trial& trial);

/// Whether `a` is better than `b`: one that failed is the worst, a later rung is better, and among
/// those of one rung a lower loss; of equal ones the first.
bool is_better(const Trial& a, const Trial& b);

}  // namespace reel::char_lm
