#include <reel/autograd/ops/recurrent_samples.h>

namespace reel::op {
namespace {

using kernels::CellLayout;

struct SampleSizes {
  Index steps, rows, features, units, output;
};

SampleInputs sample_inputs(const CellLayout& layout, const OptionalParameters& takes,
                           const SampleSizes& sizes, bool full, bool both) {
  const auto [steps, rows, features, n, output] = sizes;
  SampleInputs in{{normal({steps, rows, features}), full ? lengths({rows}, steps) : absent()}};
  for (int direction = 0; direction < 2; ++direction) {
    const auto add = [&](bool given, const Generator& input) {
      in.inputs.push_back(given && (direction == 0 || both) ? input : absent());
    };
    add(true, normal({layout.inputs * n, features}));
    if (takes.w_hh) add(true, normal({layout.recurrent_blocks() * n, output}));
    add(full, normal({layout.inputs * n}));
    if (takes.recurrent_bias) add(full && layout.recurrent_bias >= 0, normal({n}));
    if (takes.numbers) add(layout.numbers() > 0, normal({layout.numbers() * n}));
    if (takes.projection) add(output < n, normal({output, n}));
    add(full, normal({rows, output}));
    for (int k = 1; k < layout.states; ++k)
      add(full, k == 2 ? uniform({rows, n}, 0.5, 2) : normal({rows, n}));
  }
  return in;
}

// What the cell allows, all at once.
kernels::StepOptions all_options(const CellLayout& layout) {
  kernels::StepOptions options{.zoneout_h = 0.3, .training = true, .rng = {1, 2, 3}};
  if (layout.states == 2) options.zoneout_c = 0.2;
  if (layout.recurrent.count > 0) options.hidden_dropout = 0.4;
  if (layout.constants > 0) options.update_dropout = 0.25;
  if (layout.constants > 1) options.cell_bound = 0.75;
  return options;
}

}  // namespace

std::vector<Samples<CellCall>::Item> samples_of(const CellSpec& cell,
                                                const OptionalParameters& takes, bool first) {
  const CellLayout& layout = cell.layout;
  std::vector<Samples<CellCall>::Item> samples;
  const auto sample = [&](const SampleSizes& sizes, bool full, CellCall call) {
    call.takes = &takes;
    samples.emplace_back(sample_inputs(layout, takes, sizes, full, call.both).attr(call));
  };
  const Index units = layout.projects ? 3 : 2;  // with two numbers of h, a projection
  const kernels::StepOptions drawn = all_options(layout);
  kernels::StepOptions mixed = drawn;
  mixed.training = false;
  sample({4, 3, 1, 2, 2}, true, {&cell, true});
  sample({4, 3, 2, units, 2}, true, {&cell, false, true, drawn});
  sample({3, 2, 2, 2, 2}, false, {&cell, false, false, mixed});
  if (!first) return samples;
  sample({3, 2, 2, 3, 3}, true, {&cell});
  sample({2, 2, 2, 1, 1}, false, {&cell});
  sample({3, 9, 2, units, 2}, true, {&cell, true, true});
  sample({2, 0, 2, 2, 2}, false, {&cell});
  return samples;
}

}  // namespace reel::op
