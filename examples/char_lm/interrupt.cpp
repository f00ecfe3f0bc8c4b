#include "interrupt.h"

namespace reel::char_lm {
namespace {

volatile std::sig_atomic_t received = 0;

// A second Ctrl-C or SIGTERM ends the program at once. A closing terminal may send several SIGHUP,
// and the kernel one SIGXCPU each second: these do not mean impatience.
void receive(int signal) {
  received = signal;
  const bool is_request = signal == SIGINT || signal == SIGTERM;
  std::signal(signal, is_request ? SIG_DFL : receive);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  for (std::size_t i = 0; i < std::size(signals); ++i) {
    before_[i] = std::signal(signals[i], receive);
    if (before_[i] == SIG_IGN) std::signal(signals[i], SIG_IGN);  // nohup, or a script's background
  }
}

InterruptGuard::~InterruptGuard() {
  for (std::size_t i = 0; i < std::size(signals); ++i) std::signal(signals[i], before_[i]);
}

int InterruptGuard::signal() { return received; }

}  // namespace reel::char_lm
