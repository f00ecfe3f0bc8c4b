#include <reel/nn/diagnostics.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <iterator>
#include <limits>
#include <list>
#include <numeric>
#include <span>
#include <utility>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/engine/table.h>
#include <reel/autograd/kernels/gates.h>
#include <reel/autograd/kernels/recurrent.h>
#include <reel/autograd/ops.h>
#include <reel/autograd/rng.h>
#include <reel/autograd/tape.h>

namespace reel::nn {
namespace {

constexpr double saturation = 0.05;  // the distance from an end of the range

template <Real T>
double sum_of_squares(const T* x, Index size) {
  double sum = 0;
  for (Index i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

// The i-th of `count` numbers that are evenly spread over 0 .. size - 1.
Index spread(Index i, Index count, Index size) { return (2 * i + 1) * size / (2 * count); }

// --- gates ---

struct Gate {
  int sum;  // of the cell
  kernels::GateForm form;
  GateReport report;
  Index count = 0, saturated = 0;

  void add(double value) {
    const double width = 1 - report.lowest, place = (value - report.lowest) / width;
    const auto bins = static_cast<double>(report.histogram.size());
    const double bin = std::min(place * bins, bins - 1);
    ++report.histogram[bin >= 0 ? static_cast<std::size_t>(bin) : 0];  // 0 for NaN
    saturated += place * width < saturation || (1 - place) * width < saturation;
    ++count;
  }
  template <Real T>
  void add_kept(std::span<const T> kept) {
    const bool sigmoid = form == kernels::GateForm::sigmoid;
    for (const T number : kept)
      add(static_cast<double>(sigmoid ? kernels::sigmoid_value(number)
                                      : kernels::tanh_value(number)));
  }
};

std::vector<Gate> gates_of(const CellSpec& cell) {
  std::vector<Gate> gates;
  for (int sum = 0; sum < cell.layout.sums; ++sum) {
    const kernels::GateForm form = cell.form(sum);
    if (form == kernels::GateForm::number) continue;
    const char* name = cell.layout.gates[static_cast<std::size_t>(sum)];
    gates.push_back({sum,
                     form,
                     {.name = name ? name : fmt::format("sum {}", sum),
                      .lowest = form == kernels::GateForm::sigmoid ? 0.0 : -1.0}});
  }
  return gates;
}

// Σ (1 - f) of each unit: near 1 a mean of f itself would be rounded.
struct Forgetting {
  std::vector<double> sums;
  Index count = 0;

  // Of numbers from which `complement` makes 1 - f.
  template <class T, class F>
  void add(std::span<const T> numbers, F complement) {
    sums.resize(numbers.size());
    for (std::size_t j = 0; j < numbers.size(); ++j)
      sums[j] += static_cast<double>(complement(numbers[j]));
    ++count;
  }
  std::optional<TimeConstants> time_constants() const {
    if (count == 0) return {};
    std::vector<double> steps;
    for (const double sum : sums) {
      const double tau = -1 / std::log1p(-sum / static_cast<double>(count));
      steps.push_back(std::isnan(tau) ? std::numeric_limits<double>::infinity() : tau);
    }
    std::ranges::sort(steps);
    const auto quantile = [&](double share) {
      return steps[static_cast<std::size_t>(
          std::lround(share * static_cast<double>(steps.size() - 1)))];
    };
    return TimeConstants{quantile(0.05), quantile(0.5), quantile(0.95)};
  }
};

// --- the Jacobian of a step ---

// Some tokens of a layer, as a batch for the cell's step.
template <Real T>
struct Batch {
  Tensor x;
  std::vector<Tensor> states;  // before the step
};

template <Real T>
void copy_row(Tensor& to, Index row, const T* from) {
  const Index size = to.shape()[1];
  if (from) std::copy_n(from, size, to.begin_update<T>().data() + row * size);
}

template <Real T>
Batch<T> batch_of(const ObservedPass<T>& pass, Index count) {
  const auto& layer = pass.layer;
  const kernels::Steps& steps = layer.steps;
  const kernels::Direction<T>& direction = layer.directions[pass.direction];
  const auto states = static_cast<std::size_t>(pass.cell.layout.states);
  const kernels::CellSizes& sizes = layer.sizes;
  const Index kept = kernels::KeptNumbers(pass.cell.layout, sizes).width;
  Batch<T> batch{zeros({count, sizes.features}, dtype_of<T>), {}};
  for (std::size_t k = 0; k < states; ++k)
    batch.states.push_back(zeros({count, sizes.state(k)}, dtype_of<T>));
  for (Index i = 0, t = 0; i < count; ++i) {
    const Index token = spread(i, count, steps.tokens());
    while (steps.first(t + 1) <= token) ++t;
    const Index r = token - steps.first(t), before = steps.previous(t, r, direction.reverse);
    copy_row(batch.x, i, layer.x + steps.place(t, r) * sizes.features);
    for (std::size_t k = 0; k < states; ++k) {
      const T* state = nullptr;
      if (before < 0)
        state =
            direction.initial[k] ? direction.initial[k] + steps.row(r) * sizes.state(k) : nullptr;
      else if (k == 0)
        state = pass.values.y + steps.place(before, r) * layer.y_stride;
      else
        state = pass.values.kept + (steps.first(before) + r) * kept +
                static_cast<Index>(k - 1) * sizes.units;
      copy_row(batch.states[k], i, state);
    }
  }
  return batch;
}

// Divides each row by its norm, unless that is 0; returns the norms.
template <Real T>
std::vector<double> normalize_rows(Tensor& x) {
  const Index width = x.shape()[1];
  std::vector<double> norms;
  T* row = x.begin_update<T>().data();
  for (Index r = 0; r < x.shape()[0]; ++r, row += width) {
    const double norm = norms.emplace_back(std::sqrt(sum_of_squares(row, width)));
    for (Index j = 0; norm > 0 && j < width; ++j)
      row[j] = static_cast<T>(static_cast<double>(row[j]) / norm);
  }
  return norms;
}

// |∂s'/∂s| of each row, by power iteration with JᵀJ. J v is the gradient of Jᵀ u, which is linear
// in u, with respect to u; both are on one tape, whose passes are repeated.
template <Real T>
std::vector<double> jacobian_norms(const ObservedPass<T>& pass, Index count, int iterations) {
  const Batch<T> batch = batch_of(pass, count);
  Tape tape;
  const Tensor before = tape.watch(concat(batch.states, -1));
  Tensors states;
  Index begin = 0;
  for (const Tensor& state : batch.states) {
    const Index end = begin + state.shape()[1];
    states.push_back(slice(before, 1, begin, end));
    begin = end;
  }
  kernels::StepOptions without_masks = pass.layer.options;
  without_masks.training = false;
  const Tensor p = pass.inputs.input_part(pass.cell.layout, batch.x);
  const Tensor after = concat(states_after(pass.cell, p, states, pass.inputs, {without_masks}), -1);
  Tensor v = Rng(0).normal(before.shape(), 0, 1, dtype_of<T>);
  const Tensor u = tape.watch(v);
  const Tensor transposed =
      tape.gradient(after, {before}, {.seed = u, .create_graph = true, .keep = true})[0];
  std::vector<double> norms;
  for (int i = 0; i < iterations; ++i) {
    normalize_rows<T>(v);
    Tensor product = tape.gradient(transposed, {u}, {.seed = v, .keep = true})[0].detach();
    const std::vector<double> last = std::exchange(norms, normalize_rows<T>(product));
    v = tape.gradient(after, {before}, {.seed = product, .keep = true})[0].detach();
    constexpr double exact = 1e-6;
    if (std::ranges::equal(norms, last,
                           [](double a, double b) { return std::abs(a - b) <= exact * a; }))
      break;
  }
  return norms;
}

}  // namespace

// --- what was seen ---

class Diagnostics::Seen : public Observer {
 public:
  explicit Seen(const DiagnosticsOptions& options) : options_(options) {}

  double* before_backward(const ObservedPass<float>& pass) override { return see(pass); }
  double* before_backward(const ObservedPass<double>& pass) override { return see(pass); }
  void scan(const Tensor& a, const Tensor& b, const Tensor& lengths, bool reverse) override {
    at_gradient(b, [name = module_or("linear_scan"), a = a.detach(), lengths, reverse](
                       Seen& self, const Tensor& d_b) {
      Layer& layer = self.layer_of(name, reverse, 0, [] {
        return std::vector<Gate>{
            {0, kernels::GateForm::sigmoid, {.name = "forget", .lowest = 0, .saturated = 0}}};
      });
      self.see_scan(layer, a, d_b, lengths);
    });
  }
  void step(std::string_view module, const Tensor& h, bool reverse) override {
    at_gradient(h, [name = std::string(module.empty() ? "Unroll" : module), reverse](
                       Seen& self, const Tensor& gradient) {
      Part& part = self.layer_of(name, reverse, 0, [] { return std::vector<Gate>(); }).add_part(1);
      part.first = {0, 1};
      dispatch_real(gradient.dtype(), [&]<class T>() {
        part.squares = {sum_of_squares(gradient.begin<T>(), gradient.size())};
      });
    });
  }
  void forget() { layers_.clear(); }

  std::vector<LayerReport> reports() const {
    std::vector<LayerReport> all;
    for (const Layer& layer : layers_) all.push_back(layer.report());
    return all;
  }

 private:
  // Some steps of a layer.
  struct Part {
    Index total;
    std::vector<Index> first;     // of each step in `squares`; steps of padding have none
    std::vector<double> squares;  // of the gradients

    void add_norms(std::vector<double>& norms) const {
      const auto at = [&](Index t) {
        return squares.begin() +
               first[static_cast<std::size_t>(std::min(t, std::ssize(first) - 1))];
      };
      for (Index t = 0; t < total; ++t)
        norms.push_back(std::sqrt(std::accumulate(at(t), at(t + 1), 0.0)));
    }
  };
  struct Layer {
    std::string name;
    bool reverse;
    std::vector<Gate> gates;
    std::deque<Part> parts = {};  // in the order of time; a pass writes to its own
    Forgetting forgetting = {};
    std::vector<double> jacobian_norms = {};

    // A backward pass gets to the parts of a sequence in reverse order.
    Part& add_part(Index total) {
      Part& part = reverse ? parts.emplace_back() : parts.emplace_front();
      part.total = total;
      return part;
    }
    LayerReport report() const {
      LayerReport r{.name = name, .jacobian_norms = jacobian_norms};
      for (const Part& part : parts) part.add_norms(r.gradient_norms);
      for (const Gate& gate : gates) {
        r.gates.push_back(gate.report);
        r.gates.back().saturated = static_cast<double>(gate.saturated) /
                                   static_cast<double>(std::max<Index>(gate.count, 1));
      }
      r.time_constants = forgetting.time_constants();
      return r;
    }
  };

  template <Real T>
  double* see(const ObservedPass<T>& pass) {
    const kernels::Steps& steps = pass.layer.steps;
    Layer& layer = layer_of(pass);
    see_gates(pass, layer);
    if (const Index count = std::min(options_.jacobians, steps.tokens()); count > 0) {
      const std::vector<double> norms = jacobian_norms(pass, count, options_.iterations);
      layer.jacobian_norms.insert(
          layer.reverse ? layer.jacobian_norms.end() : layer.jacobian_norms.begin(), norms.begin(),
          norms.end());
    }
    Part& part = layer.add_part(steps.total());
    for (Index t = 0; t <= steps.count(); ++t) part.first.push_back(steps.first(t));
    part.squares.resize(static_cast<std::size_t>(steps.tokens()));
    return part.squares.data();
  }

  template <Real T>
  Layer& layer_of(const ObservedPass<T>& pass) {
    std::string name = module_or(pass.cell.name);
    if (pass.layer.directions.size() == 2) name += pass.direction == 0 ? ".forward" : ".backward";
    return layer_of(name, pass.layer.directions[pass.direction].reverse,
                    static_cast<std::ptrdiff_t>(pass.direction),
                    [&] { return gates_of(pass.cell); });
  }

  static std::string module_or(const char* otherwise) {
    const std::string_view module = current_place.module;
    return std::string(module.empty() ? otherwise : module);
  }

  // The last layer is seen first, but of two directions the first one.
  template <class Gates>
  Layer& layer_of(const std::string& name, bool reverse, std::ptrdiff_t place, Gates gates) {
    const auto found = std::ranges::find(layers_, name, &Layer::name);
    if (found != layers_.end()) return *found;
    return *layers_.emplace(std::next(layers_.begin(), place), Layer{name, reverse, gates()});
  }

  // Calls f(this, gradient) in a backward pass that reaches x while this is the observer.
  template <class F>
  void at_gradient(const Tensor& x, F f) {
    Tape* const tape = Tape::current();
    if (!tape || x.trace().slot < 0 || x.trace().generation != tape->generation()) return;
    // The hook may outlive this, but is then not called while this is the observer.
    tape->on_gradient(x, [this, f](const Tensor& gradient) {
      if (Observer::current() == this) f(*this, gradient);
      return Tensor();
    });
  }

  // The part that a scan's input gradients [T, B, H] tell of: since h_t = a_t h_{t-1} + b_t, those
  // of b are those of h.
  void see_scan(Layer& layer, const Tensor& a, const Tensor& d_b, const Tensor& lengths) const {
    const Index steps = a.size(0), rows = a.size(1), n = a.size(2);
    Part& part = layer.add_part(steps);
    for (Index t = 0; t <= steps; ++t) part.first.push_back(t);
    dispatch_real(a.dtype(), [&]<class T>() {
      const T *gradient = d_b.begin<T>(), *gate = a.begin<T>();
      for (Index t = 0; t < steps; ++t)
        part.squares.push_back(sum_of_squares(gradient + t * rows * n, rows * n));
      const Index count = std::min(options_.tokens, steps * rows);
      for (Index i = 0; i < count; ++i) {
        const Index token = spread(i, count, steps * rows), t = token / rows;
        if (lengths.defined() && t >= lengths.begin<std::int32_t>()[token % rows]) continue;
        const std::span<const T> f(gate + token * n, static_cast<std::size_t>(n));
        for (const T value : f) layer.gates[0].add(static_cast<double>(value));
        layer.forgetting.add(f, [](T value) { return 1 - static_cast<double>(value); });
      }
    });
  }

  template <Real T>
  void see_gates(const ObservedPass<T>& pass, Layer& layer) const {
    const kernels::CellLayout& layout = pass.cell.layout;
    const Index n = pass.layer.sizes.units, tokens = pass.layer.steps.tokens();
    const Index count = std::min(options_.tokens, tokens);
    for (Index i = 0; i < count; ++i) {
      const T* sums = pass.values.sums + spread(i, count, tokens) * layout.sums * n;
      const auto kept = [&](int sum) {
        return std::span(sums + sum * n, static_cast<std::size_t>(n));
      };
      for (Gate& gate : layer.gates) gate.add_kept(kept(gate.sum));
      if (layout.forget >= 0)
        layer.forgetting.add(kept(layout.forget), layout.forget_is_complement
                                                      ? &kernels::sigmoid_value<T>
                                                      : &kernels::sigmoid_complement<T>);
    }
  }

  DiagnosticsOptions options_;
  std::list<Layer> layers_;  // which stay where they are: passes write to their parts
};

Diagnostics::Diagnostics(const DiagnosticsOptions& options, Site site) {
  if (options.tokens < 1 || options.jacobians < 0 || options.iterations < 1)
    throw ValueError(
        fmt::format("Diagnostics: {} tokens, {} Jacobians and {} iterations; there have to be at "
                    "least 1, 0 and 1",
                    options.tokens, options.jacobians, options.iterations),
        site);
  seen_ = std::make_unique<Seen>(options);
}

Diagnostics::~Diagnostics() = default;

ObserverScope Diagnostics::watch() {
  seen_->forget();
  return ObserverScope(seen_.get());
}

std::vector<LayerReport> Diagnostics::layers() const { return seen_->reports(); }

std::string Diagnostics::str() const {
  const auto short_number = [](double x) { return fmt::format("{:.3g}", x); };
  Table of_layers(
      {"layer", "first |dL/dh|", "last |dL/dh|", "largest |J|", "5% tau", "median tau", "95% tau"});
  Table of_gates({"layer", "gate", "saturated"});
  for (const LayerReport& layer : layers()) {
    const auto& norms = layer.gradient_norms;
    const auto& jacobians = layer.jacobian_norms;
    const auto& tau = layer.time_constants;
    of_layers.add({layer.name, norms.empty() ? "" : short_number(norms.front()),
                   norms.empty() ? "" : short_number(norms.back()),
                   jacobians.empty() ? "" : short_number(std::ranges::max(jacobians)),
                   tau ? short_number(tau->p5) : "", tau ? short_number(tau->median) : "",
                   tau ? short_number(tau->p95) : ""});
    for (const GateReport& gate : layer.gates)
      of_gates.add({layer.name, gate.name, fmt::format("{:.1f}%", 100 * gate.saturated)});
  }
  return of_layers.str() + '\n' + of_gates.str();
}

}  // namespace reel::nn
