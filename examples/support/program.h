#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/shape.h>

/// What the programs of examples/ share, so that each of them is about its task alone.
namespace reel::examples {

/// The command line of a program and how it ends. Besides the options that it adds it has --help,
/// and, if some of these have a fast value, --fast, which sets them for a try of a few seconds.
///
///     int main(int argc, char** argv) {
///       Settings s;
///       Program program("adding", "Adds the two marked numbers of a sequence.");
///       program.option("--length", s.length, "steps of a sequence").fast(50);
///       return program.run(argc, argv, [&] { train(s, program.settings()); });
///     }
class Program {
 public:
  Program(std::string name, const std::string& description);
  ~Program();

  /// An option that was added.
  template <class T>
  class Added {
   public:
    Added(Program& program, T& value) : program_(program), value_(value) {}
    /// The value that it has with --fast, unless it is given.
    const Added& fast(const T& value) const { return in("fast", value); }
    /// The value that it has in a recipe, unless it is given.
    const Added& in(const std::string& recipe, const T& value) const {
      program_.set_in(recipe, &value_, [&v = value_, value] { v = value; });
      return *this;
    }

    /// It has to be given.
    const Added& required() const {
      program_.require(&value_);
      return *this;
    }

   private:
    Program& program_;
    T& value_;
  };

  /// A whole number of at least `least`; the value that it has is the default, here and below.
  Added<Index> option(const std::string& name, Index& value, const std::string& help,
                      Index least = 1);
  /// A number from `low` to `high`.
  Added<double> option(const std::string& name, double& value, const std::string& help,
                       double low = 0, double high = 1e9);
  /// A text, which help calls `type`.
  Added<std::string> option(const std::string& name, std::string& value, const std::string& help,
                            const char* type = "FILE");
  /// One of some words.
  Added<std::string> option(const std::string& name, std::string& value, const std::string& help,
                            const std::vector<std::string>& words);
  void flag(const std::string& name, bool& value, const std::string& help);
  /// Adds --recipe, which takes one of these names of settings that belong together.
  void recipes(const std::vector<std::string>& names);

  /// All options with their values, but those in which a continued training may differ: "--cell=gru
  /// --hidden=64"; for TrainingOptions.
  std::string settings() const;

  /// Reads the command line and does the work. Returns the exit code: 2 if the command line makes
  /// no sense, 1 if the work throws, after a line on standard error.
  int run(int argc, char** argv, const std::function<void()>& work);

 private:
  struct Parser;
  void require(const void* value);
  void set_in(const std::string& recipe, const void* value, std::function<void()> set);

  std::unique_ptr<Parser> parser_;
};

/// Ends a program's output: "result: WHAT = 0.123 (BESIDE)", where the latter is the published
/// figure and its source, or what the number would be without learning.
void print_result(std::string_view what, double value, std::string_view beside);

}  // namespace reel::examples
