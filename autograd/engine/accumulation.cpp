// The gradients of a pass by slot: how contributions are added up.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include <reel/autograd/engine/backward.h>
#include <reel/autograd/engine/inspect.h>
#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/ops/axis.h>

namespace reel {
namespace {

template <class T>
void add_in_place(Buffer& sum, const Tensor& term) {
  const std::span<const T> from = term.values<T>();
  kernels::at_level([&] {
    std::transform(from.begin(), from.end(), static_cast<const T*>(sum.data()),
                   static_cast<T*>(sum.data()), std::plus{});
  });
}

// Adds a part to the elements of a tensor along an axis, from `begin` on in steps.
template <class Sum, class T>
void add_along(Sum* sum, const AxisView& whole, const T* from, Index count, Index begin,
               Index step) {
  kernels::at_level([&] {
    for (Index o = 0; o < whole.outer; ++o)
      for (Index k = 0; k < count; ++k, from += whole.inner) {
        Sum* run = sum + (o * whole.size + begin + k * step) * whole.inner;
        for (Index i = 0; i < whole.inner; ++i) run[i] += static_cast<Sum>(from[i]);
      }
  });
}

}  // namespace

Tensor Backward::tensor_of(std::int32_t slot, Entry entry) const {
  const Tape::Slot& of = tape_.slots_[static_cast<std::size_t>(slot)];
  const Trace trace = entry.slot < 0 ? Trace{} : Trace{tape_.generation(), entry.slot};
  return Tensor(std::move(entry.buffer), of.shape, of.dtype, trace);
}

Tensor Backward::gradient(std::int32_t slot) {
  spread_rows(slot);
  unite(slot);
  return tensor_of(slot, gradients_[static_cast<std::size_t>(slot)]);
}

// The gradient of an output whose record is being processed: removed from the table, unless it is a
// result.
Tensor Backward::take_gradient(std::int32_t slot) {
  const bool is_result = (marks_[static_cast<std::size_t>(slot)] & wanted) != 0;
  unite(slot);
  Entry& entry = gradients_[static_cast<std::size_t>(slot)];
  Entry taken = is_result ? entry : std::exchange(entry, {});
  if (taken.buffer) return tensor_of(slot, std::move(taken));
  const Tape::Slot& of = tape_.slots_[static_cast<std::size_t>(slot)];
  return zeros(of.shape, of.dtype);
}

void Backward::accumulate(std::int32_t slot, Tensor term) {
  const Tape::Slot& of = tape_.slots_[static_cast<std::size_t>(slot)];
  if (term.shape() != of.shape) term = sum_to(term, of.shape);
  if (term.dtype() != of.dtype)
    throw DTypeError(fmt::format("a gradient is {}, but the value is {}", name_of(term.dtype()),
                                 name_of(of.dtype)));
  if (tape_.options_.check_finite)
    if (const auto found = first_not_finite(term, current_place.step))
      throw NotFiniteError(
          fmt::format("check_finite: the gradient of {} is {}", tape_.slot_name(slot), *found));
  spread_rows(slot);
  Entry& entry = gradients_[static_cast<std::size_t>(slot)];
  if (!entry.buffer) return store(slot, std::move(term));
  if (Many* many = count(slot); many && many->contributions++ >= few) {
    set_apart(slot, *many);
    return store(slot, std::move(term));
  }
  if (options_.create_graph) return store(slot, add(tensor_of(slot, entry), term));
  if (entry.buffer.unique())
    dispatch_real(of.dtype, [&]<class T>() { add_in_place<T>(entry.buffer, term); });
  else
    entry.buffer = add(tensor_of(slot, entry), term).take_buffer();
}

Backward::Many* Backward::many(std::int32_t slot) {
  const std::int32_t contributions = gradients_[static_cast<std::size_t>(slot)].contributions;
  return contributions < 0 ? &many_[static_cast<std::size_t>(~contributions)] : nullptr;
}

// Counts a contribution to a gradient that exists.
Backward::Many* Backward::count(std::int32_t slot) {
  if (tape_.slots_[static_cast<std::size_t>(slot)].dtype != f32) return nullptr;
  Entry& entry = gradients_[static_cast<std::size_t>(slot)];
  if (entry.contributions >= 0 && ++entry.contributions == few) {
    many_.emplace_back();
    entry.contributions = ~static_cast<std::int32_t>(many_.size() - 1);
  }
  return many(slot);
}

// Adds the sum in the entry to the earlier ones. A graph has no op that adds in double; there two
// sums are added once both are of equally many contributions.
void Backward::set_apart(std::int32_t slot, Many& many) {
  Tensor sum = tensor_of(slot, gradients_[static_cast<std::size_t>(slot)]);
  if (options_.create_graph) {
    int doublings = 0;
    for (; !many.sums.empty() && many.sums.back().doublings == doublings; ++doublings) {
      sum = add(many.sums.back().sum, sum);
      many.sums.pop_back();
    }
    many.sums.push_back({std::move(sum), doublings});
  } else if (many.earlier.defined())
    std::ranges::transform(sum.values<float>(), many.earlier.values<double>(),
                           many.earlier.begin_update<double>().begin(), std::plus<double>{});
  else
    many.earlier = sum.to(f64);
  many.contributions = 1;
}

// Replaces the sum in the entry by that of all contributions.
void Backward::unite(std::int32_t slot) {
  Many* many = this->many(slot);
  if (!many) return;
  if (many->earlier.defined()) {
    set_apart(slot, *many);
    store(slot, std::exchange(many->earlier, {}).to(f32));
  }
  for (; !many->sums.empty(); many->sums.pop_back())
    store(slot,
          add(many->sums.back().sum, tensor_of(slot, gradients_[static_cast<std::size_t>(slot)])));
}

// Whether a part may still be added to the sum in the entry. One that does not lie beside the
// previous parts counts as a contribution, and the next ones have to lie beside it.
bool Backward::Many::takes(int part_axis, Index part_begin, Index part_end) {
  const bool first = axis < 0;
  const bool beside = !first && axis == part_axis && (part_end <= begin || part_begin >= end);
  begin = beside ? std::min(begin, part_begin) : part_begin;
  end = beside ? std::max(end, part_end) : part_end;
  axis = part_axis;
  if (!first && !beside && contributions <= few) ++contributions;
  return contributions <= few;
}

// Adds to some of the elements of a gradient in-place, if it exists and is not shared.
bool Backward::add_part(std::int32_t slot, const Tensor& part, int axis, Index begin, Index step) {
  const Entry& entry = gradients_[static_cast<std::size_t>(slot)];
  if (!entry.buffer || options_.create_graph || tape_.options_.check_finite ||
      !entry.buffer.unique())
    return false;
  const Shape& shape = tape_.slots_[static_cast<std::size_t>(slot)].shape;
  const Index size = part.shape()[axis];
  const auto add_to = [&]<class T>(auto* sum) {
    add_along(sum, AxisView(shape, axis), part.values<T>().data(), size, begin, step);
  };
  Many* many = count(slot);
  if (!many || many->takes(axis, begin, begin + (size - 1) * step + 1)) {
    dispatch_real(part.dtype(), [&]<class T>() {
      add_to.template operator()<T>(static_cast<T*>(entry.buffer.data()));
    });
  } else {
    if (!many->earlier.defined()) many->earlier = zeros(shape, f64);
    add_to.template operator()<float>(many->earlier.begin_update<double>().data());
  }
  return true;
}

// A step of a loop has few rows, and its product reads and writes the whole gradient: steps are
// collected until they have enough rows, and computed as one product. A parameter's gradient is
// read only at the end of the pass, so it may be deferred.
void Backward::add_product(std::int32_t slot, const Tensor& left, const Tensor& right) {
  constexpr Index enough = 1024;
  const unsigned marks = marks_[static_cast<std::size_t>(slot)];
  const bool at_once = options_.create_graph || tape_.options_.check_finite;
  if (!at_once && receive_product_ && (marks & wanted) != 0)
    return receive_product_(slot, left, right);
  if (at_once || (marks & parameter) == 0 || left.size(0) >= enough)
    return accumulate(slot, matmul(left, right, true));
  auto found = std::ranges::find(products_, slot, &Products::slot);
  if (found == products_.end()) found = products_.insert(found, {slot});
  found->left.push_back(left);
  found->right.push_back(right);
  found->rows += left.size(0);
  if (found->rows >= enough) add_sum(*found);
}

void Backward::add_sum(Products& products) {
  if (products.left.empty()) return;
  accumulate(products.slot, matmul(concat(products.left, 0), concat(products.right, 0), true));
  products = {products.slot};
}

void Backward::store(std::int32_t slot, Tensor g) {
  const bool recorded = options_.create_graph && g.trace().generation != 0;
  Entry& entry = gradients_[static_cast<std::size_t>(slot)];
  entry.slot = recorded ? g.trace().slot : -1;
  entry.buffer = g.take_buffer();
}

}  // namespace reel
