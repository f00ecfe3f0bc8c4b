// ONNX files whose weights are in other files.
#include <doctest/doctest.h>

#include <reel/nn/exchange/onnx_file.h>
#include <reel/nn/exchange/onnx_import.h>
#include <reel/nn/exchange/protobuf.h>
#include <reel/reel.h>

#include "fuzz/memory_file.h"
#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using nn::onnx::Type;
using nn::protobuf::Writer;

namespace {

using Entries = std::vector<std::pair<std::string, std::string>>;

// A model x [T, B, 2] -> x w -> y of which w [2, 3] is where the entries say. Its graph is given in
// two messages, as protocol buffers allow.
std::string model_with(const Entries& entries, Type type = Type::f32) {
  nn::onnx::Model model;
  model.opset = 17;
  model.inputs = {{"x", Type::f32, {"T", "B", "2"}}};
  model.outputs = {{"y", Type::f32, {"T", "B", "3"}}};
  model.nodes = {{"MatMul", "product", {"x", "w"}, {"y"}}};
  Writer array, graph, more;
  array.integer(1, 2);
  array.integer(1, 3);
  array.integer(2, static_cast<std::int64_t>(type));
  array.text(8, "w");
  for (const auto& [key, value] : entries) {
    Writer entry;
    entry.text(1, key);
    entry.text(2, value);
    array.message(13, entry);
  }
  array.integer(14, 1);
  graph.message(5, array);
  more.message(7, graph);
  return nn::onnx::encoded(model) + more.take();
}

std::string bytes_of(std::vector<float> numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float)};
}

const std::string weights = bytes_of({1, 2, 3, 4, 5, 6});

// A folder with a model and 4 bytes, then the weights, in data/w.bin.
struct Folder {
  TemporaryDirectory directory;
  std::string data;

  Folder() {
    std::filesystem::create_directory(directory / "data");
    data = directory.file("data/w.bin", "1234" + weights).string();
  }
  nn::Graph load(const Entries& entries, Type type = Type::f32) const {
    return nn::load_onnx(directory.file("m.onnx", model_with(entries, type)));
  }
  // What is said of the model.
  std::string refusal(const Entries& entries, Type type = Type::f32) const {
    const std::string text = testing::message_without_line<FileError>([&] { load(entries, type); });
    const std::string begin = (directory / "m.onnx").string() + ": ";
    CHECK(text.starts_with(begin));
    return text.substr(std::min(text.size(), begin.size()));
  }
};

void check_output(const nn::Graph& graph) {
  const Tensor y = graph({{"x", tensor({1, 1, 2}, {1, 10})}}).at("y");
  CHECK(y.to_vector() == std::vector<double>{41, 52, 63});
}

}  // namespace

TEST_CASE("onnx: weights in other files are read from their ranges") {
  const Folder folder;
  const std::string path = "data/w.bin";
  check_output(folder.load({{"location", path}, {"offset", "4"}, {"length", "24"}}));
  check_output(folder.load({{"location", path}, {"offset", "4"}}));
  check_output(folder.load({{"location", "./" + path},
                            {"offset", "4"},
                            {"length", "24"},
                            {"checksum", "of another file"},
                            {"basepath", "/"}}));
  folder.directory.file("beside", weights);
  check_output(folder.load({{"location", "beside"}}));
  // Links are what the owner of the folder made of it.
  std::filesystem::create_symlink(folder.data, folder.directory / "link");
  check_output(folder.load({{"location", "link"}, {"offset", "4"}}));
}

TEST_CASE("onnx: weights in a file of the working directory") {
  const Folder folder;
  const auto before = std::filesystem::current_path();
  folder.directory.file("m.onnx", model_with({{"location", "data/w.bin"}, {"offset", "4"}}));
  std::filesystem::current_path(folder.directory.path());
  const nn::Graph graph = nn::load_onnx("m.onnx");
  std::filesystem::current_path(before);
  check_output(graph);
}

TEST_CASE("onnx: weights outside of the folder of the model are refused") {
  const Folder folder;
  const auto at = [&](const std::string& location) {
    return folder.refusal({{"location", location}, {"offset", "4"}});
  };
  CHECK(at(folder.data) == "array \"w\": its location \"" + folder.data +
                               "\" is an absolute path, but has to be relative to the folder of "
                               "the model");
  for (const char* const name : {"../w.bin", "data/../../w.bin", "data/../data/w.bin", ".."})
    CHECK(at(name) == "array \"w\": its location \"" + std::string(name) +
                          "\" has \"..\", but has to stay in the folder of the model");
  CHECK(at("") == "array \"w\": its location \"\" names no file");
  CHECK(folder.refusal({{"offset", "4"}}) == "array \"w\": its location \"\" names no file");
  CHECK(at(std::string("data/w.bin\0x", 12)).ends_with("has a zero byte"));
}

TEST_CASE("onnx: weights that are not in their file are refused, with the numbers") {
  const Folder folder;
  const auto at = [&](const std::string& offset, const std::string& length = "24") {
    return folder.refusal({{"location", "data/w.bin"}, {"offset", offset}, {"length", length}});
  };
  CHECK(at("5") == "array \"w\": its 24 bytes from 5 are not in " + folder.data + ", which has 28");
  CHECK(contains(at("29"), "its 24 bytes from 29 are not in"));
  CHECK(contains(at("18446744073709551615"), "its 24 bytes from 18446744073709551615 are not in"));
  for (const char* const text : {"", "-1", "4x", " 4", "18446744073709551616"}) {
    const std::string bad = text;
    CHECK(at(bad) == "array \"w\": the offset of its numbers in \"data/w.bin\" is \"" + bad +
                         "\", but has to be a number of bytes");
    CHECK(contains(at("4", bad), "the length of its numbers in \"data/w.bin\" is \"" + bad));
  }
  CHECK(at("4", "20") ==
        "array \"w\": it has 20 bytes in \"data/w.bin\", but its shape and type take 24");
  CHECK(
      folder.refusal({{"location", "data/w.bin"}, {"offset", "4"}, {"length", "24"}}, Type::f64) ==
      "array \"w\": it has 24 bytes in \"data/w.bin\", but its shape and type take 48");
  CHECK(folder.refusal({{"location", "data/w.bin"}}, static_cast<Type>(16)) ==
        "array \"w\" has elements of the type 16, which Reel does not read");
  CHECK(folder.refusal({{"location", "absent"}}) ==
        "array \"w\": " + (folder.directory / "absent").string() +
            ": cannot read: No such file or directory");
  CHECK(contains(folder.refusal({{"location", "data"}}), "it is a directory, not a regular file"));
}

TEST_CASE("onnx: a model that is only in memory has no other files") {
  const std::string content = model_with({{"location", "w.bin"}, {"offset", "4"}});
  const std::string expected =
      "array \"w\" is in the file \"w.bin\", but this model is only in memory, without a folder; "
      "save it as a file beside that one, or with its weights";
  const fuzz::MemoryFile file(content);
  CHECK(testing::message_without_line<FileError>([&] { nn::load_onnx(file.path()); }) ==
        file.path() + ": " + expected);
  const nn::onnx::Model model = nn::onnx::decoded(content);
  try {
    nn::onnx::Importer(model).imported();
    CHECK(false);
  } catch (const nn::onnx::Unreadable& unreadable) {
    CHECK(unreadable.reason == expected);
  }
}
