#include <reel/datasets/windows.h>

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/error.h>

namespace reel::datasets {

Windows::Windows(std::span<const std::int32_t> tokens, Arg<Index> batch, Arg<Index> seq_len,
                 LastWindow last, Site site)
    : Windows(std::ssize(tokens), batch, seq_len, last, site) {
  tokens_ = tokens;
}

Windows::Windows(const TokenSource& tokens, Arg<Index> batch, Arg<Index> seq_len, LastWindow last,
                 Site site)
    : Windows(tokens.size(), batch, seq_len, last, site) {
  source_ = &tokens;
}

Windows::Windows(Index tokens, Index batch, Index seq_len, LastWindow last, Site site)
    : batch_(batch), seq_len_(seq_len) {
  const Index whole = least_tokens(batch, seq_len, site);
  const Index least = last == LastWindow::keep ? batch + 1 : whole;
  if (tokens < least)
    throw ValueError(
        fmt::format("the text is too short: {} symbols, but batch {} x seq_len {} takes "
                    "at least {}; give a longer text, a smaller batch or a smaller seq_len",
                    tokens, batch_, seq_len_, least),
        site);
  stream_length_ = (tokens - 1) / batch_;
  count_ = stream_length_ / seq_len_;
  if (last == LastWindow::keep && stream_length_ % seq_len_ > 0) ++count_;
}

Index Windows::least_tokens(Arg<Index> batch, Arg<Index> seq_len, Site site) {
  if (batch < 1 || seq_len < 1)
    throw ValueError(fmt::format("Windows: batch is {} and seq_len is {}; both must be positive",
                                 Index(batch), Index(seq_len)),
                     site);
  Index product = 0;
  if (__builtin_mul_overflow(Index(batch), Index(seq_len), &product) || product == INT64_MAX)
    throw ValueError(
        fmt::format("Windows: batch {} x seq_len {} is too large", Index(batch), Index(seq_len)),
        site);
  return product + 1;
}

Window Windows::operator[](const Tensor::Place& i) const {
  if (i.index < 0 || i.index >= count_)
    throw ValueError(fmt::format("there is no window {}; there are {}", i.index, count_), i.site);
  const Index begin = i.index * seq_len_, steps = std::min(seq_len_, stream_length_ - begin);
  Window window{Tensor({steps, batch_}, i32), Tensor({steps, batch_}, i32)};
  std::int32_t* inputs = window.inputs.begin_update<std::int32_t>().data();
  std::int32_t* targets = window.targets.begin_update<std::int32_t>().data();
  std::vector<std::int32_t> read;
  for (Index b = 0; b < batch_; ++b) {
    const auto tokens = tokens_from(b * stream_length_ + begin, steps, read);
    for (Index t = 0; t < steps; ++t) {
      inputs[t * batch_ + b] = tokens[t];
      targets[t * batch_ + b] = tokens[t + 1];
    }
  }
  return window;
}

// The tokens of one stream in a window, and the one after them; `read` holds those of a source.
std::span<const std::int32_t> Windows::tokens_from(Index begin, Index steps,
                                                   std::vector<std::int32_t>& read) const {
  const auto count = static_cast<std::size_t>(steps) + 1;
  if (!source_) return tokens_.subspan(static_cast<std::size_t>(begin), count);
  read.resize(count);
  source_->read(begin, read);
  return read;
}

}  // namespace reel::datasets
