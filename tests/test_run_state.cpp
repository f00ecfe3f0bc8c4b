#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include <reel/autograd/ops.h>
#include <reel/nn/files/safetensors.h>
#include <reel/optim/run_state.h>

#include "golden_directory.h"
#include "temporary_directory.h"

using namespace reel;
using optim::RunState;

namespace {

RunState example() {
  RunState checkpoint;
  checkpoint.params.tensors["head.w"] = tensor({2, 2}, {1, -2, 0.1, 1e-30}, f64);
  checkpoint.params.tensors["head.b"] = tensor({2}, {1, 2});
  checkpoint.optimizer.tensors["adam.steps.head.w"] = scalar(7, f64);
  checkpoint.optimizer.tensors["adam.m.head.w"] = zeros({2, 2}, f64);
  checkpoint.more.tensors["ema.values.head.w"] = full({2, 2}, 3, f64);
  for (int i = 0; i < 12; ++i) checkpoint.carried.push_back(full({1, 3}, i));
  for (int i = 0; i < 12; ++i) {
    checkpoint.earlier.push_back(checkpoint.params);
    checkpoint.earlier.back().tensors["head.b"] = full({2}, i);
  }
  checkpoint.rng = {.seed = UINT64_MAX, .stream = 0x123456789ABCDEF1, .position = 3};
  checkpoint.numbers = {{"step", 12}, {"loss", 0.1}, {"best", INFINITY}, {"tiny", 5e-324}};
  checkpoint.texts = {{"config", "{\"é\": \"\n\"}"}};
  return checkpoint;
}

void check_equal(const nn::NamedTensors& a, const nn::NamedTensors& b) {
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (const auto& [name, value] : a.tensors) {
    CHECK(b[name].dtype() == value.dtype());
    CHECK(b[name].shape() == value.shape());
    CHECK(b[name].to_vector() == value.to_vector());
  }
}

}  // namespace

TEST_CASE("a checkpoint is restored exactly") {
  const TemporaryDirectory directory;
  const RunState before = example();
  save_run_state(directory / "run", before);
  const RunState after = optim::load_run_state(directory / "run");
  check_equal(before.params, after.params);
  check_equal(before.optimizer, after.optimizer);
  check_equal(before.more, after.more);
  REQUIRE(after.carried.size() == 12);
  for (int i = 0; i < 12; ++i) CHECK(after.carried[static_cast<std::size_t>(i)].at({0, 2}) == i);
  REQUIRE(after.earlier.size() == 12);
  for (std::size_t i = 0; i < 12; ++i) check_equal(before.earlier[i], after.earlier[i]);
  CHECK(after.rng == before.rng);
  CHECK(after.numbers == before.numbers);
  CHECK(after.texts == before.texts);
  CHECK(after.number("loss") == 0.1);
  CHECK(contains(message_of<ValueError>([&] { after.number("lost"); }),
                 "the checkpoint has no number \"lost\" (" __FILE__ ":"));
}

TEST_CASE("a carried state that was never given a value is refused, and no file written") {
  const TemporaryDirectory directory;
  RunState state = example();
  state.carried[3] = Tensor();
  CHECK(contains(message_of<ValueError>([&] { save_run_state(directory / "run", state); }),
                 "save_run_state: the carried state has an undefined tensor; leave `carried` empty "
                 "at the beginning of a sequence (" __FILE__ ":"));
  CHECK(directory.count() == 0);
}

TEST_CASE("a checkpoint of version 0.1.0, with a checksum without shapes, is read") {
  const auto path = std::filesystem::path(REEL_GOLDEN_DIR) / "run_state_v1.safetensors";
  const RunState state = optim::load_run_state(path);
  CHECK(state.params["head.b"].to_vector() == std::vector<double>{1, 2});
  CHECK(state.number("step") == 12);
  const TemporaryDirectory directory;
  nn::NamedTensors content = nn::load_safetensors(path);
  content.tensors["head.b"] = tensor({2}, {1, 3});
  nn::save_safetensors(directory / "a", content);
  CHECK(contains(message_of<FileError>([&] { optim::load_run_state(directory / "a"); }),
                 "a: it is damaged"));
  save_run_state(directory / "a", state);
  CHECK(nn::load_safetensors(directory / "a").metadata["run.checksum"].starts_with("2 "));
}

