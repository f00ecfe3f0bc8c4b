#include <reel/optim/run_state.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <span>

#include <reel/autograd/message.h>
#include <reel/nn/files/safetensors.h>

namespace reel::optim {
namespace {

constexpr std::string_view reserved = "run.";
constexpr std::string_view optimizer_prefix = "run.optimizer.";
constexpr std::string_view more_prefix = "run.more.";
constexpr std::string_view carried_prefix = "run.carried.";
constexpr std::string_view earlier_prefix = "run.earlier.";
constexpr std::string_view rng_key = "run.rng";
constexpr std::string_view number_prefix = "run.number.";
constexpr std::string_view checksum_key = "run.checksum";

// Hashes 64-bit words. Each step is a bijection of the hash, so any change of a single word is
// detected.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    add_word(bytes.size());
    const std::byte *at = bytes.data(), *end = at + bytes.size();
    for (; end - at >= 8; at += 8) add_word(word_of(at, 8));
    if (at != end) add_word(word_of(at, static_cast<std::size_t>(end - at)));
  }
  void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
  std::string str() const { return fmt::format("{:016x}", hash_); }

 private:
  static std::uint64_t word_of(const std::byte* bytes, std::size_t count) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes, count);
    return word;
  }
  void add_word(std::uint64_t word) {
    hash_ = (hash_ ^ word) * 0x9E3779B97F4A7C15;
    hash_ ^= hash_ >> 32;  // otherwise the highest bits of a word would not affect the others
  }

  std::uint64_t hash_ = 0;
};

// The version of the checksum. The first one did not cover dtypes and shapes; files with such a
// checksum are still accepted.
enum class Version { first, second };
constexpr std::string_view second_mark = "2 ";

std::string checksum_of(const nn::NamedTensors& content, Version version) {
  Checksum checksum;
  for (const auto& [name, value] : content.tensors) {
    checksum.add(name);
    if (version == Version::second) {
      checksum.add(name_of(value.dtype()));
      checksum.add(value.shape().str());
    }
    dispatch(value.dtype(),
             [&, &value = value]<class T>() { checksum.add(std::as_bytes(value.values<T>())); });
  }
  for (const auto& [name, text] : content.metadata)
    if (name != checksum_key) {
      checksum.add(name);
      checksum.add(text);
    }
  return fmt::format("{}{}", version == Version::second ? second_mark : "", checksum.str());
}

// Reads numbers separated by single spaces, as fmt writes them.
template <class T>
std::optional<std::vector<T>> parsed(std::string_view text) {
  std::vector<T> numbers;
  const char *at = text.data(), *end = at + text.size();
  while (true) {
    T number;
    const auto [next, error] = std::from_chars(at, end, number);
    if (error != std::errc()) return std::nullopt;
    numbers.push_back(number);
    if (next == end) return numbers;
    if (*next != ' ') return std::nullopt;
    at = next + 1;
  }
}

void require_own_name(std::string_view what, std::string_view name) {
  if (name.starts_with(reserved))
    throw ValueError(fmt::format("save_run_state: the {} {} needs a name that does not begin "
                                 "with \"{}\", which a checkpoint keeps for itself",
                                 what, in_quotes(name), reserved),
                     SiteScope::current());
}

nn::NamedTensors content_of(const RunState& checkpoint) {
  nn::NamedTensors content;
  for (const auto& [name, value] : checkpoint.params.tensors) require_own_name("parameter", name);
  for (const auto& [name, text] : checkpoint.texts) require_own_name("text", name);
  for (const Tensor& x : checkpoint.carried)
    if (!x.defined())
      throw ValueError(
          "save_run_state: the carried state has an undefined tensor; leave `carried` "
          "empty at the beginning of a sequence",
          SiteScope::current());
  content.insert("", checkpoint.params);
  content.insert(optimizer_prefix, checkpoint.optimizer);
  content.insert(more_prefix, checkpoint.more);
  for (std::size_t i = 0; i < checkpoint.carried.size(); ++i)
    content.tensors[fmt::format("{}{}", carried_prefix, i)] = checkpoint.carried[i];
  for (std::size_t i = 0; i < checkpoint.earlier.size(); ++i)
    content.insert(fmt::format("{}{}.", earlier_prefix, i), checkpoint.earlier[i]);
  content.metadata = checkpoint.texts;
  const auto& [seed, stream, position] = checkpoint.rng;
  content.metadata.emplace(rng_key, fmt::format("{} {} {}", seed, stream, position));
  for (const auto& [name, number] : checkpoint.numbers)
    content.metadata[fmt::format("{}{}", number_prefix, name)] = fmt::format("{}", number);
  content.metadata.emplace(checksum_key, checksum_of(content, Version::second));
  return content;
}

