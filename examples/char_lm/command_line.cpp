#include "command_line.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <vector>

#include <reel/autograd/error.h>
#include <reel/autograd/message.h>

#include "completions.h"
#include "exchange_options.h"
#include "help_texts.h"
#include "machine.h"
#include "manual.h"
#include "options.h"
#include "recipes.h"
#include "search.h"

namespace reel::char_lm {
namespace {

using Path = std::filesystem::path;

void add_extras(CLI::App& app, Extras& extras) {
  app.add_flag("--diagnose", extras.diagnose, "look into the layers for metrics.jsonl");
  add_setting(app,
              {.name = "sample-every",
               .help = "steps between samples; 0: none",
               .value = "N",
               .allowed = "a whole number from 0 to 1000000000",
               .allows = [](double n) { return n >= 0 && n <= 1e9; }},
              extras.sample_every);
  add_setting(app,
              {.name = "sample-length",
               .help = "symbols of a sample",
               .value = "M",
               .allowed = allowed::whole_words,
               .allows = allowed::whole},
              extras.sample_length);
  app.add_flag("--tensorboard", extras.tensorboard, "write events for TensorBoard in DIR");
}

// A number that is none if it is not given.
void add_optional(CLI::App& app, const Setting& setting, std::optional<int>& value) {
  add_text(app, setting.name, setting.value, std::string(setting.help),
           [=, &value](const std::string& text) { assign(setting, text, value.emplace()); });
}

// What the commands that train have in common.
template <class Options>
void add_training(CLI::App& app, Options& options, const std::string& what,
                  const std::string& json) {
  add_run(app, options.run, what);
  add_path(app, "text", "FILE", "text to train on [Reel's own sources]",
           [&](const Path& path) { options.text = path; });
  add_text(app, "recipe", names_of_recipes(), "settings of a publication, see below",
           [&](const std::string& name) { options.recipe = &recipe_named(name); })
      ->option_text("NAME");
  app.add_flag("--resume", options.resume, fmt::format("resume the {} in DIR", what));
  app.add_flag("--force", options.force, "also if another version of Reel wrote it");
  CLI::Option* quiet = app.add_flag_callback(
      "--quiet", [&] { options.log = LogKind::quiet; }, "print errors and the last line only");
  app.add_flag_callback(
         "--json", [&] { options.log = LogKind::json; }, json)
      ->excludes(quiet);
  add_optional(app,
               {.name = "threads",
                .help = "threads to use [all cores]",
                .value = "N",
                .allowed = "a whole number from 1 to 1024",
                .allows = [](double n) { return n >= 1 && n <= 1024; }},
               options.threads);
}

void add_train(CLI::App& app, TrainOptions& options) {
  add_training(app, options, "run", "print the lines of the metrics as JSON");
  add_extras(app, options.extras);
  add_settings(app, options.settings);
  app.footer(help_of_training());
}

void add_ranges(CLI::App& app, std::vector<Range>& ranges) {
  const auto take = [&](const std::vector<std::string>& texts) {
    try {
      for (const std::string& text : texts) ranges.emplace_back(text);
    } catch (const ValueError& error) {
      throw CLI::ValidationError(fmt::format("--over {}", error.message()));
    }
  };
  app.add_option_function<std::vector<std::string>>("--over", take, "what to search, see below")
      ->type_name("SETTING=RANGE")
      ->allow_extra_args(false);
}

void add_tune(CLI::App& app, TuneOptions& options) {
  add_training(app, options, "search", "print results as lines of JSON");
  add_optional(app,
               {.name = "trials",
                .help = "how many settings to try",
                .value = "N",
                .allowed = "a whole number from 1 to 999",
                .allows = [](double n) { return n >= 1 && n <= most_trials; }},
               options.trials);
  add_text(app, "time-budget", "S", "seconds after which to stop [no limit]",
           [&](const std::string& text) {
             assign({.name = "time-budget",
                     .allowed = allowed::positive_words,
                     .allows = allowed::positive},
                    text, options.time_budget);
           });
  add_ranges(app, options.space.ranges);
  add_settings(app, options.space.fixed);
  app.footer(help_of_search());
}

void add_sample(CLI::App& app, SampleOptions& options) {
  add_run(app, options.run);
  add_checkpoint(app, options.checkpoint);
  add_setting(app,
              {.name = "length",
               .help = "symbols to write",
               .value = "N",
               .allowed = "a whole number from 1 to 1000000000",
               .allows = [](double n) { return n >= 1 && n <= 1e9; }},
              options.length);
  add_text(app, "prime", "TEXT", "what it begins with",
           [&](const std::string& text) { options.prime = text; });
  add_setting(app,
              {.name = "temperature",
               .help = "below 1 safer, above 1 wilder; 0: the likeliest",
               .value = "X",
               .allowed = allowed::not_negative_words,
               .allows = allowed::not_negative},
              options.temperature);
  add_setting(app,
              {.name = "top-k",
               .help = "choose among the K likeliest; 0: among all",
               .value = "K",
               .allowed = "a whole number from 0 to 1000000",
               .allows = allowed::natural},
              options.top_k);
  add_setting(app,
              {.name = "top-p",
               .help = "choose among the likeliest that make up P",
               .value = "P",
               .allowed = "a number greater than 0, at most 1",
               .allows = allowed::part},
              options.top_p);
  add_setting(app,
              {.name = "min-p",
               .help = "choose among those of P times the likeliest's p",
               .value = "P",
               .allowed = "a number from 0 to 1",
               .allows = [](double p) { return p >= 0 && p <= 1; }},
              options.min_p);
  add_setting(app,
              {.name = "repetition-penalty",
               .help = "above 1: rather not what there was already",
               .value = "X",
               .allowed = allowed::positive_words,
               .allows = allowed::positive},
              options.repetition_penalty);
  add_setting(app,
              {.name = "seed",
               .help = "for the choices",
               .value = "S",
               .allowed = "a whole number of 64 bits, 0 or more",
               .allows = allowed::any},
              options.seed);
  app.add_flag("--interactive", options.interactive, "continue the lines that are typed");
  app.footer(
      "With --interactive each line of standard input is continued; an empty one goes\n"
      "on with the text, :temperature X and :seed S set these, :quit or the end quits.");
}

void add_eval(CLI::App& app, EvalOptions& options) {
  add_run(app, options.run);
  add_path(app, "text", "FILE", "text to predict, or where that of --part is now",
           [&](const Path& path) { options.text = path; });
  const Setting part{.name = "part",
                     .help = "a part of the run's own text",
                     .value = "train|valid|test",
                     .allowed = "train, valid or test"};
  add_text(app, part.name, part.value, std::string(part.help),
           [&, part](const std::string& text) { assign(part, text, options.part.emplace()); });
  add_checkpoint(app, options.checkpoint);
  app.add_flag("--per-char", options.per_char, "also tell which 20 symbols cost most");
  app.add_flag("--json", options.json, "print one JSON object");
}

void add_report(CLI::App& app, ReportOptions& options) {
  const auto take = [&](const std::vector<std::string>& runs) {
    for (const std::string& run : runs) {
      if (run.empty()) throw CLI::ValidationError("RUN is empty, but has to be a path");
      options.runs.emplace_back(run);
    }
    if (runs.size() > most_runs)
      throw CLI::ValidationError(
          fmt::format("{} runs are more than the {} that a page can show", runs.size(), most_runs));
  };
  app.add_option_function<std::vector<std::string>>("RUN", take, "directories of runs")
      ->type_name("DIR")
      ->option_text("...")
      ->required();
  add_path(app, "output", "FILE", "where to write it [report.html in the first RUN]",
           [&](const Path& path) { options.output = path; });
  app.add_flag("--profile", options.profile, "measure here the ops of a training step too");
  app.footer(
      "Writes a page of HTML that needs no other file: settings, losses, gradients,\n"
      "speed, layers, samples and parameters; several runs are compared. train writes\n"
      "it too, after an epoch and when it stops.");
}

// Whether a setting selects what is checked, and on which numbers.
bool is_checked(const Setting& setting) {
  constexpr std::string_view others[] = {"seq-len", "batch", "seed"};
  return setting.name != "dtype" && setting.name != "matmul" &&
         (setting.group == "Model" || std::ranges::find(others, setting.name) != std::end(others));
}

void add_gradcheck(CLI::App& app, GradcheckCommand& options) {
  add_path(app, "run", "DIR", "check the model of a run, not a new one",
           [&](const Path& path) { options.run = path; });
  each_setting(options.settings, [&](const Setting& setting, auto& value) {
    if (is_checked(setting)) add_setting(app, setting, value);
  });
  add_setting(app,
              {.name = "vocabulary",
               .help = "different characters",
               .value = "N",
               .allowed = allowed::whole_words,
               .allows = allowed::whole},
              options.vocabulary);
  add_setting(app,
              {.name = "order",
               .help = "highest order of derivative to check",
               .value = "N",
               .allowed = "1, 2 or 3",
               .allows = [](double n) { return n >= 1 && n <= 3; }},
              options.order);
  app.add_flag("--fast", options.fast, "random directions, not every coordinate");
  app.add_flag("--json", options.json, "print one JSON object");
  app.footer(
      "Compares, in f64, the gradients of the loss on random characters with central\n"
      "differences: those with respect to parameters, to the inputs of the recurrent\n"
      "layers and to the initial states. Exits with 0 if all agree, otherwise with 1.");
}

// The names of the settings that were passed to a command.
Given given_settings(const CLI::App& app, const Settings& settings) {
  Given given;
  each_setting(settings, [&](const Setting& setting, const auto&) {
    const CLI::Option* option = app.get_option_no_throw(fmt::format("--{}", setting.name));
    if (option && option->count() > 0) given.emplace(setting.name);
  });
  return given;
}

// The error message, with a hint where to find help.
UsageError usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const auto chosen = app.get_subcommands();
  const std::string command = chosen.empty() ? "" : " " + chosen.front()->get_name();
  const auto unknown = app.remaining(true);
  std::string message = error.what();
  if (!unknown.empty())
    message = fmt::format("unknown {} {}",
                          unknown.front().starts_with('-') ? "option"
                          : chosen.empty()                 ? "command"
                                                           : "argument",
                          printable(unknown.front(), 80));
  else if (chosen.empty() && dynamic_cast<const CLI::RequiredError*>(&error))
    message = "a command is missing";
  else if (dynamic_cast<const CLI::ArgumentMismatch*>(&error))
    message = message.substr(0, message.find(':')) + " takes a value";
  return UsageError(fmt::format("{}; see char_lm{} --help", message, command));
}

// The words of the command line, the last one first, as CLI11 wants them. It would take "--prime="
// for an option without a value, and has its own words about "--resume=5".
std::vector<std::string> words_of(const CLI::App& app, int argc, char** argv) {
  const auto chosen = app.get_subcommands(
      [&](const CLI::App* command) { return argc > 1 && command->get_name() == argv[1]; });
  const CLI::App* command = chosen.empty() ? nullptr : chosen.front();
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t equals = word.starts_with("--") ? word.find('=') : std::string::npos;
    const std::string name = word.substr(0, equals);
    const CLI::Option* option =
        command && equals != std::string::npos ? command->get_option_no_throw(name) : nullptr;
    if (option && option->get_items_expected_max() == 0)
      throw UsageError(fmt::format("{} takes no value; see char_lm {} --help", name, argv[1]));
    const bool is_empty = option && equals + 1 == word.size();
    words.push_back(is_empty ? name : word);
    if (is_empty) words.emplace_back();
  }
  std::ranges::reverse(words);
  return words;
}

