#include "report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "../support/chart.h"
#include "../support/html.h"
#include "report_charts.h"
#include "training_log.h"

namespace reel::char_lm {
namespace {

using html::escaped;
using html::Section;
using html::Table;
using Runs = std::vector<ReportedRun>;

// The columns are the runs; a row is added with a text of each.
class Comparison {
 public:
  Comparison(const Runs& runs, const std::string& caption)
      : runs_(runs), table_(caption, header()) {}

  void row(const std::string& name, const std::function<std::string(const ReportedRun&)>& text) {
    std::vector<std::string> cells{name};
    for (const ReportedRun& run : runs_) cells.push_back(text(run));
    const bool differs = std::ranges::adjacent_find(cells.begin() + 1, cells.end(),
                                                    std::ranges::not_equal_to()) != cells.end();
    if (runs_.size() > 1) cells.emplace_back(differs ? "differs" : "");
    table_.add(std::move(cells));
  }
  std::string str() const { return table_.str(); }

 private:
  std::vector<std::string> header() const {
    std::vector<std::string> names{"run"};
    for (const ReportedRun& run : runs_) names.push_back(run.name);
    if (runs_.size() > 1) names.emplace_back("all the same?");
    return names;
  }

  const Runs& runs_;
  Table table_;
};

Index parameter_count(const ReportedRun& run) {
  Index count = 0;
  for (const ParameterRow& row : run.parameters) count += row.count;
  return count;
}

// The last line of all; without one, zeros.
Metrics last_line(const ReportedRun& run) {
  Metrics last;
  for (const auto* lines : {&run.hundreds, &run.epochs})
    if (!lines->empty() && lines->back().step >= last.step) last = lines->back();
  return last;
}

std::string loss_in_words(double nats, const ReportedRun& run) {
  return fmt::format("{:.4f} nats, {:.4f} bits per {}, perplexity {:.4g}", nats,
                     nats / std::numbers::ln2, unit_of(run.config.settings.level).name,
                     std::exp(nats));
}

std::string summary(const Runs& runs) {
  Comparison table(runs, "What was trained, and how well it predicts");
  table.row("model", [](const ReportedRun& run) {
    const Settings& s = run.config.settings;
    return fmt::format("{}: {} x {}, {}", s.model, s.layers, s.hidden, s.dtype);
  });
  table.row("parameters", [](const ReportedRun& run) { return grouped(parameter_count(run)); });
  table.row("trained", [](const ReportedRun& run) {
    return fmt::format("{}, {} of {} epochs", counted(run.progress.step, "step"),
                       run.progress.epoch - 1, run.config.settings.epochs);
  });
  table.row("best validation loss", [](const ReportedRun& run) -> std::string {
    const Progress& at = run.progress;
    if (at.best_epoch == 0) return "none yet";
    return fmt::format("{}, after epoch {}", loss_in_words(at.best_loss, run), at.best_epoch);
  });
  if (std::ranges::any_of(runs, [](const ReportedRun& run) { return run.progress.is_tested(); }))
    table.row("test loss", [](const ReportedRun& run) -> std::string {
      const Progress& at = run.progress;
      if (!at.is_tested()) return "none";
      const std::string weights = at.best_epoch > 0
                                      ? fmt::format("the weights after epoch {}", at.best_epoch)
                                      : "the last weights";
      return fmt::format("{}, of {}", loss_in_words(at.test_loss, run), weights);
    });
  table.row("last training loss", [](const ReportedRun& run) -> std::string {
    const Metrics last = last_line(run);
    if (last.step == 0) return "none yet";
    return fmt::format("{:.4f} nats, {:.4f} bits per {}, at step {}", last.train_loss,
                       last.train_loss / std::numbers::ln2, unit_of(run.config.settings.level).name,
                       last.step);
  });
  table.row("time", [](const ReportedRun& run) { return duration(last_line(run).elapsed_s); });
  table.row("speed", [](const ReportedRun& run) {
    return fmt::format("{} {}s per second", about(last_line(run).chars_per_s),
                       unit_of(run.config.settings.level).name);
  });
  return table.str();
}

std::string configuration(const Runs& runs) {
  Comparison table(runs, "Settings of the run, under their names in config.json");
  each_setting(runs.front().config.settings, [&](const Setting& setting, const auto&) {
    table.row(key_of(setting), [&](const ReportedRun& run) {
      return texts_of(run.config.settings).at(std::string(setting.name));
    });
  });
  table.row("text", [](const ReportedRun& run) { return run.config.text.description(); });
  table.row("size of the text", [](const ReportedRun& run) {
    return counted(static_cast<Index>(run.config.text.bytes), "byte");
  });
  table.row("vocabulary", [](const ReportedRun& run) {
    return counted(run.config.vocabulary->size(), "symbol");
  });
  return table.str();
}

std::string machines(const Runs& runs) {
  Table table("Where it was trained", {"run", "from step", "processor", "threads", "compiler",
                                       "instructions", "Reel", "libraries"});
  for (const ReportedRun& run : runs)
    for (const auto& [step, m] : run.starts)
      table.add({run.name, grouped(step), m.processor, fmt::format("{}", m.threads), m.compiler,
                 m.instructions, m.reel, m.libraries});
  return table.empty() ? "<p>The run does not tell (no machines.jsonl).</p>\n" : table.str();
}

std::string parameters(const ReportedRun& run) {
  Table table("Parameters of " + run.name, {"name", "shape", "count", "norm"});
  constexpr std::size_t most = 400;
  for (std::size_t i = 0; i < std::min(most, run.parameters.size()); ++i) {
    const ParameterRow& row = run.parameters[i];
    table.add({row.name, row.shape, grouped(row.count), fmt::format("{:.4f}", row.norm)});
  }
  if (run.parameters.size() > most)
    table.add({fmt::format("and {} more", run.parameters.size() - most), "", "", ""});
  table.add({"total", "", grouped(parameter_count(run)), ""});
  return table.str();
}

std::string samples(const ReportedRun& run, bool is_alone) {
  if (run.samples.empty())
    return "<p>None; char_lm train --sample-every N lets the model write as it is trained.</p>\n";
  std::string text;
  if (std::ssize(run.samples) < run.sample_count)
    text += fmt::format("<p>{} of {}; all are in samples.jsonl.</p>\n", run.samples.size(),
                        run.sample_count);
  for (const Sample& sample : run.samples) {
    const std::string place = fmt::format("After step {}, in epoch {}", sample.step, sample.epoch);
    text += fmt::format("<{0}>{1}</{0}>\n<pre>\n{2}</pre>\n", is_alone ? "h3" : "h4", place,
                        escaped(sample.text));
  }
  return text;
}

std::string ops(const ReportedRun& run) {
  if (run.ops.empty()) return "";
  double total = 0;
  for (const OpTime& op : run.ops) total += op.total();
  html::Table table(fmt::format("A step of {}: {:.2f} ms, forward and backward without the "
                                "optimizer, the mean of three on this machine ({}, {})",
                                run.name, total, this_machine().processor,
                                counted(this_machine().threads, "thread")),
                    {"op", "calls", "forward, ms", "backward, ms", "share"});
  for (const OpTime& op : run.ops)
    table.add({op.op, grouped(op.calls), fmt::format("{:.3f}", op.forward),
               fmt::format("{:.3f}", op.backward),
               fmt::format("{:.1f} %", total > 0 ? 100 * op.total() / total : 0)});
  return table.str();
}

// What is of each run alone: under a heading with its name if there are several.
std::string of_each(const Runs& runs, const std::function<std::string(const ReportedRun&)>& part) {
  std::string text;
  for (const ReportedRun& run : runs) {
    const std::string content = part(run);
    if (content.empty()) continue;
    if (runs.size() > 1) text += fmt::format("<h3>{}</h3>\n", escaped(run.name));
    text += content;
  }
  return text;
}

std::string figures(const std::vector<html::Chart>& charts) {
  std::string text;
  for (const html::Chart& chart : charts) text += html::figure(chart);
  return text.empty() ? "" : "<div class=\"figures\">\n" + text + "</div>\n";
}

std::string or_none(const std::string& content) {
  return content.empty() ? "<p>There is no line in metrics.jsonl yet.</p>\n" : content;
}

}  // namespace

std::string report_page(const Runs& runs, std::vector<Section> sections) {
  const bool is_alone = runs.size() == 1;
  const std::vector<Section> of_all{
      {"summary", "Summary", summary(runs)},
      {"loss", "Loss", or_none(figures(loss_charts(runs)))},
      {"steps", "Learning rate and gradient", or_none(figures(step_charts(runs)))},
      {"speed", "Speed", or_none(figures(speed_charts(runs)))}};
  sections.insert(sections.end(), of_all.begin(), of_all.end());
  if (const std::string times = of_each(runs, ops); !times.empty())
    sections.push_back({"ops", "Time by op", times});
  int number = 0;
  const std::string layers = of_each(runs, [&](const ReportedRun& run) {
    const std::string prefix = fmt::format("run{}", ++number);
    return figures(layer_charts(run, prefix)) + time_constants(run);
  });
  sections.push_back(
      {"layers", "Layers",
       layers.empty() ? "<p>Not looked into; char_lm train --diagnose does.</p>\n" : layers});
  sections.push_back({"samples", "Samples", of_each(runs, [&](const ReportedRun& run) {
                        return samples(run, is_alone);
                      })});
  sections.push_back({"parameters", "Parameters", of_each(runs, parameters)});
  sections.push_back({"configuration", "Configuration", configuration(runs)});
  sections.push_back({"machine", "Machine", machines(runs)});
  const std::string title =
      is_alone ? "Run " + runs.front().name : fmt::format("{} runs compared", runs.size());
  return html::page(title,
                    fmt::format("A {}-level language model, trained by char_lm", unit_name(runs)),
                    sections, "Made by char_lm report of Reel " + this_machine().reel);
}

}  // namespace reel::char_lm
