#pragma once

#include <atomic>
#include <functional>

namespace reel {

class Tape;

namespace detail {

/// The tape that records this thread's ops, or null: that on top of the thread's stack. Atomic
/// because a tape may end, or be resumed elsewhere, on another thread.
inline constinit thread_local std::atomic<Tape*> current_tape{nullptr};

struct TapeStack;

/// A place in a thread's stack of tapes, for a tape or, with null, for none. Stacks are linked both
/// ways, so that places are given up in any order and from any thread. One lock guards all of them;
/// recording does not take it, only what changes a stack does.
class TapeLink {
 public:
  explicit TapeLink(Tape* tape) : tape_(tape) {}
  ~TapeLink() { leave(); }
  TapeLink(const TapeLink&) = delete;
  TapeLink& operator=(const TapeLink&) = delete;

  /// Goes to the top of the calling thread's stack, from wherever it was.
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

/// What a tape is to all stacks: its own place in one of them, and an entry in the list of all
/// tapes that are alive, by which errors say what became of the tape of a tensor.
class TapeMember {
 public:
  explicit TapeMember(Tape* tape);
  /// Takes the tape out of its stack, and out of the calling thread's wherever a scope put it.
  ~TapeMember();

  void enter() { own_.enter(); }
  void leave() { own_.leave(); }

  /// Calls f for every tape that is alive; none ends meanwhile.
  static void each_alive(const std::function<void(const Tape&)>& f);
  enum class Where { this_thread, other_thread, paused };
  /// In whose stack it is. To be called by what `each_alive` calls.
  Where where() const;

 private:
  TapeLink own_, alive_;
};

}  // namespace detail
}  // namespace reel