// The options of a search, whose trials can be drawn and do not contradict themselves.
TuneOptions checked(const CLI::App& app, TuneOptions options, const char* program) {
  SearchSpace& space = options.space;
  space.given = given_settings(app, space.fixed);
  options.program = program;
  try {
    if (options.resume && (!space.given.empty() || !space.ranges.empty() || options.recipe))
      throw ValueError(fmt::format("--{} is of the search already; leave it out with --resume",
                                   !space.given.empty()    ? *space.given.begin()
                                   : !space.ranges.empty() ? "over"
                                                           : "recipe"));
    if (options.resume) return options;
    if (!options.trials) throw ValueError("--trials is required");
    if (options.recipe) {
      Given others = space.given;
      for (const Range& range : space.ranges) others.insert(range.name());
      follow(*options.recipe, space.fixed, others);
    }
    if (space.ranges.empty()) space.ranges = default_ranges(space);
    draw(space, *options.trials);
    return options;
  } catch (const ValueError& error) {
    throw UsageError(fmt::format("{}; see char_lm tune --help", error.message()));
  }
}

// The options of a training, complete and without contradictions.
TrainOptions checked(const CLI::App& app, TrainOptions options, const char* program) {
  Settings& settings = options.settings;
  options.given = given_settings(app, settings);
  options.program = program;
  try {
    if (options.recipe) follow(*options.recipe, settings, options.given);
    complete(settings, options.given);
    // Those that are given with --resume have to be those of the run.
    if (!options.resume) require_consistent(settings, options.given);
  } catch (const ValueError& error) {
    throw UsageError(fmt::format("--{}; see char_lm train --help", error.message()));
  }
  if (options.resume && options.recipe)
    for (const RecipeValue& value : options.recipe->values) options.given.emplace(value.setting);
  return options;
}

