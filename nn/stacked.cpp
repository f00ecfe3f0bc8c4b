#include <reel/nn/stacked.h>

#include <fmt/format.h>

#include <reel/autograd/engine/scope.h>
#include <reel/autograd/ops.h>
#include <reel/nn/init.h>

namespace reel::nn {
namespace {

template <class... Args>
[[noreturn]] void fail(const ModuleParams& p, fmt::format_string<Args...> text, Args&&... args) {
  throw ValueError(fmt::format("{}: {}", module_name(p, "Stacked"),
                               fmt::format(text, std::forward<Args>(args)...)),
                   SiteScope::current());
}

void check_fit(const ModuleParams& p, Connection connection,
               std::span<const StackLinks::LayerSizes> sizes) {
  for (std::size_t i = 1; i < sizes.size(); ++i) {
    const Index below = sizes[i - 1].output, above = sizes[i].output;
    if (sizes[i].input && *sizes[i].input != below)
      fail(p, "layer {} takes {} features, but layer {} gives {}", i, *sizes[i].input, i - 1,
           below);
    if (connection != Connection::none && below != above)
      fail(p,
           "a {} connection needs an output of the size of the input, but layer {} has {} outputs "
           "and {} inputs",
           connection == Connection::residual ? "residual" : "highway", i, above, below);
  }
}

}  // namespace

StackLinks::StackLinks(const ModuleParams& p, const StackOptions& options,
                       std::span<const LayerSizes> sizes)
    : dropout(options.dropout), connection(options.connection) {
  check_fit(p, connection, sizes);
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) {
    const Index size = sizes[i].output;
    if (options.layer_norm) norms.emplace_back(p / fmt::format("norm{}", i), size);
    if (connection == Connection::highway)
      gates.emplace_back(p / fmt::format("highway{}", i + 1), size, size,
                         LinearOptions{.bias_init = init::constant(-1)});
  }
}

Tensor StackLinks::input(std::size_t i, const Tensor& below, const SequenceOptions& options) const {
  if (i == 0 || norms.empty()) return below;
  const Tensor normed = norms[i - 1](below);
  return options.lengths ? with_zero_padding(normed, *options.lengths) : normed;
}

Tensor StackLinks::dropped(std::size_t i, const Tensor& x, const Mode& mode) const {
  return i == 0 ? x : dropout(x, mode);
}

Tensor StackLinks::output(std::size_t i, const Tensor& x, const Tensor& y) const {
  if (i == 0 || connection == Connection::none || !y.defined()) return y;
  return connection == Connection::residual ? y + x : lerp(x, y, sigmoid(gates[i - 1](x)));
}

namespace detail {

std::vector<Index> stack_widths(const ModuleParams& p, Index input_size, Index hidden_size,
                                const StackOptions& options, std::size_t types) {
  const Index given = static_cast<Index>(options.widths.size());
  const Index fixed = types > 1 ? static_cast<Index>(types) : given;
  const Index layers = options.layers ? *options.layers : fixed > 0 ? fixed : 2;
  begin_module(p, "Stacked",
               {{"input_size", input_size}, {"hidden_size", hidden_size}, {"layers", layers}});
  require_rate("Dropout", options.dropout, SiteScope::current());
  if (types > 1 && layers != fixed) fail(p, "{} layers, but {} types of layers", layers, types);
  if (given == 0) return std::vector<Index>(static_cast<std::size_t>(layers), hidden_size);
  if (given != layers) fail(p, "{} widths for {} layers", given, layers);
  for (Index width : options.widths) begin_module(p, "Stacked", {{"every width", width}});
  if (options.widths.back() != hidden_size)
    fail(p, "hidden_size is {}, but the last of the widths {}; both are that of the last layer",
         hidden_size, options.widths.back());
  return options.widths;
}

void check_made(const ModuleParams& p, const StackOptions& options, std::size_t layers) {
  if (layers == 0) fail(p, "there are no layers");
  if (options.layers || !options.widths.empty())
    fail(p, "the layers exist already: leave out their number and widths");
}

}  // namespace detail
}  // namespace reel::nn
