#include <reel/datasets/windows.h>

#include <fmt/format.h>

#include <reel/autograd/error.h>

namespace reel::datasets {

Windows::Windows(std::span<const std::int32_t> tokens, Arg<Index> batch, Arg<Index> seq_len,
                 Site site)
    : tokens_(tokens), batch_(batch), seq_len_(seq_len) {
  const Index least = least_tokens(batch, seq_len, site);
  const auto n = static_cast<Index>(tokens.size());
  if (n < least)
    throw ValueError(
        fmt::format("the text is too short: {} symbols, but batch {} x seq_len {} takes "
                    "at least {}; give a longer text, a smaller batch or a smaller seq_len",
                    n, batch_, seq_len_, least),
        site);
  stream_length_ = (n - 1) / batch_;
  count_ = stream_length_ / seq_len_;
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
  Window window{Tensor({seq_len_, batch_}, i32), Tensor({seq_len_, batch_}, i32)};
  std::int32_t* input = window.inputs.begin_update<std::int32_t>().data();
  std::int32_t* target = window.targets.begin_update<std::int32_t>().data();
  for (Index t = 0; t < seq_len_; ++t) {
    const std::int32_t* token = tokens_.data() + i.index * seq_len_ + t;
    for (Index b = 0; b < batch_; ++b, token += stream_length_) {
      *input++ = token[0];
      *target++ = token[1];
    }
  }
  return window;
}

}  // namespace reel::datasets
