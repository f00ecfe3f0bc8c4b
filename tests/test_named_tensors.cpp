// Named tensors: parts, and what goes in and out of parameters.
#include <doctest/doctest.h>

#include <reel/nn/files/safetensors.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using namespace reel::nn;
using testing::same_bits;

TEST_CASE("named tensors: parts are taken out and put in by prefix") {
  NamedTensors all, inner;
  inner.tensors = {{"w", ones({1})}, {"b", zeros({2})}};
  all.insert("lstm.", inner);
  all.insert("", inner);
  CHECK(all.tensors.size() == 4);
  CHECK(all["lstm.b"].shape() == Shape{2});
  CHECK(all.part("lstm.").tensors.size() == 2);
  CHECK(all.part("lstm.")["w"].buffer().shares(inner["w"].buffer()));
  CHECK(all.part("gru.").tensors.empty());
  NamedTensors clash;
  clash.tensors = {{"a", ones({1})}, {"w", ones({1})}};
  CHECK(testing::message_without_line<ValueError>([&] { all.insert("lstm.", clash); }) ==
        "there is a tensor lstm.w already");
  CHECK(all.tensors.size() == 4);
}

namespace {

Tensor drawn(Rng& rng, const Shape& shape, DType dtype) { return rng.normal(shape, 0, 1, dtype); }

Params model(std::uint64_t seed, DType dtype = f32) {
  Params params(seed, dtype);
  (params / "lstm").create("w", {2, 3}, drawn);
  (params / "lstm").create("b", {3}, drawn);
  params.create("out", {3, 1}, drawn);
  return params;
}

}  // namespace

TEST_CASE("params: saved and loaded under their names") {
  const TemporaryDirectory directory;
  for (const DType dtype : {f32, f64}) {
    const Params trained = model(1, dtype), fresh = model(2, dtype);
    save_safetensors(directory / "model", from_params(trained));
    load_params(load_safetensors(directory / "model"), fresh);
    for (const Param& param : trained.list())
      CHECK(same_bits(fresh[param.name()].value(), param.value()));
    CHECK(fresh["out"].entry()->version == 1);
  }
}

TEST_CASE("params: a snapshot keeps its values, a part has its full names") {
  const Params params = model(1);
  const NamedTensors snapshot = from_params(params);
  const double before = snapshot["out"].at({0, 0});
  params["out"].edit<float>()[0] += 1;
  CHECK(snapshot["out"].at({0, 0}) == before);
  // Also where a span of the numbers is still written to.
  const std::span<float> kept = params["out"].edit<float>();
  const NamedTensors later = from_params(params);
  const double now = later["out"].at({0, 0});
  kept[0] += 1;
  CHECK(later["out"].at({0, 0}) == now);
  const NamedTensors part = from_params(params / "lstm");
  CHECK(part.tensors.size() == 2);
  load_params(part, model(2) / "lstm");
}

TEST_CASE("params: tensors that do not fit change nothing") {
  const Params params = model(1);
  const NamedTensors before = from_params(params), other = from_params(model(2));
  const auto check_unchanged = [&] {
    for (const Param& param : params.list()) {
      CHECK(same_bits(param.value(), before[param.name()]));
      CHECK(param.entry()->version == 0);
    }
  };
  NamedTensors bad = other;
  bad.tensors.erase("out");
  CHECK(contains(message_of<ValueError>([&] { load_params(bad, params); }),
                 "the model's parameters out are not among the tensors"));
  bad = other;
  bad.tensors.emplace("surplus", ones({1}));
  CHECK(contains(message_of<ValueError>([&] { load_params(bad, params); }),
                 "the tensors surplus belong to no parameter"));
  CHECK(
      contains(message_of<ValueError>([&] { load_params(other, params / "lstm"); }), "out belong"));
  bad = other;
  bad.tensors["out"] = ones({3});
  CHECK(message_of<ShapeError>([&] { load_params(bad, params, Site("load.cpp", 7)); }) ==
        "load_params: out has shape [3], but the model's parameter [3, 1] (load.cpp:7)");
  bad.tensors["out"] = ones({3, 1}, f64);
  CHECK(message_of<DTypeError>([&] { load_params(bad, params, Site("load.cpp", 8)); }) ==
        "load_params: out is f64, but the model's parameter f32; build the model in the same dtype "
        "(load.cpp:8)");
  CHECK(contains(message_of<ValueError>([&] { load_params({}, params); }),
                 "lstm.w, lstm.b, out are not"));
  NamedTensors many;
  for (const char* name : {"a", "b", "c", "d", "e"}) many.tensors.emplace(name, ones({1}));
  CHECK(
      contains(message_of<ValueError>([&] { load_params(many, Params()); }), "a, b, c and 2 more"));
  check_unchanged();
}
