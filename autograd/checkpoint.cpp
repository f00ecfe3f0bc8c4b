#include <reel/autograd/checkpoint.h>

#include <fmt/format.h>

#include <list>
#include <optional>

#include <reel/autograd/engine/backward.h>
#include <reel/autograd/kernels/flush_subnormals.h>
#include <reel/autograd/precision.h>
#include <reel/autograd/substitution.h>

namespace reel {
using namespace op;
namespace {

// Everything needed to run a function again. A record's attributes point to it.
struct Recomputation {
  detail::CheckpointedFunction f;
  TapeOptions options;                       // of the tapes on which it runs
  std::optional<Rng> rng;                    // its state before the first run
  Precision precision = matmul_precision();  // of the first run
  std::vector<Param> params;                 // those that f used; they are the record's last inputs
  Tensors results;                           // of the first run: only shapes and dtypes
  std::vector<std::size_t> recorded;         // which results are outputs of the record

  // Recomputes the record's outputs from its inputs.
  Tensors run(std::span<const Tensor> inputs) const {
    const kernels::CallersMode mode;
    const PrecisionScope as_in_the_first_run(precision);
    const NoSubstitution as_then;  // what was in place then, `within` puts there
    std::optional<Rng> replay = rng;
    const Tensors again =
        call_part(f, inputs.first(inputs.size() - params.size()), replay ? &*replay : nullptr);
    require_same(again);
    Tensors outputs;
    for (std::size_t k : recorded) outputs.push_back(again[k]);
    return outputs;
  }

 private:
  void require_same(const Tensors& again) const {
    constexpr const char* remedy = "it must compute the same in every run";
    if (again.size() != results.size())
      throw ValueError(
          fmt::format("checkpoint: the function gave {} results, and {} when it ran "
                      "again for the gradient; {}",
                      results.size(), again.size(), remedy));
    for (std::size_t k = 0; k < again.size(); ++k)
      if (again[k].shape() != results[k].shape() || again[k].dtype() != results[k].dtype())
        throw ShapeError(
            fmt::format("checkpoint: result {} of the function was {} {}, and is {} {} "
                        "when it ran again for the gradient; {}",
                        k, name_of(results[k].dtype()), results[k].shape().str(),
                        name_of(again[k].dtype()), again[k].shape().str(), remedy));
  }
};

struct Attributes {
  const Recomputation* recomputation;
};

const Recomputation& recomputation(const void* attr) {
  return *static_cast<const Attributes*>(attr)->recomputation;
}

bool is_on(const Tape& tape, const Tensor& x, Site site = Site(nullptr, 0));

void backward(const BackwardCall& call) {
  const Recomputation& r = recomputation(call.attr);
  const std::size_t input_count = call.inputs.size() - r.params.size();
  Tape tape(r.options);
  Tensors sources;
  for (std::size_t i = 0; i < call.inputs.size(); ++i) {
    const Tensor x = call.inputs[i].detach();
    const bool wanted = call.gradients[i].defined();
    sources.push_back(i < input_count && wanted ? tape.watch(x) : x);
  }
  // A pass over several tapes (Backward::through) may go back to before an update of parameters.
  std::list<ScopedParamValue> as_they_were;
  for (std::size_t p = 0; p < r.params.size(); ++p) {
    const Tensor& then = call.inputs[input_count + p];
    if (!then.buffer().shares(r.params[p].entry()->value.buffer()))
      as_they_were.emplace_back(r.params[p]).assign(then.detach());
  }
  std::vector<std::int32_t> outputs;
  Tensors seeds;
  {
    const Tensors again = r.run(sources);
    for (std::size_t k = 0; k < again.size(); ++k)
      if (is_on(tape, again[k])) {
        outputs.push_back(again[k].trace().slot);
        seeds.push_back(call.seeds[k]);
      }
  }
  for (std::size_t p = 0; p < r.params.size(); ++p)
    sources[input_count + p] = tape.leaf(r.params[p].entry());
  if (tape.parameters().size() != r.params.size())
    throw ValueError(
        fmt::format("checkpoint: the function used parameter {} only when it ran again "
                    "for the gradient; it must compute the same in every run",
                    tape.parameters().back().name()));

  Backward pass(tape, {});
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (call.gradients[i].defined()) pass.want(sources[i].trace().slot);
  pass.hand_on_products([&](std::int32_t slot, const Tensor& left, const Tensor& right) {
    for (std::size_t i = 0; i < sources.size(); ++i)
      if (call.gradients[i].defined() && sources[i].trace().slot == slot)
        call.products.push_back({static_cast<int>(i), left, right});
  });
  pass.run(outputs, seeds);
  for (std::size_t i = 0; i < sources.size(); ++i)
    if (call.gradients[i].defined()) call.gradients[i] = pass.result(sources[i].trace().slot);
}

// Not in the registry: it cannot be called without a function to run.
const OpSpec& checkpoint_op() {
  static const OpSpec op = [] {
    OpSpec spec;
    spec.name = "checkpoint";
    spec.arguments = {{"inputs"}};
    spec.variadic = true;
    spec.attr_size = sizeof(Attributes);
    spec.derivative = OpSpec::Derivative::fused;
    spec.keeps = keeps_inputs;
    spec.backward = {backward, backward};
    spec.specification = [](std::span<const Tensor> in, const void* attr) {
      return recomputation(attr).run(in);
    };
    return spec;
  }();
  return op;
}

// Whether a gradient can reach x on this tape. Throws StaleTensorError if x belongs to another one.
bool is_on(const Tape& tape, const Tensor& x, Site site) {
  return tape.is_differentiable(x, checkpoint_op(), site);
}

void require_defined(const Tensors& inputs, Site site) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!inputs[i].defined())
      throw ValueError(
          fmt::format("checkpoint: input {} is undefined: it was never given a value", i), site);
}

