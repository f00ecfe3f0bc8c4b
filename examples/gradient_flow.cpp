// How gradients flow back through time: |dL/dh_t| of a new vanilla RNN, a GRU and LSTMs over 200
// steps, where the loss depends on the last step alone. Writes a table, and a chart as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <reel/reel.h>

using namespace reel;

namespace {

constexpr Index steps = 200, rows = 16, features = 8, units = 64;

constexpr std::string_view help =
    "usage: gradient_flow [FILE]\n\n"
    "Prints |dL/dh_t| of a vanilla RNN, a GRU and LSTMs at some of 200 steps, for a loss of\n"
    "the last step, and draws it for all steps in FILE [gradient_flow.svg].\n";

struct Curve {
  std::string name;
  nn::LayerReport report;
  double at(Index back) const {  // so many steps before the loss
    return report.gradient_norms[static_cast<std::size_t>(steps - 1 - back)];
  }
};

// [watch]
template <class L, class... Options>
Curve curve_of(const std::string& name, const Options&... options) {
  const Params params(1, f64);  // in f32 the smallest gradients would be 0
  const L layer(params / "rnn", features, units, options...);
  const nn::Linear head(params / "head", units, 1);
  const Tensor x = Rng(2).normal({steps, rows, features}, 0, 1, f64);

  nn::Diagnostics diagnostics;
  const auto watch = diagnostics.watch();
  Tape tape;
  const Tensor last = select(layer(x).y, 0, steps - 1);
  tape.gradient(mse(head(last), ones({rows, 1}, f64)), params);
  return {name, diagnostics.layers().at(0)};
}
// [/watch]

void print(const std::vector<Curve>& curves) {
  fmt::print("\n");
  const auto line = [&](const std::string& title, auto cell) {
    fmt::print("{:<16}", title);
    for (const Curve& curve : curves) fmt::print("{:>20}", cell(curve));
    fmt::print("\n");
  };
  line("|dL/dh_t|", [](const Curve& curve) { return curve.name; });
  for (const Index back : {0, 10, 50, 100, 199})
    line(back == 0 ? "t = T" : fmt::format("t = T - {}", back),
         [&](const Curve& curve) { return fmt::format("{:.1e}", curve.at(back)); });
  line("|Jacobian|", [](const Curve& curve) {
    return fmt::format("{:.2f}", std::ranges::max(curve.report.jacobian_norms));
  });
  line("median tau", [](const Curve& curve) {
    const auto& tau = curve.report.time_constants;
    return tau ? fmt::format("{:.1f} steps", tau->median) : "-";
  });
}

// The chart: its x axis is the distance from the loss, its y axis the power of ten.
struct Chart {
  static constexpr double left = 64, top = 44, width = 520, height = 320;
  double lowest;  // power of ten

  double x(Index back) const {
    return left + width * static_cast<double>(back) / static_cast<double>(steps);
  }
  double y(double power) const { return top + height * power / lowest; }

  std::string axes() const {
    std::string text;
    for (double power = 0; power >= lowest; power -= 10)
      text += fmt::format(
          "<path class=\"grid\" d=\"M{0} {1:.1f}h{2}\"/>\n"
          "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
          left, y(power), width, left - 8, y(power) + 4,
          power == 0 ? "1" : fmt::format("1e{}", power));
    for (Index back = 0; back <= steps; back += 50)
      text += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(back),
                          top + height + 20, back);
    return text + fmt::format(
                      "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">steps before the "
                      "loss</text>\n",
                      left + width / 2, top + height + 42);
  }
  std::string line(const Curve& curve, std::string_view color) const {
    std::string path;
    Index back = 0;
    for (; back < steps && std::log10(curve.at(back)) > lowest; ++back)
      path += fmt::format("{}{:.1f} {:.1f}", back == 0 ? "M" : "L", x(back),
                          y(std::log10(curve.at(back))));
    return fmt::format(
        "<path class=\"line\" stroke=\"{0}\" d=\"{1}\"/>\n<text x=\"{2:.1f}\" y=\"{3:.1f}\" "
        "fill=\"{0}\">{4}</text>\n",
        color, path, x(back) + 6, y(std::log10(curve.at(back - 1))) + 4, curve.name);
  }
};

void draw(const std::vector<Curve>& curves, const std::string& path) {
  double lowest = 0;
  for (const Curve& curve : curves)
    lowest = std::min(lowest, 10 * std::floor(std::log10(curve.at(steps - 1)) / 10));
  const Chart chart{std::clamp(lowest, -100.0, -10.0)};
  std::ofstream file(path);
  file << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"740\" height=\"420\" "
          "font-family=\"sans-serif\" font-size=\"13\">\n"
          "<style>.grid{stroke:#ddd}.line{fill:none;stroke-width:2}</style>\n"
          "<rect width=\"740\" height=\"420\" fill=\"white\"/>\n"
          "<text x=\"64\" y=\"24\" font-size=\"15\">|dL/dh_t| of new networks, for a loss of the "
          "last step</text>\n"
       << chart.axes();
  constexpr std::string_view colors[] = {"#c0392b", "#2471a3", "#1e8449", "#7d3c98"};
  for (std::size_t i = 0; i < curves.size(); ++i) file << chart.line(curves[i], colors[i]);
  file << "</svg>\n";
  file.close();
  if (!file) throw FileError(path + ": the chart cannot be written there");
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string argument = argc > 1 ? argv[1] : "gradient_flow.svg";
  if (argument == "--help") return std::cout << help, 0;
  if (argc > 2 || argument.starts_with('-')) throw ValueError("give one FILE; see --help");
  std::vector<Curve> curves;
  const auto add = [&](Curve curve) {
    std::cout << "differentiated " << curve.name << '\n';
    curves.push_back(std::move(curve));
  };
  add(curve_of<nn::Rnn>("vanilla RNN"));
  add(curve_of<nn::Gru>("GRU"));
  add(curve_of<nn::Lstm>("LSTM"));
  add(curve_of<nn::Lstm>("LSTM, forget bias 5", nn::LstmOptions{.forget_bias = 5}));
  print(curves);
  draw(curves, argument);
  std::cout << "\nThe curves are in " << argument << ".\n";
} catch (const std::exception& error) {
  return std::cerr << "gradient_flow: " << error.what() << '\n', 1;
}
