// What has to be one for the program and the library, shared or not, whatever the program's flags.
#include "border.h"

#include <reel/autograd/engine/op.h>
#include <reel/nn/cells/unit_cell.h>
#include <reel/reel.h>

#include <cmath>
#include <cstdio>

using namespace reel;

namespace {

struct Refusal {};  // an error of the program's own

struct Leaky {
  static constexpr const char* name = "leaky";
  static constexpr kernels::CellLayout layout{.sums = 1, .states = 1};
  static auto unit(const auto& sums, const auto& before) {
    return std::tuple(0.5 * std::get<0>(before) + 0.5 * tanh(std::get<0>(sums)));
  }
};

const op::Op<> twice_op{{
    .name = "twice",
    .arguments = {"x"},
    .shape = op::same_shape,
    .forward =
        []<Real T>(op::Ctx<T> c) {
          for (std::size_t i = 0; i < c.out().size(); ++i) c.out()[i] = 2 * c.in(0)[i];
        },
    .gradient =
        op::rule([](op::Vjp& v) { v.add(0, [&] { return 2 * v.g(); }); }, op::keeps_nothing),
    .samples = {op::normal({3, 4})},
}};

std::string errors() {
  try {
    const PlaceScope place({.module = "border", .step = 3});
    matmul(ones({2, 3}), ones({4, 5}));
    return "no error";
  } catch (const ShapeError& e) {
    if (std::string_view(e.what()).find("in module border, time step 3") == std::string::npos)
      return std::string("the place is missing: ") + e.what();
  }
  try {
    nn::load_safetensors("/missing.safetensors");
    return "no error of a file";
  } catch (const std::runtime_error& e) {
    if (!dynamic_cast<const Error*>(&e)) return "an Error is not one";
  }
  try {  // through the library and back
    vjp([](std::span<const Tensor>) -> Tensor { throw Refusal(); }, {ones({2})}, ones({2}));
    return "no error of the program";
  } catch (const Refusal&) {
  }
  return "";
}

std::string tapes(const Tape& tape) {
  if (Tape::current() != &tape) return "the tape of another file is not current here";
  Tape own;
  const Tensor x = own.watch(full({3}, 2));
  const Tensor y = sum(twice_op({&x}, Site()) * x);
  if (own.size() != 3) return "the library records on another tape";
  if (own.gradient(y, {x})[0].at({1}) != 8) return "the gradient is wrong";
  return "";
}

std::string cells() {
  Params params(1);
  const nn::Unroll<nn::UnitCell<Leaky>> layer(params / "leaky", 2, 3);
  return layer(ones({4, 1, 2})).y.shape() == Shape{4, 1, 3} ? ""
                                                            : "the cell computes another shape";
}

std::string versions() {
  char text[32];
  std::snprintf(text, sizeof text, "%d.%d.%d", version_major, version_minor, version_patch);
  return version() == text ? "" : "the library has another version than its headers";
}

}  // namespace

std::string broken_at_the_border(const Tape& tape) {
  for (const std::string& failure : {errors(), tapes(tape), cells(), versions()})
    if (!failure.empty()) return failure;
  return "nothing";
}
