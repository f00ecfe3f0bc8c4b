#pragma once

#include <variant>

#include "commands.h"

namespace reel::char_lm {

/// A command and its options, or the requested help text.
using Command =
    std::variant<std::string, TrainOptions, TuneOptions, SampleOptions, EvalOptions, InfoOptions,
                 ReportOptions, ExportOptions, ImportOptions, GradcheckCommand>;

/// An invalid command line; the message says what to do about it.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws UsageError.
Command parse_command_line(int argc, char** argv);

}  // namespace reel::char_lm
