#include "interrupt.h"

namespace reel::char_lm {
namespace {

volatile std::sig_atomic_t received = 0;

// A second Ctrl-C or SIGTERM ends the program at once. A closing terminal may send several SIGHUP,
// and the kernel one SIGXCPU each second: these do not mean impatience.
int flags_for(int signal) {
  return signal == SIGINT || signal == SIGTERM ? SA_RESTART | SA_RESETHAND : SA_RESTART;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  for (std::size_t i = 0; i < std::size(signals); ++i) {
    sigaction(signals[i], nullptr, &before_[i]);
    if (before_[i].sa_handler == SIG_IGN) continue;  // nohup, or a background job of a script
    struct sigaction action {};
    action.sa_handler = [](int which) { received = which; };
    action.sa_flags = flags_for(signals[i]);
    sigaction(signals[i], &action, nullptr);
  }
}

InterruptGuard::~InterruptGuard() {
  for (std::size_t i = 0; i < std::size(signals); ++i) sigaction(signals[i], &before_[i], nullptr);
}

int InterruptGuard::signal() { return received; }

}  // namespace reel::char_lm
