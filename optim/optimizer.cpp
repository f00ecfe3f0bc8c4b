#include <reel/optim/optimizer.h>

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/kernels/pieces.h>
#include <reel/autograd/message.h>

namespace reel::optim {
namespace {

// The square of a smaller gradient is finite, also with half as much weight decay added to it.
template <class T>
constexpr double large = sizeof(T) == 4 ? 0x1p63 : 0x1p511;

// Whether a number is as large as `limit`, or not finite; told by the bits, which gives vector
// code.
template <class T>
bool any_from(double limit, const T* numbers, Index count) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  constexpr Bits magnitude = std::numeric_limits<Bits>::max();
  Bits largest = 0;
  for (Index i = 0; i < count; ++i)
    largest = std::max(largest, std::bit_cast<Bits>(numbers[i]) & magnitude);
  return largest >= std::bit_cast<Bits>(static_cast<T>(limit));
}

}  // namespace

Optimizer::Optimizer(std::string name, const nn::ModuleParams& params, double learning_rate,
                     std::initializer_list<Setting> settings, std::vector<Moment> moments,
                     double weight_decay)
    : name_(std::move(name)),
      params_(params),
      moments_(std::move(moments)),
      weight_decay_(weight_decay) {
  set_learning_rate(learning_rate);
  for (const Setting& setting : settings) check(setting);
  for (const Param& param : params.list()) {
    Slot& slot = slots_.emplace_back(Slot{.param = param});
    for (std::size_t k = 0; k < moments_.size(); ++k)
      slot.moments.push_back(zeros(param.shape(), param.dtype()));
  }
  if (slots_.empty())
    fail("there are no parameters to train; construct the model before the optimizer: " +
         params.what_there_is());
}

void Optimizer::fail(const std::string& why) const {
  throw ValueError(fmt::format("{}{}{}", name_, name_.empty() ? "" : ": ", why),
                   SiteScope::current());
}

void Optimizer::check(const Setting& setting) const {
  if (!(setting.value >= 0 && setting.value < setting.limit))
    fail(fmt::format("{} is {}, but has to be in [0, {})", setting.name, setting.value,
                     setting.limit));
}

void Optimizer::check_epsilon(double epsilon, double decay) const {
  for (const Slot& slot : slots_) {
    const double smallest = dispatch_real(slot.param.dtype(), []<class T>() {
      return static_cast<double>(std::numeric_limits<T>::min());
    });
    const double least = std::sqrt(smallest / (1 - decay));
    if (epsilon < least)
      fail(
          fmt::format("epsilon is {}, but has to be at least {:.2g} for {} parameters such as {}, "
                      "where squares of smaller gradients underflow",
                      epsilon, least, name_of(slot.param.dtype()), slot.param.name()));
  }
}

void Optimizer::check(const Gradients& gradients) const {
  if (slots_.empty()) fail("an optimizer that was moved from takes no steps");
  std::size_t count = 0;
  bool ours = false;
  params_.each([&](const std::shared_ptr<ParamEntry>& entry) {
    ++count;
    ours |= gradients.params().contains(*entry);
  });
  if (count != slots_.size())
    fail(fmt::format(
        "{} parameters were created after the optimizer; construct the whole model before it",
        count - slots_.size()));
  if (!ours)
    fail(
        fmt::format("these gradients are of another {}: parameter {} is not in it; take them with "
                    "respect to the parameters that the optimizer was given",
                    params_.shares_store_with(gradients.params()) ? "part" : "store",
                    slots_.front().param.name()));
}

void Optimizer::set_learning_rate(double learning_rate, Site site) {
  const SiteScope scope(site);
  check({"learning_rate", learning_rate});
  learning_rate_ = learning_rate;
}

void Optimizer::step(const Gradients& gradients, Site site) {
  const SiteScope scope(site);
  check(gradients);
  PoolVector<Slot*> slots;
  PoolVector<const Tensor*> found;
  for (Slot& slot : slots_)
    if (const Tensor* gradient = gradients.find(slot.param)) {
      slots.push_back(&slot);
      found.push_back(gradient);
    }
  const kernels::FlushSubnormals flush;
  const PoolVector<kernels::Piece> pieces = kernels::cut(found);
  PoolVector<char> suspect(moments_.empty() ? 0 : pieces.size());
  kernels::each_piece(std::span(pieces).first(suspect.size()),
                      [&](std::size_t k, const kernels::Piece& piece) {
                        const Tensor& gradient = *found[piece.array];
                        dispatch_real(gradient.dtype(), [&]<class T>() {
                          suspect[k] = may_overflow<T>(slots[piece.array]->param.value(), gradient,
                                                       {piece.begin, piece.end});
                        });
                      });
  for (std::size_t k = 0; k < suspect.size(); ++k)
    if (suspect[k] != 0) check_moments(*slots[pieces[k].array], *found[pieces[k].array]);

  for (Slot* slot : slots) slot->own();
  for (Slot* slot : slots) ++slot->steps;  // nothing can fail from here on
  kernels::each_piece(pieces, [&](std::size_t, const kernels::Piece& piece) {
    update(*slots[piece.array], *found[piece.array], {piece.begin, piece.end});
  });
}

