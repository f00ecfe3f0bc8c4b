#include "compositions.h"

#include <reel/autograd/tape.h>

namespace reel::testing {

std::string ops_of(const Composition& composition) {
  Tape tape({.profile = true});
  const Tensor x[] = {tape.watch(Rng(1).normal({4, 6}))};
  composition.call(x);
  std::string names;
  for (const Profile::Event& event : tape.profile().events())
    names += (names.empty() ? "" : " ") + std::string(event.op);
  return names;
}

}  // namespace reel::testing
