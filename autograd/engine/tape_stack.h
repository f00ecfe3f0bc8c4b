#pragma once

#include <atomic>
#include <functional>

namespace reel {

class Tape;

namespace detail {

/// The tape that records this thread's ops, or null: the top of the thread's stack. Atomic because
/// another thread may destroy the tape or resume it. Visible, as other variables of a thread in
/// headers are, so that it is also one with a shared library in a program that is compiled with
/// -fvisibility=hidden.
[[gnu::visibility("default")]] inline constinit thread_local std::atomic<Tape*> current_tape{
    nullptr};

struct TapeStack;

/// A node in a thread's stack of tapes, for a tape or, with null, for none. Stacks are doubly
/// linked, so that nodes can be removed in any order and from any thread. One lock guards all
/// stacks; only changes to a stack take it, recording does not.
class TapeLink {
 public:
  explicit TapeLink(Tape* tape) : tape_(tape) {}
  ~TapeLink() { leave(); }
  TapeLink(const TapeLink&) = delete;
  TapeLink& operator=(const TapeLink&) = delete;

  /// Moves to the top of the calling thread's stack.
  void enter();
  /// Leaves its stack, if it is in one.
  void leave();

 private:
  friend struct TapeStack;
  friend class TapeMember;

  void unlink();

  Tape* tape_;
  TapeStack* stack_ = nullptr;
  TapeLink *below_ = nullptr, *above_ = nullptr;
};

/// A tape's membership: its node in one of the stacks, and its entry in the list of all live tapes,
/// which lets errors say what became of a tensor's tape.
class TapeMember {
 public:
  explicit TapeMember(Tape* tape);
  /// Removes the tape from its stack, and from the calling thread's stack wherever a scope put it.
  ~TapeMember();

  void enter() { own_.enter(); }
  void leave() { own_.leave(); }

  /// Calls f for every live tape; none is destroyed meanwhile.
  static void each_alive(const std::function<void(const Tape&)>& f);
  enum class Where { this_thread, other_thread, paused };
  /// Whose stack it is in. Call only from within `each_alive`.
  Where where() const;

 private:
  TapeLink own_, alive_;
};

}  // namespace detail
}  // namespace reel
