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

double smallest_normal(DType dtype) {
  return dispatch_real(
      dtype, []<class T>() { return static_cast<double>(std::numeric_limits<T>::min()); });
}

// Whether a row of a matrix is 0 throughout.
template <class T>
bool is_zero(const T* row, Index size) {
  return std::all_of(row, row + size, [](T x) { return x == 0; });
}

}  // namespace

Optimizer::Optimizer(std::string name, const nn::ModuleParams& params, Common common,
                     std::initializer_list<Setting> settings, std::vector<Moment> moments,
                     Decay decay)
    : name_(std::move(name)),
      params_(params),
      moments_(std::move(moments)),
      decay_(decay),
      groups_(std::move(common.groups)),
      clip_counts_(groups_.size()) {
  set_learning_rate(common.learning_rate);
  for (const Setting& setting : settings) check(setting);
  check({"weight_decay", common.weight_decay});
  const std::vector<Param> list = params.list();
  if (list.empty())
    fail("there are no parameters to train; construct the model before the optimizer: " +
         params.what_there_is());
  for (const Group& group : groups_) check_group(group);
  common.decays.require_some(params, name_ + ": decays");
  param_count_ = list.size();
  for (const Param& param : list) add_slot(param, common);
  if (slots_.empty()) fail("every parameter is frozen");
}

void Optimizer::add_slot(const Param& param, const Common& common) {
  const auto found = std::ranges::find_if(
      groups_, [&](const Group& group) { return group.params.contains(param); });
  Slot slot{.param = param,
            .weight_decay = common.decays.contains(param) ? common.weight_decay : 0};
  if (found != groups_.end()) {
    if (found->frozen) return;
    slot.learning_rate_factor = found->learning_rate_factor;
    slot.weight_decay = found->weight_decay.value_or(slot.weight_decay);
    slot.lazy_rows = found->lazy_rows && param.shape().rank() >= 2;
    slot.group = static_cast<std::size_t>(found - groups_.begin());
  }
  slot.by_rows = slot.lazy_rows || (common.keeps_at_zero && slot.weight_decay == 0);
  for (const Moment& moment : moments_) slot.moments.push_back(initial(moment, param));
  slots_.push_back(std::move(slot));
}

Tensor Optimizer::initial(const Moment& moment, const Param& param) {
  if (moment.extent == Extent::scalar) return scalar(moment.initial, f64);
  Shape shape = param.shape();
  const bool is_vector = shape.rank() < 2;
  if (moment.extent != Extent::whole && is_vector != (moment.extent == Extent::vector)) return {};
  if (moment.extent == Extent::rows) shape = shape.with(shape.rank() - 1, 1);
  if (moment.extent == Extent::columns) shape = shape.with(shape.rank() - 2, 1);
  return full(shape, moment.initial, param.dtype());
}

