// What nearly every file of tests includes, precompiled: that halves the time of compiling them.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <thread>

#include <reel/reel.h>
