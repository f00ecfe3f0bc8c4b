#pragma once
// Moved; this path and the old name work until version 0.3.
#include <reel/autograd/check/gradcheck.h>

namespace reel {
using NamedTensor = NamedInput;
}
