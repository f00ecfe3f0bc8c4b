#include <csignal>
#include <cstdio>
#include <new>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

#include "command_line.h"
#include "output.h"

using namespace reel;
using namespace reel::char_lm;

namespace {

struct Run {
  int operator()(const std::string& help) const {
    print(help);
    return 0;
  }
  int operator()(const TrainOptions& options) const {
    std::signal(SIGPIPE, SIG_IGN);  // a closed pipe must not stop the training
    return train(options);
  }
  int operator()(const SampleOptions& options) const { return sample(options); }
  int operator()(const EvalOptions& options) const { return eval(options); }
  int operator()(const InfoOptions& options) const { return info(options); }
  int operator()(const GradcheckCommand& options) const { return gradcheck(options); }
};

int fail(int code, const std::string& message) {
  std::fprintf(stderr, "char_lm: %s\n", printable(message).c_str());
  return code;
}

constexpr const char* not_enough_memory =
    "there is not enough memory; try a smaller --hidden, --batch or --seq-len";

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ,
              SIG_IGN);  // an exceeded file size limit is then an ordinary error with a message
  try {
    return std::visit(Run(), parse_command_line(argc, argv));
  } catch (const UsageError& error) {
    return fail(2, error.what());
  } catch (const reel::MemoryError&) {
    return fail(1, not_enough_memory);
  } catch (const std::bad_alloc&) {
    return fail(1, not_enough_memory);
  } catch (const std::exception& error) {
    return fail(1, error.what());
  }
}
