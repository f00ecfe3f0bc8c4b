#include <reel/datasets/piano_roll.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>
#include <reel/datasets/text.h>
#include <reel/nn/files/location.h>

namespace reel::datasets {
namespace {

using Json = nlohmann::json;

constexpr std::size_t keys = 88;
constexpr std::int64_t lowest_note = 21, highest_note = 108, rest = -1;
constexpr Index most_steps = 2'000'000;  // [] is a step, of 352 bytes as a row of a tensor
constexpr std::array<std::string_view, 3> part_names = {"train", "valid", "test"};

using Sequence = std::vector<std::bitset<keys>>;
using Part = std::vector<Sequence>;

// Builds the sequences while the JSON is parsed: what the file should not contain is refused where
// it begins, so memory and depth are bounded. The levels are those of the brackets: the object, a
// part, a sequence, a step.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(std::string_view text) : text_(text) {}

  std::array<Part, 3> parts;

  bool start_object(std::size_t) override {
    if (depth_ != 0) fail("there is an object");
    depth_ = 1;
    return true;
  }
  bool key(std::string& name) override {
    const auto found = std::ranges::find(part_names, name);
    if (found == part_names.end())
      throw ValueError(fmt::format("the key {} is none of train, valid and test", in_quotes(name)));
    part_ = static_cast<std::size_t>(found - part_names.begin());
    if (has_[part_]) throw ValueError(fmt::format("the key {} occurs twice", in_quotes(name)));
    has_[part_] = true;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == 0) throw ValueError("it is a list, not an object of train, valid and test");
    if (depth_ == 4) fail("there is a list in place of a note");
    if (depth_ == 2) parts[part_].emplace_back();
    if (depth_ == 3) {
      if (++steps_ > most_steps)
        throw ValueError(fmt::format("it has more than {} steps", most_steps));
      parts[part_].back().emplace_back();
    }
    ++depth_;
    return true;
  }
  bool end_array() override {
    if (depth_ == 3 && parts[part_].back().empty()) fail("it has no steps");
    --depth_;
    return true;
  }
  bool end_object() override {
    for (std::size_t i = 0; i < part_names.size(); ++i)
      if (!has_[i]) throw ValueError(fmt::format("it has no \"{}\"", part_names[i]));
    return true;
  }
  bool number_integer(std::int64_t note) override {
    if (depth_ != 4) fail(fmt::format("there is the number {} in place of a list", note));
    if (note == rest) return true;
    if (note < lowest_note || note > highest_note)
      fail(fmt::format("note {} is not in {} .. {}", note, lowest_note, highest_note));
    parts[part_].back().back().set(static_cast<std::size_t>(note - lowest_note));
    return true;
  }
  bool number_unsigned(std::uint64_t note) override {
    return number_integer(static_cast<std::int64_t>(std::min<std::uint64_t>(note, INT64_MAX)));
  }
  bool number_float(double, const std::string& text) override {
    fail(fmt::format("{} is not a whole number", printable(text, 40)));
  }
  bool null() override { fail("there is a null"); }
  bool boolean(bool) override { fail("there is a truth value"); }
  bool string(std::string& text) override { fail(fmt::format("there is {}", in_quotes(text))); }
  bool binary(Json::binary_t&) override { fail("there is binary data"); }
  bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
    const std::size_t byte = position - std::min<std::size_t>(position, 1);  // it counts from 1
    throw ValueError(fmt::format("it is not valid JSON ({})", place_in(text_, byte)));
  }

 private:
  // Throws with the place that is being read.
  [[noreturn]] void fail(std::string_view what) const {
    std::string place;
    if (depth_ >= 1) place = part_names[part_];
    if (depth_ >= 3) place += fmt::format(", sequence {}", parts[part_].size() - 1);
    if (depth_ >= 4) place += fmt::format(", step {}", parts[part_].back().size() - 1);
    throw ValueError(fmt::format("{}{}{}", place, place.empty() ? "" : ": ", what));
  }

  std::string_view text_;
  int depth_ = 0;
  std::size_t part_ = 0;
  std::array<bool, 3> has_{};
  Index steps_ = 0;
};

std::vector<Tensor> tensors_of(const Part& part, Site site) {
  std::vector<Tensor> sequences;
  for (const Sequence& steps : part) {
    Tensor roll = zeros({std::ssize(steps), Index{keys}}, f32, site);
    auto to = roll.begin_update<float>().begin();
    for (const auto& step : steps)
      for (std::size_t k = 0; k < keys; ++k) *to++ = step[k] ? 1.0F : 0.0F;
    sequences.push_back(std::move(roll));
  }
  return sequences;
}

}  // namespace

PianoRolls read_piano_rolls(const std::filesystem::path& path, Site site) {
  const std::string text = read_text(path);
  Builder builder(text);
  try {
    Json::sax_parse(text, &builder);
  } catch (const ValueError& error) {
    throw FileError(fmt::format("{}: {}", nn::Location(path).str(), error.message()));
  }
  return {tensors_of(builder.parts[0], site), tensors_of(builder.parts[1], site),
          tensors_of(builder.parts[2], site)};
}

}  // namespace reel::datasets
