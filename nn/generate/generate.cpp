#include <reel/nn/generate/generate.h>

#include <fmt/format.h>

#include <algorithm>

#include <reel/autograd/error.h>
#include <reel/nn/generate/draw.h>
#include <reel/nn/generate/prompts.h>

namespace reel::nn::detail {

void check_prompts(const char* caller, const Prompts& prompts, Index max_length,
                   std::optional<std::int32_t> end, Site site) {
  const auto fail = [&](const std::string& what) {
    throw ValueError(fmt::format("{}: {}", caller, what), site);
  };
  if (prompts.empty()) fail("there are no prompts; give one for each row");
  const auto empty = std::ranges::find_if(prompts, [](const auto& p) { return p.empty(); });
  if (empty != prompts.end())
    fail(
        fmt::format("prompt {} is empty; it needs a token to begin with", empty - prompts.begin()));
  if (max_length <= 0) fail(fmt::format("max_length must be positive, not {}", max_length));
  if (end && *end < 0) fail(fmt::format("the end token is {}, which no token can be", *end));
}

void check_end(const char* caller, std::optional<std::int32_t> end, const Tensor& logits,
               Site site) {
  if (end && *end >= logits.size(-1))
    throw ValueError(fmt::format("{}: the end token {} is not among the {} tokens (0 to {})",
                                 caller, *end, logits.size(-1), logits.size(-1) - 1),
                     site);
}

Generation::Generation(const Prompts& prompts, const GenerateOptions& options, const Rng& rng,
                       Site site)
    : options_(options), site_(site) {
  check_prompts("generate", prompts, options.max_length, options.end, site);
  options.sampling.validate(site);
  for (const auto& prompt : prompts) rows_.push_back({prompt, prompt.size(), 0});
  rngs_ = row_streams(rng, prompts.size());
}

Tensor Generation::input() const {
  std::vector<std::int32_t> tokens;
  for (const Row& row : rows_)
    tokens.push_back(row.ended ? options_.end.value_or(row.tokens.back()) : row.tokens[row.read]);
  return tensor({std::ssize(tokens)}, tokens);
}

void Generation::take(const Tensor& logits) {
  check_logits("generate", logits, std::ssize(rows_), site_);
  check_end("generate", options_.end, logits, site_);
  std::vector<NewToken> chosen;
  for (Index b = 0; b < std::ssize(rows_); ++b) {
    Row& row = rows_[static_cast<std::size_t>(b)];
    if (!row.ended && ++row.read == row.tokens.size()) chosen.push_back(choose(logits, b));
  }
  done_ = std::ranges::all_of(rows_, &Row::ended);
  if (!chosen.empty() && options_.on_tokens && !options_.on_tokens(chosen)) done_ = true;
}

NewToken Generation::choose(const Tensor& logits, Index row) {
  const auto at = static_cast<std::size_t>(row);
  Row& current = rows_[at];
  const LogitRow x = logit_row("generate", logits, row, site_);
  const std::int32_t token =
      draw("generate", x, options_.sampling, current.tokens, rngs_[at], site_);
  const double log_probability = x[static_cast<std::size_t>(token)] - log_sum_exp(x);
  current.tokens.push_back(token);
  current.log_probability += log_probability;
  const auto length = static_cast<Index>(current.tokens.size() - current.prompt);
  current.ended = token == options_.end || length == options_.max_length;
  return {row, token, log_probability};
}

std::vector<Generated> Generation::result() const {
  std::vector<Generated> result;
  for (const Row& row : rows_)
    result.push_back(
        {{row.tokens.begin() + static_cast<std::ptrdiff_t>(row.prompt), row.tokens.end()},
         row.log_probability});
  return result;
}

}  // namespace reel::nn::detail
