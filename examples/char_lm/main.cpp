#include <cstdio>
#include <new>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

#include "../support/system.h"
#include "command_line.h"
#include "output.h"
#include "words.h"

using namespace reel;
using namespace reel::char_lm;

namespace {

struct Run {
  int operator()(const std::string& help) const {
    print(help);
    return 0;
  }
  int operator()(const TrainOptions& options) const {
    examples::ignore_closed_pipes();  // which must not stop the training
    return train(options);
  }
  int operator()(const TuneOptions& options) const {
    examples::ignore_closed_pipes();
    return tune(options);
  }
  int operator()(const SampleOptions& options) const { return sample(options); }
  int operator()(const EvalOptions& options) const { return eval(options); }
  int operator()(const InfoOptions& options) const { return info(options); }
  int operator()(const ReportOptions& options) const { return report(options); }
  int operator()(const ExportOptions& options) const { return export_model(options); }
  int operator()(const ImportOptions& options) const { return import_model(options); }
  int operator()(const GradcheckCommand& options) const { return gradcheck(options); }
};

int fail(int code, std::string_view message) {
  constexpr std::size_t longest = 2000;
  std::fprintf(stderr, "char_lm: %s\n", printable(message, longest).c_str());
  return code;
}

// What to say if there is not enough memory for a command.
struct MemoryRemedy {
  std::string operator()(const std::string&) const { return "there is not enough memory"; }
  std::string operator()(const TrainOptions& options) const {
    if (options.resume) return of_run(options.run) + ", or try fewer --threads";
    return "there is not enough memory; try a smaller --hidden, --batch, --seq-len or --threads";
  }
  std::string operator()(const TuneOptions&) const {
    return "there is not enough memory for the search; free some, raise the limit (ulimit -v), or "
           "try fewer --threads";
  }
  std::string operator()(const SampleOptions& options) const { return of_run(options.run); }
  std::string operator()(const EvalOptions& options) const { return of_run(options.run); }
  std::string operator()(const InfoOptions& options) const { return of_run(options.run); }
  std::string operator()(const ReportOptions& options) const {
    return of_run(options.runs.front());
  }
  std::string operator()(const ExportOptions& options) const { return of_run(options.run); }
  std::string operator()(const ImportOptions&) const {
    return "there is not enough memory for this model; free some, or raise the limit (ulimit -v)";
  }
  std::string operator()(const GradcheckCommand& options) const {
    return options.run ? of_run(*options.run) + ", or try a smaller --batch or --seq-len"
                       : "there is not enough memory; try a smaller --hidden, --batch or --seq-len";
  }

 private:
  static std::string of_run(const std::filesystem::path& run) {
    return short_path(run / "model.safetensors") +
           ": there is not enough memory for this model; free some, raise the limit (ulimit -v)";
  }
};

}  // namespace

int main(int argc, char** argv) {
  examples::begin_program();
  Command command;
  try {
    command = parse_command_line(argc, argv);
    return std::visit(Run(), command);
  } catch (const UsageError& error) {
    return fail(2, error.what());
  } catch (const reel::MemoryError&) {
    return fail(1, std::visit(MemoryRemedy(), command));
  } catch (const std::bad_alloc&) {
    return fail(1, std::visit(MemoryRemedy(), command));
  } catch (const reel::Error& error) {  // without the line of the source
    return fail(1, error.message());
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}