// Whether a moment that is finite may become infinite: a moment of the gradient, to which weight
// decay adds the parameter, or of its square.
template <class T>
bool Optimizer::may_overflow(const Tensor& value, const Tensor& gradient,
                             const Range& piece) const {
  const Index count = piece.end - piece.begin;
  if (any_from(large<T>, gradient.begin<T>() + piece.begin, count)) return true;
  const double limit = std::min(large<T>, large<T> / 2 / weight_decay_);
  return weight_decay_ != 0 && any_from(limit, value.begin<T>() + piece.begin, count);
}

// Tries the step on copies of the parameter and its moments. A moment that became infinite would
// stay so, and freeze the parameter.
void Optimizer::check_moments(const Slot& slot, const Tensor& gradient) const {
  Slot trial = slot;
  trial.param = Param(std::make_shared<ParamEntry>(*slot.param.entry()));
  ++trial.steps;
  trial.own();
  update(trial, gradient, {0, gradient.size()});
  dispatch_real(gradient.dtype(), [&]<class T>() {
    for (std::size_t k = 0; k < moments_.size(); ++k)
      for (Index i = 0; i < gradient.size(); ++i) {
        const T g = gradient.begin<T>()[i], p = slot.param.value().begin<T>()[i];
        if (!std::isfinite(g) || !std::isfinite(p) ||
            !std::isfinite(slot.moments[k].begin<T>()[i]) ||
            std::isfinite(trial.moments[k].begin<T>()[i]))
          continue;
        const std::string place = coordinate_name(*slot.param.entry(), i);
        const std::string moment = key(moments_[k].name, slot);
        if (weight_decay_ * std::abs(double{p}) > std::abs(double{g}))
          fail(
              fmt::format("the parameter {} is {}, and with its weight_decay of {}, {} would be "
                          "infinite, and the parameter frozen; choose a smaller weight_decay",
                          place, p, weight_decay_, moment));
        fail(
            fmt::format("the gradient of {} is {}, with which {} would be infinite, and the "
                        "parameter frozen; clip the gradients, for instance by clip_by_norm",
                        place, g, moment));
      }
  });
}

// Shared buffers are copied here, so that the tasks of a step need only pointers.
void Optimizer::Slot::own() {
  dispatch_real(param.dtype(), [&]<class T>() {
    param.begin_update();
    for (Tensor& moment : moments) moment.begin_update<T>();
  });
}

std::string Optimizer::key(std::string_view what, const Slot& slot) const {
  return fmt::format("{}.{}.{}", name_, what, slot.param.name());
}

void Optimizer::check(const std::string& entry, const Tensor& value, double least) const {
  dispatch_real(value.dtype(), [&]<class T>() {
    for (T x : value.values<T>())
      if (!std::isfinite(x) || x < static_cast<T>(least))
        throw ValueError(
            fmt::format("{}: entry {} of the state holds {}, which is impossible in training",
                        name_, printable(entry), x),
            SiteScope::current());
  });
}

nn::NamedTensors Optimizer::state() const {
  nn::NamedTensors state;
  for (const Slot& slot : slots_) {
    state.tensors[key("steps", slot)] = scalar(slot.steps, f64);
    for (std::size_t k = 0; k < moments_.size(); ++k)
      state.tensors[key(moments_[k].name, slot)] = slot.moments[k];
  }
  return state;
}

void Optimizer::restore(const nn::NamedTensors& state, Site site) {
  const SiteScope scope(site);
  if (slots_.empty()) throw ValueError("an optimizer that was moved from takes no state", site);
  auto unclaimed = state.tensors;
  const auto claim = [&](const std::string& entry, const Shape& shape, DType dtype) {
    const auto node = unclaimed.extract(entry);
    if (!node)
      throw ValueError(
          fmt::format("{}: the state has no entry {}; is it of another optimizer or another model?",
                      name_, printable(entry)),
          site);
    const Tensor& value = node.mapped();
    if (!value.defined() || value.shape() != shape || value.dtype() != dtype)
      throw ValueError(
          fmt::format(
              "{}: entry {} of the state is {} {}, but has to be {} {}; is it of another model?",
              name_, printable(entry), value.defined() ? name_of(value.dtype()) : "undefined",
              value.shape().str(), name_of(dtype), shape.str()),
          site);
    return value.detach();
  };

  std::vector<Slot> restored = slots_;
  for (Slot& slot : restored) {
    slot.steps = claim(key("steps", slot), {}, f64).item();
    if (!(slot.steps >= 0 && std::isfinite(slot.steps) && slot.steps == std::floor(slot.steps)))
      throw ValueError(fmt::format("{}: entry {} of the state is {}, but has to be a count", name_,
                                   key("steps", slot), slot.steps),
                       site);
    for (std::size_t k = 0; k < moments_.size(); ++k) {
      const std::string entry = key(moments_[k].name, slot);
      slot.moments[k] = claim(entry, slot.param.shape(), slot.param.dtype());
      check(entry, slot.moments[k], moments_[k].least);
    }
  }
  if (!unclaimed.empty())
    throw ValueError(fmt::format("{}: the state has an unexpected entry {}; is it of another "
                                 "optimizer or another model?",
                                 name_, printable(unclaimed.begin()->first, 80)),
                     site);
  slots_ = std::move(restored);
}

}  // namespace reel::optim
