#pragma once
// Moved; this path works until version 0.3.
#include <reel/autograd/engine/side_by_side.h>
