// Names that are not there: what the message suggests.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include <reel/autograd/message.h>
#include <reel/nn/init.h>
#include <reel/nn/named_tensors.h>

#include "testing.h"

using namespace reel;
using nn::NamedTensors;
using testing::error_of;

namespace {

NamedTensors named(std::initializer_list<const char*> names) {
  NamedTensors result;
  for (const char* name : names) result.tensors.emplace(name, ones({1}));
  return result;
}

Params with_parameters(std::initializer_list<const char*> names) {
  const Params params;
  for (const char* name : names) params.create(name, {1}, nn::init::constant(0));
  return params;
}

}  // namespace

TEST_CASE("a suggestion has the nearest name, and as many as a line holds") {
  CHECK(suggestion("w", {}) == "; there are none");
  CHECK(suggestion("w_hj", {"b", "w_hh", "w_ih"}) ==
        "; did you mean w_hh? There are: b, w_hh, w_ih");
  CHECK(suggestion("gain", {"b", "w_hh"}) == "; there are: b, w_hh");
  CHECK(suggestion("", {"b"}) == "; there are: b");
  std::vector<std::string> many;
  for (int i = 0; i < 15; ++i) many.push_back(fmt::format("{}", i));
  CHECK(suggestion("none", many) == "; there are: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more");
  CHECK(nearest("weihgt", {"weight_2", "weight"}) == "weight");
  CHECK_FALSE(nearest("w", {"bias"}));
  CHECK_FALSE(nearest("w", {}));
}

TEST_CASE("names in a suggestion are cut off and do nothing to a terminal") {
  const std::string text = suggestion("a", {std::string(1 << 20, 'x'), "b\n\x1b[31m"});
  CHECK(text == "; there are: " + std::string(80, 'x') + "..., b\\n\\u001b[31m");
  CHECK(suggestion("bc", {"b\n"}) == "; did you mean b\\n? There are: b\\n");
}

TEST_CASE("a tensor that is not there is answered with what is") {
  NamedTensors content = named({"embed.w", "head.b", "head.w"});
  const auto answer = [](const NamedTensors& tensors, const char* name) {
    return testing::message_without_line<ValueError>([&] { tensors[name]; });
  };
  CHECK(answer(content, "haed.w") ==
        "there is no tensor haed.w; did you mean head.w? There are: embed.w, head.b, head.w");
  CHECK(answer(content, "optimizer") ==
        "there is no tensor optimizer; there are: embed.w, head.b, head.w");
  CHECK(answer(content, "a\nb").starts_with("there is no tensor a\\nb; there are: "));
  content.unread.emplace("tail", "its dtype is F4, which is unknown");
  CHECK(answer(content, "tial") ==
        "there is no tensor tial; did you mean tail? There are: embed.w, head.b, head.w, tail");
  CHECK(answer(NamedTensors(), "w") == "there is no tensor w; there are none");
}

TEST_CASE("load_params suggests the tensor whose name is nearest to a missing one") {
  const Params params = with_parameters({"embed.w", "head.w", "head.b"});
  const auto message = [&](std::initializer_list<const char*> names) {
    return error_of<ValueError>([&] { nn::load_params(named(names), params, Site("a.cpp", 7)); });
  };
  CHECK(message({"embed.w", "head.w", "haed.b"}) ==
        "load_params: the model's parameters head.b are not among the tensors; did you mean "
        "haed.b, or was the model built with other settings? (a.cpp:7)");
  CHECK(message({"embed.w", "haed.w", "haed.b"}) ==
        "load_params: the model's parameters head.w, head.b are not among the tensors; did you "
        "mean haed.w for head.w, or was the model built with other settings? (a.cpp:7)");
  // Those that another parameter has are not suggested.
  CHECK(message({"embed.w", "head.w"}) ==
        "load_params: the model's parameters head.b are not among the tensors; was it built with "
        "the same settings? (a.cpp:7)");
  CHECK(message({"embed.w", "head.w", "decoder"}) ==
        "load_params: the model's parameters head.b are not among the tensors; was it built with "
        "the same settings? (a.cpp:7)");
  for (const Param& param : params.list()) CHECK(param.value().item() == 0);
}

TEST_CASE("a parameter that is not there is named in one line") {
  const Params params = with_parameters({"head.w", "head.b"});
  CHECK(
      error_of<ValueError>([&] {
        params[{"head.w\n", Site("a.cpp", 7)}];
      }) ==
      "there is no parameter head.w\\n; did you mean head.w? There are: head.w, head.b (a.cpp:7)");
}
