#include <reel/optim/background_saver.h>

#include <memory>
#include <system_error>
#include <utility>

namespace reel::optim {
namespace {

// Copies what someone may write to at any time, through a span that `edit` gave him.
void own_exposed(Tensor& value) {
  if (value.buffer().exposed()) value = value.copy();
}

void own_exposed(RunState& state) {
  const auto own_all = [](nn::NamedTensors& named) {
    for (auto& [name, value] : named.tensors) own_exposed(value);
  };
  own_all(state.params);
  own_all(state.optimizer);
  own_all(state.more);
  for (nn::NamedTensors& params : state.earlier) own_all(params);
  for (Tensor& value : state.carried) own_exposed(value);
}

}  // namespace

void BackgroundSaver::save(RunState state, std::function<void(const RunState&)> write) {
  wait();
  own_exposed(state);
  auto shared = std::make_shared<const RunState>(std::move(state));
  auto job = [shared = std::move(shared), write = std::move(write)]() mutable {
    // Released when it is written: a handle makes the training copy.
    const auto held = std::exchange(shared, nullptr);
    write(*held);
  };
  try {
    saving_ = std::async(std::launch::async, job);
  } catch (const std::system_error&) {  // the system has no thread left
    job();
  }
}

void BackgroundSaver::save(const nn::Location& where, RunState state, Site site) {
  save(std::move(state), [=](const RunState& held) { save_run_state(where, held, site); });
}

void BackgroundSaver::save(const StepFiles& files, Arg<Index> step, RunState state, Site site) {
  save(std::move(state),
       [=, number = Index{step}](const RunState& held) { files.save(number, held, site); });
}

void BackgroundSaver::wait() {
  if (saving_.valid()) saving_.get();
}

}  // namespace reel::optim