// A file without a checksum, such as one modified by another program, is accepted as it is.
void check_sum(const nn::NamedTensors& content) {
  const auto found = content.metadata.find(checksum_key);
  if (found == content.metadata.end()) return;
  const auto version = found->second.starts_with(second_mark) ? Version::second : Version::first;
  if (found->second != checksum_of(content, version))
    throw ValueError("it is damaged: its content does not have its checksum");
}

Rng::State rng_of(const nn::NamedTensors& content) {
  const auto found = content.metadata.find(rng_key);
  if (found == content.metadata.end())
    throw ValueError("it is not a checkpoint: it holds tensors, but not the state of a run");
  const auto state = parsed<std::uint64_t>(found->second);
  if (!state || state->size() != 3)
    throw ValueError(fmt::format("its {} is not three whole numbers", rng_key));
  return {.seed = (*state)[0], .stream = (*state)[1], .position = (*state)[2]};
}

double number_of(const std::string& name, const std::string& text) {
  const auto number = parsed<double>(text);
  if (!number || number->size() != 1)
    throw ValueError(fmt::format("its {} is not a number", printable(name, 80)));
  return number->front();
}

ValueError unknown(std::string_view what, std::string_view name) {
  return ValueError(fmt::format("its {} {} is unknown", what, in_quotes(name)));
}

bool is_known_tensor(std::string_view name) {
  return std::ranges::any_of(
      std::array{optimizer_prefix, more_prefix, carried_prefix, earlier_prefix},
      [&](std::string_view prefix) { return name.starts_with(prefix); });
}

ValueError not_numbered(std::string_view prefix) {
  return ValueError(fmt::format("its tensors {}.. are not numbered from 0 on", prefix));
}

// "0", "1" ...
std::vector<Tensor> carried_of(const nn::NamedTensors& named) {
  std::vector<Tensor> carried;
  for (std::size_t i = 0; i < named.tensors.size(); ++i) {
    const auto found = named.tensors.find(std::to_string(i));
    if (found == named.tensors.end()) throw not_numbered(carried_prefix);
    carried.push_back(found->second);
  }
  return carried;
}

// "0.head.w", "1.head.w" ...
std::vector<nn::NamedTensors> earlier_of(const nn::NamedTensors& named) {
  std::vector<nn::NamedTensors> earlier;
  for (std::size_t count = 0; count < named.tensors.size();
       count += earlier.back().tensors.size()) {
    earlier.push_back(named.part(fmt::format("{}.", earlier.size())));
    if (earlier.back().tensors.empty()) throw not_numbered(earlier_prefix);
  }
  return earlier;
}

RunState checkpoint_of(const nn::NamedTensors& content) {
  for (const auto& [name, reason] : content.unread)
    throw ValueError(fmt::format("tensor {}: {}", in_quotes(name), reason));
  check_sum(content);
  RunState checkpoint{.optimizer = content.part(optimizer_prefix),
                      .more = content.part(more_prefix),
                      .rng = rng_of(content)};
  for (const auto& [name, value] : content.tensors) {
    if (!name.starts_with(reserved))
      checkpoint.params.tensors.emplace(name, value);
    else if (!is_known_tensor(name))
      throw unknown("tensor", name);
  }
  checkpoint.carried = carried_of(content.part(carried_prefix));
  checkpoint.earlier = earlier_of(content.part(earlier_prefix));
  for (const auto& [name, text] : content.metadata) {
    if (name.starts_with(number_prefix))
      checkpoint.numbers.emplace(name.substr(number_prefix.size()), number_of(name, text));
    else if (!name.starts_with(reserved))
      checkpoint.texts.emplace(name, text);
    else if (name != rng_key && name != checksum_key)
      throw unknown("text", name);
  }
  return checkpoint;
}

}  // namespace

double RunState::number(std::string_view name, Site site) const {
  const auto found = numbers.find(name);
  if (found == numbers.end())
    throw ValueError(fmt::format("the checkpoint has no number {}", in_quotes(name)), site);
  return found->second;
}

void save_run_state(const nn::Location& where, const RunState& checkpoint, Site site) {
  const SiteScope scope(site);
  nn::save_safetensors(where, content_of(checkpoint));
}

RunState load_run_state(const nn::Location& where) {
  const nn::NamedTensors content = nn::load_safetensors(where);
  try {
    return checkpoint_of(content);
  } catch (const ValueError& error) {
    throw FileError(fmt::format("{}: {}", where.str(), error.message()));
  }
}

}  // namespace reel::optim
