#include <reel/datasets/normal_form.h>

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include <reel/autograd/utf8.h>

namespace reel::datasets {
namespace {

// Text that is normalised at once, which takes several times its memory.
constexpr std::size_t block = 1 << 20;

utf8proc_option_t options_of(NormalForm form) {
  const bool is_composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  const bool is_compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE |
                                        (is_composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                        (is_compatible ? UTF8PROC_COMPAT : 0));
}

void require_utf8(std::string_view text, Site site) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8::symbol_at(text, i).length;
    if (length == 0)
      throw ValueError(fmt::format("normalized: the text is not valid UTF-8 at byte {}", i), site);
    i += length;
  }
}

void append_normalized(std::string& result, std::string_view text, utf8proc_option_t options,
                       Site site) {
  utf8proc_uint8_t* bytes = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &bytes, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(bytes, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  if (length < 0) throw ValueError(fmt::format("normalized: {}", utf8proc_errmsg(length)), site);
  result.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

}  // namespace

// A newline composes with nothing and is of no compatibility character, so lines are independent.
std::string normalized(std::string_view text, NormalForm form, Site site) {
  require_utf8(text, site);
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const std::size_t newline = text.find('\n', std::min(block, text.size()));
    const std::size_t length = newline == std::string_view::npos ? text.size() : newline + 1;
    append_normalized(result, text.substr(0, length), options_of(form), site);
    text.remove_prefix(length);
  }
  return result;
}

}  // namespace reel::datasets
