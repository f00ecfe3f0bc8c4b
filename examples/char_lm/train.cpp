#include <fmt/format.h>

#include <utility>

#include <reel/autograd/threads.h>

#include "checkpoint.h"
#include "commands.h"
#include "machine.h"
#include "run_text.h"
#include "trainer.h"

namespace reel::char_lm {
namespace {

// The settings of a run with those given with --resume. Throws unless they are the same, or may
// change.
Settings settings_of(const RunConfig& run, const TrainOptions& options) {
  Settings settings = run.settings;
  const auto texts = texts_of(options.settings);
  each_setting(settings, [&](const Setting& setting, auto& value) {
    const std::string name(setting.name), theirs = fmt::format("{}", value);
    if (!options.given.contains(name) || texts.at(name) == theirs) return;
    if (!may_change(setting, run.settings))
      throw ValueError(fmt::format(
          "--{} {} contradicts the run in {}, which has {}; leave it out, or give another --run",
          name, texts.at(name), short_path(options.run), theirs));
    assign(setting, texts.at(name), value);
  });
  return settings;
}

Corpus new_corpus(const TrainOptions& options) {
  const std::filesystem::path path = options.text.value_or("");
  const Settings& settings = options.settings;
  return corpus_of(find_text(path, settings, is_large(path, settings)), settings);
}

class Training {
 public:
  explicit Training(const TrainOptions& options)
      : options_(options), run_(options.run), log_(options.log) {}

  int operator()() {
    if (options_.threads) set_threads(*options_.threads);
    return options_.resume ? resume() : begin();
  }

 private:
  int begin() {
    run_.require_vacant();
    require_storable(options_.settings);
    const Corpus corpus = new_corpus(options_);
    const RunConfig config{options_.settings, corpus.id, corpus.vocabulary};
    return with_trainer(config, corpus, [&](auto& trainer) {
      if (options_.start) trainer.begin_with(*options_.start);
      run_.make();
      run_.lock();
      run_.require_vacant();
      try {
        run_.write(config);
        trainer.save_begin();
        trainer.open_files();
        describe(config, corpus, trainer);
        return options_.start ? 0 : finish(trainer);
      } catch (...) {
        if (trainer.saved_step() == 0) run_.undo();
        throw;
      }
    });
  }

  int resume() {
    run_.require_run();
    run_.lock();
    RunConfig config = run_.read_config();
    const Settings settings = settings_of(config, options_);
    std::optional<optim::RunState> checkpoint;
    if (!run_.never_saved()) {
      checkpoint = run_.load(config, run_.model_file());
      if (!options_.force)
        run_.explain(run_.model_file(), [&] { RunDirectory::require_same_version(*checkpoint); });
    }
    const Corpus corpus = text_of_run(config, options_.run, options_.text);
    config.text.path = corpus.id.path;
    const Settings before = std::exchange(config.settings, settings);
    return with_trainer(config, corpus, [&](auto& trainer) {
      if (checkpoint)
        run_.explain(run_.model_file(), [&] { trainer.restore(*checkpoint); });
      else
        trainer.save_begin();
      trainer.open_files();
      checkpoint.reset();
      RunConfig kept = config;
      if (trainer.progress().epoch > config.settings.epochs) kept.settings.epochs = before.epochs;
      if (options_.text || texts_of(kept.settings) != texts_of(before)) run_.write(kept);
      describe(config, corpus, trainer);
      return finish(trainer);
    });
  }

  template <class F>
  int with_trainer(const RunConfig& config, const Corpus& corpus, F&& f) {
    const TextParts parts = split_for(corpus, config.settings);
    const PrecisionScope precision(precision_of(config.settings));
    return with_layer(config.settings.model, [&]<class L>() {
      Trainer<L> trainer(config, parts, run_, log_, options_.extras);
      return f(trainer);
    });
  }

  template <class T>
  void describe(const RunConfig& config, const Corpus& corpus, const T& trainer) {
    const Settings& s = config.settings;
    log_.note(fmt::format("text   {}: {}, {} different", corpus.id.description(),
                          counted(corpus.tokens->size(), unit_of(s.level).name),
                          corpus.vocabulary->size()));
    log_.note(fmt::format("model  {}: {} x {}, {} parameters in {}{}; {} thread{}", s.model,
                          s.layers, s.hidden, grouped(trainer.params().count()), s.dtype,
                          s.matmul == "bf16" ? ", products in bf16" : "", threads(),
                          threads() == 1 ? "" : "s"));
    if (const auto note = note_on_precision(s); !note.empty())
      log_.note(fmt::format("note   {}", note));
    if (s.dropout > 0 && s.layers == 1)
      log_.note("note   --dropout acts between layers; with --layers 1 it does nothing");
    if (options_.resume)
      log_.note(fmt::format("run    {}: goes on after step {}", run_.path().string(),
                            trainer.progress().step));
    else
      log_.note(fmt::format("run    {}; Ctrl-C saves and stops", run_.path().string()));
  }

  template <class T>
  int finish(T& trainer) {
    run_.remove_leftovers();
    const Index before = trainer.progress().step;
    if (!trainer.is_done()) note_start(run_.machines_file(), {before, this_machine()});
    const int signal = [&] {
      const InterruptGuard guard;  // before this, an interruption loses nothing
      return trainer.run(options_.limits);
    }();
    const Progress& at = trainer.progress();
    if (signal != 0) {
      const std::string stopped =
          fmt::format("stopped after step {} and saved; go on with", at.step);
      const std::string command = command_on_run("train --resume");
      log_.note(stopped);
      log_.note("  " + command);
      log_.end(stopped + ' ' + command, json_of(at, "stopped"));
      return 128 + signal;
    }
    const std::string best =
        at.best_epoch > 0 ? fmt::format("best validation loss {:.4f} nats/{}, after epoch {}",
                                        at.best_loss, trainer.unit().brief, at.best_epoch)
                          : "there is no validation loss";
    const std::string test =
        at.is_tested()
            ? fmt::format("test loss {:.4f} nats/{}, of {}", at.test_loss, trainer.unit().brief,
                          at.best_epoch > 0 ? "these weights" : "the last weights")
            : "";
    if (at.best_epoch > 0) log_.note(best);
    if (at.is_tested()) log_.note(test);
    if (before != at.step) log_.note("report " + run_.report_file().str());
    log_.note(before == at.step
                  ? fmt::format("nothing left to do after {}; give more with --epochs",
                                counted(at.epoch - 1, "epoch"))
                  : "finished; see what it writes with");
    log_.note("  " + command_on_run("sample"));
    log_.end(fmt::format("finished after step {}; {}{}{}", at.step, best,
                         at.is_tested() ? "; " : "", test),
             json_of(at, "finished"));
    return 0;
  }

  std::string command_on_run(std::string_view command) const {
    return fmt::format("{} {} --run {}", shell_word(options_.program), command,
                       shell_word(run_.path().string()));
  }

  static std::string json_of(const Progress& at, std::string_view end) {
    return fmt::format(
        "{{\"end\": \"{}\", \"step\": {}, \"epochs\": {}, \"best_valid_loss\": {}, "
        "\"best_epoch\": {}{}}}",
        end, at.step, at.epoch - 1, at.best_epoch > 0 ? number(at.best_loss) : "null",
        at.best_epoch,
        at.is_tested() ? fmt::format(", \"test_loss\": {}", number(at.test_loss)) : "");
  }

  const TrainOptions& options_;
  RunDirectory run_;
  TrainingLog log_;
};

}  // namespace

int train(const TrainOptions& options) { return Training(options)(); }

}  // namespace reel::char_lm