TEST_CASE("equal checkpoints make equal files, and other programs find the weights by name") {
  const TemporaryDirectory directory;
  save_run_state(directory / "a", example());
  save_run_state(directory / "b", optim::load_run_state(directory / "a"));
  CHECK(content_of(directory / "a") == content_of(directory / "b"));
  CHECK(nn::load_safetensors(directory / "a")["head.b"].to_vector() == std::vector<double>{1, 2});
}

TEST_CASE("names that a checkpoint keeps for itself are refused") {
  const TemporaryDirectory directory;
  RunState parameter = example(), text = example();
  parameter.params.tensors["run.w"] = ones({1});
  text.texts["run.rng"] = "1 2 3";
  for (const RunState& checkpoint : {parameter, text})
    CHECK(contains(message_of<ValueError>([&] { save_run_state(directory / "a", checkpoint); }),
                   "a name that does not begin with \"run.\""));
  CHECK(directory.count() == 0);
}

TEST_CASE("a file that is not a checkpoint, or a damaged one, is refused") {
  const TemporaryDirectory directory;
  const auto message = [&] {
    return message_of<FileError>([&] { optim::load_run_state(directory / "a"); });
  };
  save_run_state(directory / "a", example());
  nn::NamedTensors content = nn::load_safetensors(directory / "a");
  const auto with = [&](const std::string& key, const std::string& text) {
    nn::NamedTensors changed = content;
    changed.metadata.erase("run.checksum");
    changed.metadata[key] = text;
    nn::save_safetensors(directory / "a", changed);
    return message();
  };
  CHECK(contains(with("run.rng", "1 2"), "not three whole numbers"));
  CHECK(contains(with("run.rng", "1 2 -3"), "not three whole numbers"));
  CHECK(contains(with("run.number.step", "12 "), "run.number.step is not a number"));
  CHECK(contains(with("run.number.step", "0x"), "run.number.step is not a number"));
  CHECK(with("config", "another, but no checksum either") == "nothing was thrown");

  nn::NamedTensors gap = content;
  gap.metadata.erase("run.checksum");
  for (const char* name : {"head.w", "head.b"}) {
    auto entry = gap.tensors.extract(fmt::format("run.earlier.5.{}", name));
    entry.key() = fmt::format("run.earlier.12.{}", name);
    gap.tensors.insert(std::move(entry));
  }
  nn::save_safetensors(directory / "a", gap);
  CHECK(contains(message(), "its tensors run.earlier... are not numbered from 0 on"));

  SUBCASE("a changed number") { content.tensors["head.b"] = tensor({2}, {1, 2.0000002}); }
  SUBCASE("a changed text") { content.metadata["config"] = ""; }
  SUBCASE("another shape") {
    content.tensors["head.w"] = reshape(content.tensors["head.w"], {1, 4});
  }
  SUBCASE("another dtype") {
    content.tensors["run.carried.1"] = zeros({1, 3}, i32);  // the same number of zero bytes
    content.tensors["run.carried.0"] = zeros({1, 3}, i32);
  }
  SUBCASE("tensors that changed places") {
    std::swap(content.tensors["run.carried.1"], content.tensors["run.carried.2"]);
  }
  nn::save_safetensors(directory / "a", content);
  CHECK(contains(message(), "a: it is damaged"));

  content.metadata.clear();
  nn::save_safetensors(directory / "a", content);
  CHECK(contains(message(), "a: it is not a checkpoint"));
}
