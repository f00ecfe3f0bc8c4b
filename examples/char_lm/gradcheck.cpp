#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <reel/autograd/check/gradcheck.h>

#include "commands.h"
#include "output.h"
#include "trained.h"
#include "training_log.h"

namespace reel::char_lm {
namespace {

using Json = nlohmann::ordered_json;

// This many evaluations of a model take minutes.
constexpr Index most_coordinates = 20000;

std::string json_of(const GradientReport& report) {
  Json rows = Json::array();
  for (const GradientReport::Row& row : report.rows)
    rows.push_back({{"name", row.name},
                    {"shape", std::vector<Index>(row.shape.begin(), row.shape.end())},
                    {"order", row.order},
                    {"verdict", name_of(row.verdict)},
                    {"failures", row.failures},
                    {"checked", row.checked},
                    {"where", row.where},
                    {"analytic", row.analytic},
                    {"numeric", row.numeric},
                    {"error", row.error},
                    {"tolerance", row.tolerance}});
  return Json{{"ok", report.ok}, {"rows", std::move(rows)}}.dump() + '\n';
}

// The loss of a model on random characters, as a function of its parameters, of vectors that are
// added to the embeddings, and of the initial states.
template <nn::Layer L>
class Check {
 public:
  Check(const CharLm<L>& model, const Params& params, const GradcheckCommand& options)
      : model_(model),
        params_(params),
        options_(options),
        dropout_(Rng(options.settings.seed).stream("dropout")) {
    const Settings& s = options.settings;
    Rng rng = Rng(s.seed).stream("gradcheck");
    const Index classes = model.head.w.shape()[0];
    const auto characters = [&] {
      Tensor tokens({s.seq_len, s.batch}, i32);
      for (std::int32_t& token : tokens.template edit<std::int32_t>())
        token = static_cast<std::int32_t>(rng.integer(classes));
      return tokens;
    };
    tokens_ = characters();
    targets_ = characters();
    inputs_.push_back({"inputs", zeros({s.seq_len, s.batch, model.embed.size()}, f64)});
    state_.layers.resize(model.rnn.layers.size());
    const auto tensors = nn::flatten(state_);
    const std::size_t each = tensors.size() / state_.layers.size();
    for (std::size_t i = 0; i < tensors.size(); ++i)
      inputs_.push_back({fmt::format("state.{}.{}", i / each, i % each == 0 ? "h" : "c"),
                         rng.normal({s.batch, model.rnn.output_size()}, 0, 0.5, f64)});
  }

  GradientReport operator()() {
    using Mode = reel::GradcheckOptions::Mode;
    const auto loss = [&](std::span<const Tensor> in) {
      const auto state = nn::unflatten(state_, in.subspan(1));
      const Tensor x = model_.embed(tokens_) + in[0];
      return model_.loss_from_vectors(x, targets_, state, nn::Train{dropout_}).mean;
    };
    return check_gradients(loss, params_, inputs_,
                           {.order = options_.order,
                            .mode = options_.fast ? Mode::fast : Mode::slow,
                            .replay = {&dropout_}});
  }

 private:
  const CharLm<L>& model_;
  const Params& params_;
  const GradcheckCommand& options_;
  Rng dropout_;
  typename CharLm<L>::State state_;  // for its structure
  Tensor tokens_, targets_;
  std::vector<NamedInput> inputs_;
};

// Checked before a model is created, for which there may not be enough memory.
void require_few(const GradcheckCommand& options, Index vocabulary_size) {
  const Settings& s = options.settings;
  const Index states = s.model == "lstm" ? 2 : 1;
  Index count = Index{s.seq_len} * s.batch * input_size(s, vocabulary_size) +
                Index{s.layers} * states * s.batch * s.hidden;
  each_parameter(s, vocabulary_size,
                 [&](const std::string&, const Shape& shape) { count += shape.size(); });
  if (!options.fast && count > most_coordinates)
    throw ValueError(fmt::format(
        "there are {} coordinates, too many to check each of them; give --fast, or a smaller model",
        grouped(count)));
}

template <nn::Layer L>
int run_check(const CharLm<L>& model, const Params& params, const GradcheckCommand& options) {
  const Settings& s = options.settings;
  Check<L> check(model, params, options);
  const GradientReport report = check();
  print(options.json
            ? json_of(report)
            : fmt::format("{}: {} x {}, {} parameters in f64; {} steps of {} characters\n{}",
                          s.model, s.layers, s.hidden, grouped(params.count()), s.seq_len, s.batch,
                          report.str()));
  return report.ok ? 0 : 1;
}

int check_run(GradcheckCommand options) {
  for (const char* name : {"model", "layers", "hidden", "embed", "dropout", "vocabulary"})
    if (options.given.contains(name))
      throw ValueError(fmt::format("--{} contradicts --run, which has a model of its own", name));
  const RunDirectory run(*options.run);
  return with_trained_params(
      run, "last", [&]<class L>(const CharLm<L>&, const Params& trained, const RunConfig& config) {
        GradcheckCommand of_run = options;
        of_run.settings = config.settings;
        of_run.settings.seq_len = options.settings.seq_len;
        of_run.settings.batch = options.settings.batch;
        of_run.settings.seed = options.settings.seed;
        require_few(of_run, config.vocabulary->size());
        // The same model on copies of its parameters, in f64.
        const Params params = trained.to(f64);
        const CharLm<L> model(params, config.vocabulary->size(), config.settings);
        return run_check(model, params, of_run);
      });
}

}  // namespace

int gradcheck(const GradcheckCommand& options) {
  if (options.run) return check_run(options);
  require_few(options, options.vocabulary);
  return with_layer(options.settings.model, [&]<class L>() {
    const Params params(options.settings.seed, f64);
    const CharLm<L> model(params, options.vocabulary, options.settings);
    initialize(params, options.settings);
    return run_check(model, params, options);
  });
}

}  // namespace reel::char_lm