// A text that is asked for, in place of a command.
struct Requested {
  std::string text;
};

// Prints what is made from the options: `app` has all of them by then.
void add_print(CLI::App& app) {
  const auto print = [&app](const std::string& kind) {
    if (kind == "man") throw Requested{manual(app)};
    if (kind == "bash") throw Requested{bash_completion(app)};
    if (kind == "zsh") throw Requested{zsh_completion(app)};
    throw ValueError(fmt::format("print is {}, but has to be man, bash or zsh", in_quotes(kind)));
  };
  add_text(app, "print", "man|bash|zsh", "print the man page, or what a shell completes", print);
}

std::string version() {
  const Machine m = this_machine();
  return fmt::format("char_lm of Reel {}\n{}, {}\n{}\n", m.reel, m.compiler, m.instructions,
                     m.libraries);
}

}  // namespace

Command parse_command_line(int argc, char** argv) {
  CLI::App app("Character-level language models: train one on a text, let it write.", "char_lm");
  app.formatter(help_formatter(22));
  app.set_help_flag("-h,--help", "show this help");
  TrainOptions train_options;
  TuneOptions tune_options;
  SampleOptions sample_options;
  EvalOptions eval_options;
  InfoOptions info_options;
  ReportOptions report_options;
  ExportOptions export_options;
  ImportOptions import_options;
  GradcheckCommand gradcheck_options;
  const auto add = [&](const char* name, const char* help) {
    return app.add_subcommand(name, help)->group("Commands");
  };
  CLI::App* train = add("train", "Learn a text.");
  CLI::App* tune = add("tune", "Search for the settings that learn a text best.");
  CLI::App* sample = add("sample", "Write text, symbol by symbol.");
  CLI::App* eval = add("eval", "Measure how well a text is predicted.");
  CLI::App* info = add("info", "Show the settings and the parameters of a run.");
  CLI::App* report = add("report", "Show runs as a page: curves, samples, parameters.");
  CLI::App* to_others = add("export", "Write the model for other frameworks.");
  CLI::App* from_others = add("import", "Begin a run with weights of another framework.");
  CLI::App* gradcheck = add("gradcheck", "Compare a model's gradients with differences.");
  for (CLI::App* command : {train, tune, from_others, gradcheck})
    command->formatter(help_formatter(35));
  add_train(*train, train_options);
  add_tune(*tune, tune_options);
  add_sample(*sample, sample_options);
  add_eval(*eval, eval_options);
  add_run(*info, info_options.run);
  add_checkpoint(*info, info_options.checkpoint);
  info->add_flag("--json", info_options.json, "print one JSON object");
  add_report(*report, report_options);
  add_export(*to_others, export_options);
  add_import(*from_others, import_options);
  add_gradcheck(*gradcheck, gradcheck_options);
  app.set_version_flag("--version", version, "show versions of program, compiler and libraries");
  add_print(app);
  app.require_subcommand(1);
  app.footer("char_lm COMMAND --help tells the options of a command.");
  try {
    app.parse(words_of(app, argc, argv));
  } catch (const CLI::CallForHelp&) {
    return app.help();
  } catch (const CLI::CallForVersion&) {
    return version();
  } catch (const Requested& requested) {
    return requested.text;
  } catch (const CLI::ParseError& error) {
    throw usage_error(app, error);
  }
  if (*tune) return checked(*tune, std::move(tune_options), argv[0]);
  if (*sample) return sample_options;
  if (*eval && !eval_options.text && !eval_options.part)
    throw UsageError("--text or --part is required; see char_lm eval --help");
  if (*eval) return eval_options;
  if (*info) return info_options;
  if (*report) return report_options;
  if (*to_others) return checked(export_options);
  if (*from_others) {
    import_options.given = given_settings(*from_others, import_options.settings);
    return checked(std::move(import_options));
  }
  if (*gradcheck) {
    gradcheck_options.given = given_settings(*gradcheck, gradcheck_options.settings);
    if (gradcheck->count("--vocabulary") > 0) gradcheck_options.given.insert("vocabulary");
    return gradcheck_options;
  }
  return checked(*train, std::move(train_options), argv[0]);
}

}  // namespace reel::char_lm
