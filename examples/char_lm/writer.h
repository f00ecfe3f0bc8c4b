#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include <reel/autograd/ops.h>
#include <reel/nn/generate/sample.h>
#include <reel/nn/generate/stepper.h>

namespace reel::char_lm {

/// Lets a model read and write tokens, one at a time. Its parameters must not change meanwhile.
template <class Model>
class Writer {
 public:
  explicit Writer(const Model& model)
      : embed_(model.embed), step_(stepper(model)), predict_(model.head) {}

  void read(std::int32_t token) {
    take_in();
    take(token);
  }
  /// Chooses the token after those that were read and written; there has to be one.
  std::int32_t write(const nn::Sampling& sampling, Rng& rng) {
    take_in();
    take(nn::sample(predict_(last_.y), sampling, seen_, rng));
    return *unread_;
  }

 private:
  using Step = nn::Stepper<decltype(Model::rnn)>;

  // It looks symbols up in a table, if there is one.
  static Step stepper(const Model& model) {
    const nn::Embedding* table = model.embed.table();
    return table ? Step(*table, model.rnn) : Step(model.rnn);
  }
  // The last token is taken in only when it matters.
  void take_in() {
    if (unread_) {
      const Tensor symbol = full({1}, *unread_, i32);
      last_ = step_(embed_.table() ? symbol : embed_(symbol), last_.state);
    }
    unread_.reset();
  }
  void take(std::int32_t token) {
    unread_ = token;
    const auto place = std::ranges::lower_bound(seen_, token);
    if (place == seen_.end() || *place != token) seen_.insert(place, token);
  }

  InputVectors embed_;
  Step step_;
  nn::Stepper<decltype(Model::head)> predict_;
  nn::Output<typename Model::State> last_;
  std::optional<std::int32_t> unread_;
  std::vector<std::int32_t> seen_;  // what was read or written, each once
};

}  // namespace reel::char_lm
