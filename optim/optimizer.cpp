#include <reel/optim/optimizer.h>

#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/kernels/pieces.h>

namespace reel::optim {

Optimizer::Optimizer(std::string name, const Params& params, double learning_rate,
                     std::initializer_list<Setting> settings, std::vector<std::string> moments)
    : name_(std::move(name)), params_(params), moments_(std::move(moments)) {
  set_learning_rate(learning_rate);
  for (const Setting& setting : settings) check(setting);
  for (const Param& param : params.list()) {
    Slot& slot = slots_.emplace_back(Slot{.param = param});
    for (std::size_t k = 0; k < moments_.size(); ++k)
      slot.moments.push_back(zeros(param.shape(), param.dtype()));
  }
  if (slots_.empty())
    throw ValueError(fmt::format(
        "{}: there are no parameters to train; construct the model before the optimizer", name_));
}

void Optimizer::check(const Setting& setting) const {
  if (!(setting.value >= 0 && setting.value < setting.limit))
    throw ValueError(fmt::format("{}: {} is {}, but has to be in [0, {})", name_, setting.name,
                                 setting.value, setting.limit));
}

void Optimizer::check(const Gradients& gradients) const {
  std::size_t count = 0;
  bool ours = false;
  params_.each([&](const std::shared_ptr<ParamEntry>& entry) {
    ++count;
    ours |= gradients.params().contains(*entry);
  });
  if (count != slots_.size())
    throw ValueError(fmt::format(
        "{}: {} parameters were created after the optimizer; construct the whole model before it",
        name_, count - slots_.size()));
  if (!ours)
    throw ValueError(fmt::format(
        "{}: these gradients are of another store: parameter {} is not in it; take them with "
        "respect to the parameters that the optimizer was given",
        name_, slots_.front().param.name()));
}

void Optimizer::set_learning_rate(double learning_rate) {
  check({"learning_rate", learning_rate});
  learning_rate_ = learning_rate;
}

void Optimizer::step(const Gradients& gradients) {
  check(gradients);
  PoolVector<const Slot*> slots;
  PoolVector<const Tensor*> found;
  for (Slot& slot : slots_)
    if (const Tensor* gradient = gradients.find(slot.param)) {
      ++slot.steps;
      slot.own();
      slots.push_back(&slot);
      found.push_back(gradient);
    }
  kernels::each_piece(kernels::cut(found), [&](std::size_t, const kernels::Piece& piece) {
    update(*slots[piece.array], *found[piece.array], {piece.begin, piece.end});
  });
}

// What other handles share is copied here, so that the tasks of a step have pointers alone.
void Optimizer::Slot::own() {
  dispatch_real(param.dtype(), [&]<class T>() {
    param.edit<T>();
    for (Tensor& moment : moments) moment.edit<T>();
  });
}

std::string Optimizer::key(std::string_view what, const Slot& slot) const {
  return fmt::format("{}.{}.{}", name_, what, slot.param.name());
}

nn::NamedTensors Optimizer::state() const {
  nn::NamedTensors state;
  for (const Slot& slot : slots_) {
    state.tensors[key("steps", slot)] = scalar(slot.steps, f64);
    for (std::size_t k = 0; k < moments_.size(); ++k)
      state.tensors[key(moments_[k], slot)] = slot.moments[k];
  }
  return state;
}

void Optimizer::restore(const nn::NamedTensors& state) {
  auto unclaimed = state.tensors;
  const auto claim = [&](const std::string& entry, const Shape& shape, DType dtype) {
    const auto node = unclaimed.extract(entry);
    if (!node)
      throw ValueError(
          fmt::format("{}: the state has no entry {}; is it of another optimizer or another model?",
                      name_, entry));
    const Tensor& value = node.mapped();
    if (!value.defined() || value.shape() != shape || value.dtype() != dtype)
      throw ValueError(fmt::format(
          "{}: entry {} of the state is {} {}, but has to be {} {}; is it of another model?", name_,
          entry, value.defined() ? name_of(value.dtype()) : "undefined", value.shape().str(),
          name_of(dtype), shape.str()));
    return value.detach();
  };

  std::vector<Slot> restored = slots_;
  for (Slot& slot : restored) {
    slot.steps = claim(key("steps", slot), {}, f64).item();
    if (!(slot.steps >= 0 && std::isfinite(slot.steps) && slot.steps == std::floor(slot.steps)))
      throw ValueError(fmt::format("{}: entry {} of the state is {}, but has to be a count", name_,
                                   key("steps", slot), slot.steps));
    for (std::size_t k = 0; k < moments_.size(); ++k)
      slot.moments[k] = claim(key(moments_[k], slot), slot.param.shape(), slot.param.dtype());
  }
  if (!unclaimed.empty())
    throw ValueError(fmt::format(
        "{}: the state has a foreign entry {}; is it of another optimizer or another model?", name_,
        unclaimed.begin()->first));
  slots_ = std::move(restored);
}

}  // namespace reel::optim