// The first run, on a separate tape, which tells the parameters that f used and which of its
// results are differentiable. Returns the results without their history.
Tensors first_run(Recomputation& r, const Tape& outer, const Tensors& inputs, Rng* rng, Site site) {
  Tape tape(r.options);
  Tensors sources;
  for (const Tensor& x : inputs) {
    sources.push_back(is_on(outer, x, site) ? tape.watch(x) : x.detach());
  }
  Tensors results = call_part(r.f, sources, rng);
  r.params = tape.parameters();
  for (std::size_t k = 0; k < results.size(); ++k) {
    if (is_on(tape, results[k], site)) r.recorded.push_back(k);
    results[k] = results[k].detach();
  }
  return results;
}

// The function with its last inputs in place of the parameters of a substitution. What encloses the
// checkpoint like this is an input as any other, and there again when the function runs again.
detail::CheckpointedFunction within(Substitution::Values values, detail::CheckpointedFunction f) {
  return [values = std::move(values), f = std::move(f)](std::span<const Tensor> in, Rng* rng) {
    const std::size_t own = in.size() - values.size();
    Substitution::Values now = values;
    for (std::size_t k = 0; k < now.size(); ++k) now[k].second = in[own + k];
    const Substitution substitution(std::move(now));
    return f(in.first(own), rng);
  };
}

}  // namespace

Tensors detail::checkpoint(CheckpointedFunction f, const Tensors& inputs, Rng* rng, Site site) {
  site = SiteScope::resolve(site);
  require_defined(inputs, site);
  Tape* const tape = Tape::current();
  if (!tape) return call_part(f, inputs, rng);
  Tensors sources = inputs;
  if (Substitution::Values values = Substitution::current(); !values.empty()) {
    for (const auto& [entry, value] : values) sources.push_back(value);
    f = within(std::move(values), std::move(f));
  }

  const auto r = std::make_shared<Recomputation>();
  r->f = std::move(f);
  r->options.check_finite = tape->options().check_finite;
  if (rng) r->rng = *rng;
  std::optional<Rng> drawn = r->rng;  // so that the caller's generator does not advance if f throws
  const auto begin = Profile::TimePoint::now();
  Tensors results;
  try {
    results = first_run(*r, *tape, sources, drawn ? &*drawn : nullptr, site);
  } catch (const StaleTensorError& e) {
    throw StaleTensorError(
        fmt::format("{}; what was recorded outside of a checkpoint has to be one of its inputs",
                    e.what()),
        site);
  }
  if (rng) *rng = *drawn;
  if (r->recorded.empty()) return results;

  Tensors outputs;
  for (const Param& p : r->params) sources.push_back(tape->leaf(p.entry()));
  std::vector<const Tensor*> pointers;
  for (const Tensor& x : sources) pointers.push_back(&x);
  for (const Tensor& y : results) r->results.push_back(Tensor(Buffer(), y.shape(), y.dtype()));
  for (std::size_t k : r->recorded) outputs.push_back(results[k]);
  if (tape->options().profile) tape->add_to_profile(checkpoint_op(), outputs, begin);
  const Attributes attributes{r.get()};
  tape->hold(r);
  tape->record(checkpoint_op(), pointers, outputs, &attributes, site);
  for (std::size_t k = 0; k < outputs.size(); ++k) results[r->recorded[k]] = outputs[k];
  return results;
}

}  // namespace reel
