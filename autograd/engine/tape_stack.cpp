#include <reel/autograd/engine/tape_stack.h>

#include <mutex>

#include <reel/autograd/engine/fork.h>

namespace reel::detail {

// A stack of links, the latest on top. A thread's stack keeps the thread's current tape up to date.
struct TapeStack {
  explicit TapeStack(std::atomic<Tape*>* current) : current(current) {}
  ~TapeStack();  // a tape may outlive the thread that made it

  void push(TapeLink& link) {
    link.stack_ = this;
    link.below_ = top;
    if (top) top->above_ = &link;
    top = &link;
    refresh();
  }
  void refresh() {
    if (current) current->store(top ? top->tape_ : nullptr, std::memory_order_relaxed);
  }

  TapeLink* top = nullptr;
  std::atomic<Tape*>* current;
};

namespace {

// Never destroyed: a tape may be a global that is destroyed after everything here would be.
std::mutex& mutex() {
  static std::mutex& all = *[] {
    // A forked child finds it unlocked, whatever the parent's other threads did with their tapes.
    at_fork([] { mutex().lock(); }, [] { mutex().unlock(); }, [] { mutex().unlock(); });
    return new std::mutex;
  }();
  return all;
}

TapeStack& alive_tapes() {
  static TapeStack& alive = *new TapeStack(nullptr);
  return alive;
}

TapeStack& stack_of_this_thread() {
  thread_local TapeStack stack(&current_tape);
  return stack;
}

}  // namespace

void TapeLink::enter() {
  TapeStack& stack = stack_of_this_thread();
  const std::scoped_lock lock(mutex());
  unlink();
  stack.push(*this);
}

void TapeLink::leave() {
  const std::scoped_lock lock(mutex());
  unlink();
}

void TapeLink::unlink() {
  if (!stack_) return;
  if (above_) above_->below_ = below_;
  if (below_) below_->above_ = above_;
  if (stack_->top == this) stack_->top = below_;
  stack_->refresh();
  stack_ = nullptr;
  below_ = above_ = nullptr;
}

TapeStack::~TapeStack() {
  const std::scoped_lock lock(mutex());
  while (TapeLink* link = top) {
    link->stack_ = nullptr;
    top = link->below_;
    link->below_ = link->above_ = nullptr;
  }
  refresh();
}

TapeMember::TapeMember(Tape* tape) : own_(tape), alive_(tape) {
  const std::scoped_lock lock(mutex());
  alive_tapes().push(alive_);
}

TapeMember::~TapeMember() {
  TapeStack& stack = stack_of_this_thread();
  const std::scoped_lock lock(mutex());
  own_.unlink();
  alive_.unlink();
  for (TapeLink* link = stack.top; link;) {
    TapeLink* const below = link->below_;
    if (link->tape_ == own_.tape_) link->unlink();
    link = below;
  }
}

void TapeMember::each_alive(const std::function<void(const Tape&)>& f) {
  const std::scoped_lock lock(mutex());
  for (const TapeLink* link = alive_tapes().top; link; link = link->below_) f(*link->tape_);
}

TapeMember::Where TapeMember::where() const {
  if (!own_.stack_) return Where::paused;
  return own_.stack_ == &stack_of_this_thread() ? Where::this_thread : Where::other_thread;
}

}  // namespace reel::detail
