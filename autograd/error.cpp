#include <reel/autograd/error.h>

#include <fmt/format.h>

#include <reel/autograd/engine/scope.h>

namespace reel {

std::string Site::place() const {
  return file ? fmt::format("{}:{}", file, line) : "unknown place";
}

std::string Site::str() const {
  const std::string own = place();
  std::string text = own;
  if (!current_place.module.empty()) text += fmt::format(", in module {}", current_place.module);
  if (current_place.step >= 0) text += fmt::format(", time step {}", current_place.step);
  if (SiteScope::caller_.file && SiteScope::caller_.place() != own)
    text += ", called at " + SiteScope::caller_.place();
  return text;
}

namespace {
std::string with_place(const std::string& message, Site site) {
  return site.file ? fmt::format("{} ({})", message, site.str()) : message;
}
}  // namespace

Error::Error(const std::string& message, Site site)
    : std::runtime_error(with_place(message, SiteScope::resolve(site))), length_(message.size()) {}

}  // namespace reel
