#include <reel/autograd/error.h>

#include <fmt/format.h>

namespace reel {
namespace {
thread_local const Site* scope_site = nullptr;
thread_local Site outermost_site{nullptr, 0};
}  // namespace

std::string Site::str() const { return file ? fmt::format("{}:{}", file, line) : "unknown place"; }

SiteScope::SiteScope(Site site) : outermost_(scope_site == nullptr) {
  if (!outermost_) return;
  outermost_site = site;
  scope_site = &outermost_site;
}

SiteScope::~SiteScope() {
  if (outermost_) scope_site = nullptr;
}

Site SiteScope::resolve(Site site) { return scope_site ? *scope_site : site; }

}  // namespace reel
