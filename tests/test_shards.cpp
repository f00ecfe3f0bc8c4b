// Models in several safetensors files with an index.
#include <doctest/doctest.h>

#include <reel/reel.h>

#include "temporary_directory.h"
#include "testing.h"

using namespace reel;

TEST_CASE("shards: the files of an index are one model") {
  const TemporaryDirectory directory;
  nn::NamedTensors first, second;
  first.tensors = {{"a", ones({2})}, {"b", zeros({3})}};
  second.tensors = {{"c", full({1}, 5)}};
  nn::save_safetensors(directory / "model-1.safetensors", first);
  nn::save_safetensors(directory / "model-2.safetensors", second);
  const auto index = [&](const std::string& map) {
    return directory.file("model.safetensors.index.json",
                          R"({"metadata": {"total_size": 24}, "weight_map": )" + map + "}");
  };
  const std::string one = R"("model-1.safetensors")", two = R"("model-2.safetensors")";
  const nn::NamedTensors all = nn::load_sharded_safetensors(
      index(R"({"a": )" + one + R"(, "b": )" + one + R"(, "c": )" + two + "}"));
  CHECK(all.tensors.size() == 3);
  CHECK(all["c"].item() == 5);

  const auto refusal = [&](const std::filesystem::path& path) {
    return testing::message_without_line<FileError>([&] { nn::load_sharded_safetensors(path); });
  };
  const auto ends = [](const std::string& text, const std::string& end) {
    CAPTURE(text);
    CHECK(text.ends_with(end));
  };
  ends(refusal(index(R"({"a": )" + one + R"(, "b": )" + one + R"(, "d": )" + two + "}")),
       ": \"model-2.safetensors\" does not have \"d\"");
  ends(refusal(index(R"({"a": )" + one + "}")),
       ": \"model-1.safetensors\" has tensors that are not in the index");
  ends(refusal(index(R"({"a": "model-3.safetensors"})")),
       "model-3.safetensors: cannot read: No such file or directory");
  ends(refusal(index(R"({"a": "../model-1.safetensors"})")),
       ": the file of \"a\" is \"../model-1.safetensors\", which is not beside the index");
  ends(refusal(index("[1]")), ": it is no index of safetensors files: it has no weight_map");
  ends(refusal(index(R"({"a": 3})")), ": the file of \"a\" is not a name");
  ends(refusal(directory.file("deep.index.json", std::string(100'000, '['))),
       ": it is no index of safetensors files: it has no weight_map");
}
