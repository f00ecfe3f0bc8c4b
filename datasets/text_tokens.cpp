#include <reel/datasets/text_tokens.h>

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <reel/autograd/error.h>
#include <reel/autograd/utf8.h>
#include <reel/datasets/encoding.h>
#include <reel/nn/files/file.h>

namespace reel::datasets {
namespace {

constexpr Index stride = 1024;          // symbols from one known offset to the next
constexpr std::size_t block = 1 << 20;  // bytes that are read at once
constexpr std::size_t longest_symbol = 4;
constexpr std::string_view as_bytes = "read it as bytes (--bytes on the command line)";
constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

[[noreturn]] void fail(const nn::Location& where, std::string_view what) {
  throw FileError(fmt::format("{}: {}", where.str(), what));
}

// Calls f(symbol, offset) for every symbol of a text file, block by block.
template <class F>
void each_symbol(nn::File& file, const nn::Location& where, TextMode mode, F f) {
  std::string text;
  std::uint64_t offset = 0;  // of the text in the file
  bool is_first = true, is_last = false;
  while (!is_last) {
    const std::size_t kept = text.size();
    text.resize(kept + block);
    const std::size_t count = file.read(std::as_writable_bytes(std::span(text).subspan(kept)));
    text.resize(kept + count);
    is_last = count < block;
    std::size_t at = 0;
    if (std::exchange(is_first, false) && mode == TextMode::utf8) {
      if (const char* encoding = encoding_of_units(text))
        fail(where,
             fmt::format("{0} text, not UTF-8; convert it with iconv -f {0} -t UTF-8", encoding));
      if (text.starts_with(byte_order_mark)) at = byte_order_mark.size();
    }
    while (at < text.size() && (is_last || at + longest_symbol <= text.size())) {
      const utf8::Symbol symbol = mode == TextMode::bytes
                                      ? utf8::Symbol{static_cast<unsigned char>(text[at]), 1}
                                      : utf8::symbol_at(text, at);
      if (symbol.length == 0)
        fail(where, fmt::format("not valid UTF-8 at byte {}; {}", offset + at, as_bytes));
      if (symbol.value == 0 && mode == TextMode::utf8)
        fail(where,
             fmt::format("a binary file, not text (a NUL at byte {}); {}", offset + at, as_bytes));
      f(symbol.value, offset + at);
      at += symbol.length;
    }
    text.erase(0, at);
    offset += at;
  }
}

std::vector<std::int32_t> ranks_of(const Vocabulary& vocabulary) {
  const std::vector<char32_t>& symbols = vocabulary.symbols();
  std::vector<std::int32_t> ranks(symbols.back() + 1, -1);
  for (std::size_t i = 0; i < symbols.size(); ++i) ranks[symbols[i]] = static_cast<std::int32_t>(i);
  return ranks;
}

}  // namespace

struct TextTokens::Source {
  explicit Source(const std::filesystem::path& path)
      : where(path), file(nn::File::regular(where, O_RDONLY)) {}

  // The bytes of the file in a range that it had.
  std::string bytes(std::uint64_t begin, std::size_t count) {
    std::string result(count, '\0');
    const std::lock_guard lock(mutex);
    file.seek(begin);
    if (file.read(std::as_writable_bytes(std::span(result))) < count) fail_changed();
    return result;
  }
  [[noreturn]] void fail_changed() const { fail(where, "the text changed while it was in use"); }

  nn::Location where;
  nn::File file;
  std::mutex mutex;
};

Vocabulary vocabulary_of(const std::filesystem::path& path, TextMode mode) {
  const nn::Location where = path;
  nn::File file = nn::File::regular(where, O_RDONLY);
  std::vector<bool> occurs(mode == TextMode::bytes ? 256 : utf8::last_code_point + 1);
  each_symbol(file, where, mode, [&](char32_t c, std::uint64_t) { occurs[c] = true; });
  std::vector<char32_t> symbols;
  for (std::size_t c = 0; c < occurs.size(); ++c)
    if (occurs[c]) symbols.push_back(static_cast<char32_t>(c));
  if (symbols.empty()) fail(where, "the file is empty; there is no text in it");
  return {std::move(symbols), mode};
}

TextTokens::TextTokens(const std::filesystem::path& path, const Vocabulary& vocabulary)
    : source_(std::make_unique<Source>(path)),
      mode_(vocabulary.mode()),
      ranks_(ranks_of(vocabulary)) {
  const std::uint64_t bytes = source_->file.size();
  if (mode_ == TextMode::bytes && vocabulary.size() == 256) {
    size_ = static_cast<Index>(bytes);
  } else {
    each_symbol(source_->file, source_->where, mode_, [&](char32_t c, std::uint64_t offset) {
      if (c >= ranks_.size() || ranks_[c] < 0)
        fail(source_->where,
             fmt::format("the {} {} at byte {} is not in the vocabulary of {} symbols",
                         mode_ == TextMode::bytes ? "byte" : "character", name_of(c, mode_), offset,
                         vocabulary.size()));
      if (mode_ == TextMode::utf8 && size_ % stride == 0) offsets_.push_back(offset);
      ++size_;
    });
    if (source_->file.size() != bytes) source_->fail_changed();
    offsets_.push_back(bytes);
  }
  if (size_ == 0) fail(source_->where, "the file is empty; there is no text in it");
}

TextTokens::~TextTokens() = default;
TextTokens::TextTokens(TextTokens&&) noexcept = default;

void TextTokens::read(Index begin, std::span<std::int32_t> to) const {
  const auto rank = [&](char32_t c) {
    if (c >= ranks_.size() || ranks_[c] < 0) source_->fail_changed();
    return ranks_[c];
  };
  if (mode_ == TextMode::bytes) {
    const std::string bytes = source_->bytes(static_cast<std::uint64_t>(begin), to.size());
    std::ranges::transform(bytes, to.begin(),
                           [&](char c) { return rank(static_cast<unsigned char>(c)); });
    return;
  }
  const auto first = static_cast<std::size_t>(begin / stride);
  const std::size_t last =
      std::min((static_cast<std::size_t>(begin) + to.size()) / stride + 1, offsets_.size() - 1);
  const std::string text = source_->bytes(offsets_[first], offsets_[last] - offsets_[first]);
  std::size_t at = 0;
  const auto next = [&] {
    const utf8::Symbol symbol = at < text.size() ? utf8::symbol_at(text, at) : utf8::Symbol{0, 0};
    if (symbol.length == 0) source_->fail_changed();
    at += symbol.length;
    return symbol.value;
  };
  for (Index i = 0; i < begin % stride; ++i) next();
  for (std::int32_t& token : to) token = rank(next());
}

}  // namespace reel::datasets
