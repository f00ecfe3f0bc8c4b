#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <reel/autograd/tensor.h>

/// The content of an ONNX file, as far as Reel writes and reads it
/// (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
namespace reel::nn::onnx {

/// Why a file cannot be read.
struct Unreadable {
  std::string reason;
};

/// Element types, by their numbers in the format.
enum class Type : std::int32_t { none = 0, f32 = 1, i32 = 6, i64 = 7, f16 = 10, f64 = 11 };

/// Where the numbers of an array are that the file of the model does not have, as it says.
struct External {
  std::string location = {}, offset = "0";
  std::optional<std::string> length = {};
};

struct Array {
  std::string name;
  Type type = Type::none;
  std::vector<std::int64_t> dims = {};
  std::string bytes = {};                 ///< the numbers, little-endian
  std::optional<External> external = {};  ///< until `read_external`

  static Array of(std::string name, const Tensor& x);
  static Array of(std::string name, std::vector<std::int64_t> numbers);  ///< [n]
  /// The numbers as a tensor; f16 becomes f32, i64 i32. Throws Unreadable.
  Tensor tensor() const;
  /// The numbers of an array of i64. Throws Unreadable.
  std::vector<std::int64_t> integers() const;
  bool has_known_type() const;
  /// What its shape and type take. Throws Unreadable.
  std::uint64_t size_in_bytes() const;
};

/// One of the kinds of an attribute, `kind` as in the format.
struct Attribute {
  enum Kind : std::int32_t {
    real = 1,
    integer = 2,
    string = 3,
    array = 4,
    reals = 6,
    integers = 7,
    strings = 8
  };
  std::int32_t kind;
  float number = 0;
  std::vector<std::int64_t> ints = {};
  std::vector<float> floats = {};
  std::vector<std::string> texts = {};
  Array value = {};

  static Attribute of(std::int64_t i) { return {.kind = integer, .ints = {i}}; }
  static Attribute of(float f) { return {.kind = real, .number = f}; }
  static Attribute of(std::string text) { return {.kind = string, .texts = {std::move(text)}}; }
  static Attribute of(std::vector<std::int64_t> i) {
    return {.kind = integers, .ints = std::move(i)};
  }
  static Attribute of(std::vector<std::string> s) {
    return {.kind = strings, .texts = std::move(s)};
  }
};

struct Node {
  std::string operation, name;
  std::vector<std::string> inputs, outputs;
  std::map<std::string, Attribute> attributes = {};
  std::string domain = {};
};

/// A named input or output: dimensions are numbers or names.
struct Value {
  std::string name;
  Type type;
  std::vector<std::string> dims;
};

struct Model {
  std::int64_t opset = 0;
  std::vector<Node> nodes = {};
  std::vector<Array> arrays = {};  ///< initializers
  std::vector<Value> inputs = {}, outputs = {};
  std::map<std::string, std::string> metadata = {};
};

std::string encoded(const Model& model);
/// Throws Unreadable.
Model decoded(std::string_view file);
/// Reads the numbers that are in other files, each at its location relative to `folder`, which is
/// that of the model. Throws Unreadable, naming the array and the file.
void read_external(Model& model, const std::filesystem::path& folder);

}  // namespace reel::nn::onnx
