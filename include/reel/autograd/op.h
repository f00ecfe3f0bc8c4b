#pragma once
// Moved, and its names to a namespace of their own; this works until version 0.3.
#include <reel/autograd/engine/op.h>

namespace reel {
using namespace op;
}
