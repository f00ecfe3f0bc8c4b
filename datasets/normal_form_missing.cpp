// In place of normal_form.cpp where utf8proc was not found.
#include <reel/datasets/normal_form.h>

namespace reel::datasets {

std::string normalized(std::string_view, NormalForm, Site site) {
  throw Error(
      "normalized: Reel was built without utf8proc; install it (libutf8proc-dev on Debian) and "
      "build Reel again",
      site);
}

}  // namespace reel::datasets
