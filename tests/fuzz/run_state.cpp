#include <reel/autograd/ops.h>
#include <reel/nn/files/safetensors.h>
#include <reel/optim/run_state.h>

#include "../temporary_directory.h"
#include "memory_file.h"
#include "target.h"

namespace reel::fuzz {
namespace {

std::string file_of(const nn::NamedTensors& content) {
  const TemporaryDirectory directory;
  nn::save_safetensors(directory / "a", content);
  return content_of(directory / "a");
}

std::string file_of(const optim::RunState& state) {
  const TemporaryDirectory directory;
  save_run_state(directory / "a", state);
  return content_of(directory / "a");
}

optim::RunState small() {
  optim::RunState state;
  state.params.tensors = {{"w", ones({2, 2})}, {"b", zeros({2}, f64)}};
  state.optimizer.tensors = {{"adam.steps.w", scalar(3, f64)}, {"adam.m.w", ones({2, 2})}};
  state.more.tensors = {{"average.w", ones({2, 2})}};
  state.carried = {ones({1, 2}), Tensor({0}, f32)};
  state.earlier = {state.params, state.params};
  state.rng = {.seed = 1, .stream = 2, .position = 3};
  state.numbers = {{"step", 3}, {"loss", 0.5}};
  state.texts = {{"config", "{}"}};
  return state;
}

std::vector<std::string> examples() {
  const std::string whole = file_of(small());
  const MemoryFile file(whole);
  nn::NamedTensors content = nn::load_safetensors(file.path());
  content.metadata.erase("run.checksum");  // with it, a change is hardly read further
  return {file_of(optim::RunState{}), whole, file_of(content)};
}

std::vector<std::string> large() {
  optim::RunState carried = small(), earlier = small(), numbers = small();
  for (int i = 0; i < 10'000; ++i) carried.carried.push_back(ones({1}));
  for (int i = 0; i < 5'000; ++i) earlier.earlier.push_back(small().params);
  for (int i = 0; i < 30'000; ++i) numbers.numbers[std::to_string(i)] = i;
  return {file_of(carried), file_of(earlier), file_of(numbers)};
}

void read(std::string_view input) {
  const MemoryFile file(input);
  optim::load_run_state(file.path());
}

}  // namespace

const Target run_state{"run_state", examples, large, read};

}  // namespace reel::fuzz