// The element of a moment that belongs to the i-th one of a parameter.
Index Optimizer::place_in(const Moment& moment, const Shape& shape, Index i) {
  if (moment.extent != Extent::rows && moment.extent != Extent::columns) return i;
  const Index columns = shape[shape.rank() - 1], rows = shape[shape.rank() - 2], row = i / columns;
  return moment.extent == Extent::rows ? row : row / rows * columns + i % columns;
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

void Optimizer::check_group(const Group& group) const {
  group.params.require_some(params_, name_ + ": groups");
  check({"learning_rate_factor of a group", group.learning_rate_factor});
  if (group.weight_decay) check({"weight_decay of a group", *group.weight_decay});
  if (!(group.max_norm > 0))
    fail(fmt::format("max_norm of a group is {}, but has to be positive", group.max_norm));
}

void Optimizer::check_epsilon(double epsilon) const {
  for (const Slot& slot : slots_)
    if (const double least = smallest_normal(slot.param.dtype()); epsilon < least)
      fail(fmt::format("epsilon is {}, but has to be at least {:.2g} for {} parameters such as {}",
                       epsilon, least, name_of(slot.param.dtype()), slot.param.name()));
}

void Optimizer::check_epsilon(double epsilon, double decay) const {
  for (const Slot& slot : slots_) {
    const double least = std::sqrt(smallest_normal(slot.param.dtype()) / (1 - decay));
    if (epsilon < least)
      fail(
          fmt::format("epsilon is {}, but has to be at least {:.2g} for {} parameters such as {}, "
                      "where squares of smaller gradients underflow",
                      epsilon, least, name_of(slot.param.dtype()), slot.param.name()));
  }
}

void Optimizer::refuse_lazy_rows() const {
  for (const Slot& slot : slots_)
    if (slot.lazy_rows)
      fail(fmt::format("lazy_rows of {} is not possible: a step is of the whole matrix",
                       slot.param.name()));
}

void Optimizer::check(const Gradients& gradients) const {
  if (slots_.empty()) fail("an optimizer that was moved from takes no steps");
  std::size_t count = 0;
  bool ours = false;
  params_.each([&](const std::shared_ptr<ParamEntry>& entry) {
    ++count;
    ours |= gradients.params().contains(*entry);
  });
  if (count != param_count_)
    fail(fmt::format(
        "{} parameters were created after the optimizer; construct the whole model before it",
        count - param_count_));
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
  PoolVector<Task> tasks = this->tasks(gradients);
  const kernels::FlushSubnormals flush;
  clip(gradients, tasks);
  PoolVector<const Tensor*> arrays;
  for (const Task& task : tasks) arrays.push_back(task.gradient);
  const PoolVector<kernels::Piece> pieces = kernels::cut(arrays);
  PoolVector<char> suspect(moments_.empty() ? 0 : pieces.size());
  kernels::each_piece(std::span(pieces).first(suspect.size()),
                      [&](std::size_t k, const kernels::Piece& piece) {
                        const Task& task = tasks[piece.array];
                        dispatch_real(task.gradient->dtype(), [&]<class T>() {
                          suspect[k] = may_overflow<T>(task, piece.begin, piece.end);
                        });
                      });
  for (std::size_t k = 0; k < suspect.size(); ++k)
    if (suspect[k] != 0) check_moments(tasks[pieces[k].array], gradients);

  for (const Task& task : tasks) task.slot->param.require_changeable();
  for (const Task& task : tasks) task.slot->own();
  count_clips(tasks);
  for (const Task& task : tasks) {  // nothing but memory can fail from here on
    ++task.slot->steps;
    begin(*task.slot, *task.gradient, task.clip);
  }
  kernels::each_piece(pieces, [&](std::size_t, const kernels::Piece& piece) {
    const Task& task = tasks[piece.array];
    task.slot->lazy_rows || task.rows ? update_rows(task, piece.begin, piece.end)
                                      : update(piece_of(task, piece.begin, piece.end));
  });
  for (const Task& task : tasks) task.slot->direction = {};
}

void Optimizer::begin(Slot&, const Tensor&, double) const {}

PoolVector<Optimizer::Task> Optimizer::tasks(const Gradients& gradients) {
  PoolVector<Task> tasks;
  for (Slot& slot : slots_) {
    const ParamEntry& entry = *slot.param.entry();
    const RowGradient* const rows = slot.by_rows ? gradients.find_rows(entry) : nullptr;
    if (rows)
      tasks.push_back({&slot, &rows->values, &rows->rows});
    else if (const Tensor* gradient = gradients.find(entry))
      tasks.push_back({&slot, gradient});
  }
  return tasks;
}

// The groups' own clipping: a factor for the gradients of each.
void Optimizer::clip(const Gradients& gradients, PoolVector<Task>& tasks) {
  for (std::size_t group = 0; group < groups_.size(); ++group) {
    const double max_norm = groups_[group].max_norm;
    if (max_norm == std::numeric_limits<double>::infinity()) continue;
    Gradients own(gradients.params());
    for (const Task& task : tasks) {
      if (task.slot->group != group) continue;
      const ParamEntry& entry = *task.slot->param.entry();
      task.rows ? own.set(entry, {*task.rows, *task.gradient}) : own.set(entry, *task.gradient);
    }
    const double norm = own.norm();
    for (Task& task : tasks)
      if (task.slot->group == group) {
        task.clip = clip_factor(norm, max_norm);
        task.norm = norm;
      }
  }
}

void Optimizer::count_clips(const PoolVector<Task>& tasks) {
  for (std::size_t group = 0; group < groups_.size(); ++group)
    for (const Task& task : tasks)
      if (task.slot->group == group && task.norm >= 0) {
        clip_counts_[group].add(task.norm, groups_[group].max_norm);
        break;
      }
}

// From places in the gradient to those in the parameter, from `begin` to the end of its row.
Index Optimizer::Task::shift(Index begin) const {
  if (!rows) return 0;
  const Index width = gradient->size(1), row = begin / width;
  return (rows->begin<std::int32_t>()[row] - row) * width;
}

// Of the gradient's elements from `begin` to `end`, which are consecutive ones of the parameter.
Optimizer::Piece Optimizer::piece_of(const Task& task, Index begin, Index end) const {
  const Slot& slot = *task.slot;
  const Index shift = task.shift(begin);
  return {slot,          *task.gradient, task.clip, learning_rate_ * slot.learning_rate_factor,
          begin + shift, end + shift,    shift};
}

// The rows of a range that have a gradient; those in a sequence as one.
void Optimizer::update_rows(const Task& task, Index begin, Index end) const {
  const Index width = task.gradient->shape().stride(0);
  const auto has_gradient = [&](Index row) {
    return dispatch_real(task.gradient->dtype(), [&]<class T>() {
      return !is_zero(task.gradient->begin<T>() + row * width, width);
    });
  };
  const auto update_until = [&](Index to) {
    if (begin < to) update(piece_of(task, begin, to));
  };
  for (Index row = begin / width; row * width < end; ++row) {
    const bool is_updated = has_gradient(row);
    if (is_updated && task.shift(row * width) == task.shift(begin)) continue;
    update_until(row * width);
    begin = std::max(begin, (is_updated ? row : row + 1) * width);
  }
  update_until(end);
}

// What is added to the gradient for each unit of the parameter.
double Optimizer::penalty(const Slot& slot) const {
  return decay_ == Decay::coupled ? slot.weight_decay : 0;
}

// Whether a moment that is finite may become infinite: a moment of the gradient, to which weight
// decay adds the parameter, or of its square.
template <class T>
bool Optimizer::may_overflow(const Task& task, Index begin, Index end) const {
  const double lambda = penalty(*task.slot);
  if (any_from(large<T>, task.gradient->begin<T>() + begin, end - begin)) return true;
  if (lambda == 0) return false;
  const double limit = std::min(large<T>, large<T> / 2 / lambda);
  const T* const p = task.slot->param.value().begin<T>();
  while (begin < end) {  // a row at a time, if the gradient is one of rows
    const Index width = task.rows ? task.gradient->size(1) : end;
    const Index to = std::min(end, (begin / width + 1) * width);
    if (any_from(limit, p + begin + task.shift(begin), to - begin)) return true;
    begin = to;
  }
  return false;
}

// Tries the step on copies of the parameter and its moments. A moment that became infinite would
// stay so, and freeze the parameter.
void Optimizer::check_moments(const Task& task, const Gradients& gradients) const {
  const Slot& slot = *task.slot;
  const Tensor& gradient = *gradients.find(slot.param);
  Slot trial = slot;
  trial.param = Param(std::make_shared<ParamEntry>(*slot.param.entry()));
  ++trial.steps;
  trial.own();
  begin(trial, gradient, task.clip);
  const Task whole{.slot = &trial, .gradient = &gradient, .clip = task.clip};
  trial.lazy_rows ? update_rows(whole, 0, gradient.size())
                  : update(piece_of(whole, 0, gradient.size()));
  const double lambda = penalty(slot);
  dispatch_real(gradient.dtype(), [&]<class T>() {
    for (std::size_t k = 0; k < moments_.size(); ++k) {
      if (moments_[k].extent == Extent::scalar || !slot.moments[k].defined()) continue;
      for (Index i = 0; i < gradient.size(); ++i) {
        const T g = gradient.begin<T>()[i], p = slot.param.value().begin<T>()[i];
        const Index place_of_moment = place_in(moments_[k], gradient.shape(), i);
        const bool is_small = lambda == 0 && std::abs(g) < large<T>;  // so another made it infinite
        if (is_small || !std::isfinite(g) || !std::isfinite(p) ||
            !std::isfinite(slot.moments[k].begin<T>()[place_of_moment]) ||
            std::isfinite(trial.moments[k].begin<T>()[place_of_moment]))
          continue;
        const std::string place = coordinate_name(*slot.param.entry(), i);
        const std::string moment = key(moments_[k].name, slot);
        if (lambda * std::abs(double{p}) > std::abs(double{g}))
          fail(
              fmt::format("the parameter {} is {}, and with its weight_decay of {}, {} would be "
                          "infinite, and the parameter frozen; choose a smaller weight_decay",
                          place, p, lambda, moment));
        fail(
            fmt::format("the gradient of {} is {}, with which {} would be infinite, and the "
                        "parameter frozen; clip the gradients, for instance by clip_by_norm",
                        place, g, moment));
      }
    }
  });
}

// Shared buffers are copied here, so that the tasks of a step need only pointers.
void Optimizer::Slot::own() {
  dispatch_real(param.dtype(), [&]<class T>() {
    param.begin_update();
    for (Tensor& moment : moments)
      if (moment.defined() && moment.shape() == param.shape() && moment.dtype() == param.dtype())
        moment.begin_update<T>();  // `begin` replaces the others
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
      if (slot.moments[k].defined()) state.tensors[key(moments_[k].name, slot)] = slot.moments[k];
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
      Tensor& moment = slot.moments[k];
      if (!moment.defined()) continue;
      const std::string entry = key(moments_[k].name, slot);
      moment = claim(entry, moment.shape(), moment.dtype());
      check(entry, moment, moments_[k].least);
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
