// Files: the rate at which 100 MB of weights are written, and read from the page cache; and what a
// training pays for saving beside it.
#include <reel/reel.h>

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace {

using namespace reel;

// A directory for the files, removed at the end.
const std::filesystem::path& folder() {
  static const struct Folder {
    Folder() {
      std::string name = std::filesystem::temp_directory_path() / "reel-bench-XXXXXX";
      if (!::mkdtemp(name.data())) std::abort();
      path = name;
    }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
    std::filesystem::path path;
  } made;
  return made.path;
}

// 8 layers of 3.3 million numbers.
const optim::RunState& large_state() {
  static const optim::RunState state = [] {
    optim::RunState made;
    Rng rng(1);
    for (int i = 0; i < 8; ++i)
      made.params.tensors["layer" + std::to_string(i)] = rng.normal({1024, 3200});
    return made;
  }();
  return state;
}

void report_bytes(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * 8 * 1024 * 3200 * 4);
}

void save_weights(benchmark::State& state) {
  for (auto _ : state) nn::save_safetensors(folder() / "weights", large_state().params);
  report_bytes(state);
}

void load_weights(benchmark::State& state) {
  nn::save_safetensors(folder() / "weights", large_state().params);
  for (auto _ : state) benchmark::DoNotOptimize(nn::load_safetensors(folder() / "weights"));
  report_bytes(state);
}

// With a checksum.
void save_state(benchmark::State& state) {
  for (auto _ : state) optim::save_run_state(folder() / "state", large_state());
  report_bytes(state);
}

void load_state(benchmark::State& state) {
  save_run_state(folder() / "state", large_state());
  for (auto _ : state) benchmark::DoNotOptimize(optim::load_run_state(folder() / "state"));
  report_bytes(state);
}

enum class Saving { none, foreground, background };

// 10 steps of two LSTMs of 512 units with 64 rows and 64 steps in time, and one save: 40 MB.
void training(benchmark::State& state, Saving saving) {
  const Params params(1);
  const nn::Embedding embed(params / "embed", 65, 64);
  const nn::Stacked<nn::Lstm> layers(params / "rnn", 64, 512, {.layers = 2});
  const nn::Linear head(params / "head", 512, 65);
  optim::Adam adam(params, {.learning_rate = 1e-3});
  optim::BackgroundSaver saver;
  const Tensor inputs = full({64, 64}, 3, i32), targets = full({64, 64}, 4, i32);
  const auto step = [&] {
    Tape tape;
    adam.step(tape.gradient(cross_entropy(head(layers(embed(inputs)).y), targets), params));
  };
  const auto save = [&] {
    const optim::RunState now{.params = nn::from_params(params), .optimizer = adam.state()};
    if (saving == Saving::foreground) save_run_state(folder() / "training", now);
    if (saving == Saving::background) saver.save(folder() / "training", now);
  };
  const auto steps_and_save = [&] {
    step();
    save();
    for (int i = 1; i < 10; ++i) step();
  };
  steps_and_save();  // memory for both sets of numbers
  for (auto _ : state) steps_and_save();
}

}  // namespace

int main(int argc, char** argv) {
  const auto add = [](const char* name, auto body) {
    return benchmark::RegisterBenchmark(name, body)
        ->Unit(benchmark::kMillisecond)
        ->MeasureProcessCPUTime()
        ->UseRealTime();
  };
  add("save_safetensors", save_weights);
  add("load_safetensors", load_weights);
  add("save_run_state", save_state);
  add("load_run_state", load_state);
  for (const auto& [name, saving] :
       {std::pair("10 steps, not saved", Saving::none),
        std::pair("10 steps, saved in the foreground", Saving::foreground),
        std::pair("10 steps, saved in the background", Saving::background)})
    add(name, [how = saving](benchmark::State& state) { training(state, how); })->Iterations(1);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
