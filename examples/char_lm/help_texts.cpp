#include "help_texts.h"

#include "recipes.h"

namespace reel::char_lm {

std::string help_of_training() {
  return "--optimizer: adam, adamw, nadam, radam, adamax, rmsprop, adagrad, adadelta, lion\n"
         "or sgd. --schedule: constant; exponential, by --lr-decay; cosine, to 0 at the\n"
         "end; plateau, halved after an epoch without a lower validation loss. With --ema\n"
         "validation, samples and later commands use the average of the weights. Epochs of\n"
         "--lr-decay count from the end of the warm-up. --on-nan, at a loss or gradient\n"
         "that is not finite: stop; skip, without an update, up to 9 steps in a row;\n"
         "rollback, to the newest kept state with half the rate, up to 10 times.\n\n"
         "A symbol of --level char is a character, of byte a byte, of word a word or the\n"
         "end of a line, of bpe a part of a word (byte-pair encoding). Words are separated\n"
         "by spaces. Texts of char and byte may be larger than memory. --matmul bf16\n"
         "rounds the factors of matrix products to 8 bits. That is for processors with\n"
         "AMX: on others the result is the same, but not faster.\n\n"
         "Loss is in nats per symbol. Ctrl-C finishes the step and saves; --resume then\n"
         "reaches the same weights as an uninterrupted run. With --resume only --epochs,\n"
         "--on-nan, --save-every, --keep, --threads and what is written may differ from\n"
         "the run's own settings. DIR gets model.safetensors, saved each minute and epoch;\n"
         "best.safetensors, after the epoch of least validation loss; steps/, the saves to\n"
         "keep; config.json, metrics.jsonl, machines.jsonl and report.html, a page to look\n"
         "at. With --diagnose lines of metrics also have gradients through time, gates,\n"
         "time constants and Jacobians in the last step. Neither this nor samples,\n"
         "--tensorboard, --quiet and --json change the training. What --test-frac keeps\n"
         "from it is read once, at its end, by the weights of least validation loss.\n"
         "--clip-value without --clip leaves the norm alone.\n\n" +
         help_of_recipes();
}

std::string help_of_search() {
  return "Searches at random: each trial has its own values of the settings with --over,\n"
         "as in --over lr=1e-4..1e-1 --over model=gru,lstm; all others are fixed. Numbers\n"
         "are log-uniform, or uniform if the range begins at 0. Without --over the ranges\n"
         "are lr=5e-4..2e-2, dropout=0..0.5 and clip=0.5..10, without what is fixed.\n\n"
         "The better half of the trials goes on (successive halving) after --epochs / 2^k,\n"
         "..., --epochs / 4 and --epochs / 2, by validation loss. A trial that diverges is\n"
         "out. The best one is trained to the end: its weights are those of char_lm train\n"
         "with its settings. DIR gets a run for each trial, DIR/trial-001, ..., for all\n"
         "commands, tune.json and report.html, which compares the best.\n\n"
         "Ctrl-C saves and stops, and so does the end of --time-budget; --resume goes on,\n"
         "also after a crash, to the same result. With it only --time-budget, --threads,\n"
         "more --trials and the --text, if it was moved, may be given. See also\n"
         "char_lm train --help for --optimizer, --schedule and --recipe.";
}

std::span<const Meaning> exit_codes() {
  static constexpr Meaning rows[] = {
      {"0", "done"},
      {"1",
       "failure: a file, a text, a checkpoint, a loss that is no longer finite or above 10^6, out "
       "of memory"},
      {"2", "invalid command line"},
      {"130, 143", "training was stopped by SIGINT (Ctrl-C) or SIGTERM, and saved"},
      {"129, 152",
       "training was stopped by SIGHUP (a closed terminal) or SIGXCPU (ulimit -t), and saved"},
  };
  return rows;
}

std::span<const Meaning> environment() {
  static constexpr Meaning rows[] = {
      {"REEL_CPU",
       "baseline, avx2 or avx512: compute with the instructions of this level, not with the most "
       "that the processor has"},
      {"TERM", "if it is dumb or missing, no line on the screen is written over to show progress"},
  };
  return rows;
}

std::span<const Meaning> examples() {
  static constexpr Meaning rows[] = {
      {"char_lm train --text input.txt --run runs/first", "learn a text"},
      {"char_lm train --resume --run runs/first --epochs 20", "go on to 20 epochs"},
      {"char_lm sample --run runs/first --prime Once --length 500", "let it write"},
      {"char_lm tune --text input.txt --run runs/search --trials 16 --over lr=1e-4..1e-1",
       "try 16 learning rates"},
      {"char_lm report runs/first runs/second", "compare two runs"},
  };
  return rows;
}

}  // namespace reel::char_lm
