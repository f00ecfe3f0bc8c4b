#pragma once
// Moved; this path works until version 0.3.
#include <reel/nn/cells/gru.h>
