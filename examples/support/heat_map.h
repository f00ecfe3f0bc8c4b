#pragma once

#include <string>
#include <vector>

#include <reel/autograd/tensor.h>

namespace reel::html {

/// Numbers from 0 to 1 as squares from white to dark.
struct HeatMap {
  std::string title;                                 ///< "Attention"
  Tensor values;                                     ///< [rows, columns]
  std::vector<std::string> rows = {}, columns = {};  ///< their names, as many as there are
};

/// The map as a file of SVG. Throws ShapeError or DTypeError for values of another shape or dtype.
std::string picture(const HeatMap& map);

}  // namespace reel::html
