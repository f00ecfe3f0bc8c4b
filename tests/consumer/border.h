#pragma once

#include <string>

#include <reel/autograd/tape.h>

/// What goes wrong between the program and the library, by its first failure; "nothing" if all is
/// well. The tape is the current one, made in another file.
std::string broken_at_the_border(const reel::Tape& tape);
