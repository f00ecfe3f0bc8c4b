#include "interrupt.h"

#include <csignal>
#include <initializer_list>

namespace reel::char_lm {
namespace {

volatile std::sig_atomic_t received = 0;

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART | SA_RESETHAND;
  sigaction(signal, &action, nullptr);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  for (int signal : {SIGINT, SIGTERM}) handle(signal, [](int which) { received = which; });
}

InterruptGuard::~InterruptGuard() {
  for (int signal : {SIGINT, SIGTERM}) handle(signal, SIG_DFL);
}

int InterruptGuard::signal() { return received; }

}  // namespace reel::char_lm
