#pragma once

#include <vector>

#include <reel/autograd/cell.h>

namespace reel::op {

/// Sample calls of an op that runs a cell: with everything given, with masks drawn, with the
/// proportions of zoneout; of the first cell of an op also with the least that can be given, with a
/// batch for several threads, and without rows. `takes` lives as long as the op.
std::vector<Samples<CellCall>::Item> samples_of(const CellSpec& cell,
                                                const OptionalParameters& takes, bool first);

}  // namespace reel::op
