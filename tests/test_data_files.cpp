// Readers of data sets: treebanks, images, series, piano rolls. What they refuse is in
// test_malformed_data.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include <reel/autograd/ops.h>
#include <reel/datasets/conllu.h>
#include <reel/datasets/idx.h>
#include <reel/datasets/normalization.h>
#include <reel/datasets/piano_roll.h>
#include <reel/datasets/series.h>

#include "shared_data.h"
#include "temporary_directory.h"
#include "testing.h"

using namespace reel;
using namespace reel::datasets;
using namespace reel::testing;
using doctest::Approx;
using doctest::Contains;

namespace {

using Numbers = std::vector<double>;
using Words = std::vector<std::string>;
using namespace std::string_literals;

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("conllu: words with their columns, without multiword tokens and empty nodes") {
  const TemporaryDirectory directory;
  const std::string text =
      "# sent_id = 1\n#   text = vámonos\n"
      "1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No\n"
      "1\tvamos\tir\tVERB\tVBP\tMood=Imp\t0\troot\t0:root\t_\n"
      "2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_\n"
      "2.1\tnada\t_\t_\t_\t_\t_\t_\t1:x\t_\n"
      "\n"
      "1\ta b\t_\tX\t_\t_\t_\t_\t_\t_\n";
  std::string crlf;
  for (const char c : text) crlf += c == '\n' ? "\r\n"s : std::string(1, c);
  for (const std::string& content : {text, text + "\n", crlf, crlf + "\r\n"}) {
    const auto sentences = read_conllu(directory.file("a.conllu", content));
    REQUIRE(sentences.size() == 2);
    CHECK(sentences[0].comments == Words{"sent_id = 1", "text = vámonos"});
    CHECK(sentences[0].forms() == Words{"vamos", "nos"});
    CHECK(sentences[0].upos() == Words{"VERB", "PRON"});
    const ConlluWord& word = sentences[0].words[0];
    CHECK(word.lemma == "ir");
    CHECK(word.xpos == "VBP");
    CHECK(word.feats == "Mood=Imp");
    CHECK(word.head == 0);
    CHECK(word.deprel == "root");
    CHECK(word.deps == "0:root");
    CHECK(word.misc == "_");
    CHECK(sentences[0].words[1].head == 1);
    CHECK(sentences[1].comments.empty());
    CHECK(sentences[1].forms() == Words{"a b"});
    CHECK(sentences[1].words[0].head == -1);
  }
}

TEST_CASE("conllu: a real treebank") {
  const auto path = shared_data("en_ewt-ud-dev.conllu");
  if (!path) return;
  const auto sentences = read_conllu(*path);
  CHECK(sentences.size() == 2001);
  std::map<std::string, Index> tags;
  Index words = 0;
  for (const ConlluSentence& sentence : sentences) {
    words += std::ssize(sentence.words);
    for (const std::string& tag : sentence.upos()) ++tags[tag];
  }
  CHECK(words == 25147);
  CHECK(tags["NOUN"] == 4210);
  CHECK(tags["X"] == 59);
}

TEST_CASE("idx: images as numbers from 0 to 1 or to 255, labels as i32") {
  const TemporaryDirectory directory;
  const auto images =
      directory.file("images", "\0\0\x8\x3\0\0\0\x2\0\0\0\x1\0\0\0\x3"s + "\0\x33\xff\x1\x2\x3"s);
  const Tensor x = read_idx_images(images);
  CHECK(x.shape() == Shape{2, 1, 3});
  CHECK(x.dtype() == f32);
  CHECK(x.at({0, 0, 0}) == 0);
  CHECK(x.at({0, 0, 1}) == Approx(0.2));
  CHECK(x.at({0, 0, 2}) == 1);
  CHECK(read_idx_images(images, 1).to_vector() == Numbers{0, 0x33, 255, 1, 2, 3});
  CHECK_THROWS_AS(read_idx_images(images, 0), ValueError);
  CHECK_THROWS_AS(read_idx_images(images, infinity), ValueError);
  const auto labels = directory.file("labels", "\0\0\x8\x1\0\0\0\x3\x5\0\x9"s);
  CHECK(read_idx_labels(labels).dtype() == i32);
  CHECK(read_idx_labels(labels).to_vector() == Numbers{5, 0, 9});
}

TEST_CASE("idx: more data than is read at once") {
  const TemporaryDirectory directory;
  std::string content = "\0\0\x8\x1\0\x3\x0d\x40"s;  // 200,000
  for (int i = 0; i < 200'000; ++i) content += static_cast<char>(i * 7 % 251);
  const Tensor labels = read_idx_labels(directory.file("labels", content));
  const auto values = labels.values<std::int32_t>();
  REQUIRE(values.size() == 200'000);
  for (int i = 0; i < 200'000; ++i) REQUIRE(values[static_cast<std::size_t>(i)] == i * 7 % 251);
}

TEST_CASE("series: with and without a header, quoted, with other separators") {
  const TemporaryDirectory directory;
  const auto read = [&](std::string_view content, const SeriesOptions& options = {}) {
    return read_series(directory.file("a.csv", content), options);
  };
  const Series plain = read("time,load\n1,2.5\n2,-3e2\n");
  CHECK(plain.columns == Words{"time", "load"});
  CHECK(plain.values.shape() == Shape{2, 2});
  CHECK(plain.values.dtype() == f32);
  CHECK(plain.values.to_vector() == Numbers{1, 2.5, 2, -300});

  const Series quoted = read("\"a, \"\"b\"\"\" , \"c\"\r\n\"1\",2\r\n 3 ,\t4\r\n\r\n");
  CHECK(quoted.columns == Words{"a, \"b\"", "c"});
  CHECK(quoted.values.to_vector() == Numbers{1, 2, 3, 4});

  const Series bare = read("1;+2\n3;4", {.separator = ';', .header = false, .dtype = f64});
  CHECK(bare.columns == Words{"0", "1"});
  CHECK(bare.values.dtype() == f64);
  CHECK(bare.values.to_vector() == Numbers{1, 2, 3, 4});
  CHECK(read("a\tb\n1\t2\n", {.separator = '\t'}).values.to_vector() == Numbers{1, 2});
  CHECK(read("x\n1\n2\n\n \n").values.shape() == Shape{2, 1});

  const Series chosen = read("date,a,b\n2020-01-01,1,2\nyesterday,3,4\n", {.columns = {"b", "a"}});
  CHECK(chosen.columns == Words{"b", "a"});
  CHECK(chosen.values.to_vector() == Numbers{2, 1, 4, 3});
  CHECK(read("a\n1e39\n0.1\n", {.dtype = f64}).values.at({0, 0}) == 1e39);
}

TEST_CASE("series: options that make no sense") {
  const TemporaryDirectory directory;
  const auto path = directory.file("a.csv", "a\n1\n");
  for (const char separator : {'.', '-', '1', '"', '\n', 'e'})
    CHECK_THROWS_WITH_AS(read_series(path, {.separator = separator}),
                         Contains("may be in a number or a quote (" __FILE__), ValueError);
  CHECK_THROWS_AS(read_series(path, {.dtype = i32}), DTypeError);
}

TEST_CASE("normalization: mean 0 and deviation 1 on the training part, and back") {
  const Tensor train = tensor({4, 2}, {1, 10, 3, 10, 5, 10, 7, 10}, f64);
  const Normalization by(train);
  CHECK(by.mean() == Numbers{4, 10});
  CHECK(by.deviation()[0] == Approx(std::sqrt(5)));
  CHECK(by.deviation()[1] == 1);
  const Tensor y = by.apply(train);
  CHECK(mean(select(y, 1, 0)).item() == Approx(0));
  CHECK(mean(square(select(y, 1, 0))).item() == Approx(1));
  CHECK(select(y, 1, 1).to_vector() == Numbers{0, 0, 0, 0});
  const Tensor x = tensor({2, 1, 2}, {0, 3, -1, 10}, f32);
  const Tensor back = by.invert(by.apply(x));
  CHECK(back.dtype() == f32);
  CHECK(back.shape() == x.shape());
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(back.to_vector()[i] == Approx(x.to_vector()[i]).epsilon(1e-6));
  const Normalization restored(by.mean(), by.deviation());
  CHECK(restored.apply(x).to_vector() == by.apply(x).to_vector());
  // A constant whose mean is rounded is still one.
  CHECK(Normalization(full({7, 1}, 0.1, f64)).deviation() == Numbers{1});
}

TEST_CASE("normalization: a constant feature of a long series is only shifted") {
  for (const double constant : {0.1, 1.7, 100.3}) {
    const Normalization by(full({100'000, 1}, constant));
    CHECK(by.deviation()[0] == 1);
    CHECK(by.mean()[0] == static_cast<double>(static_cast<float>(constant)));
  }
}

TEST_CASE("normalization: what has no mean or deviation is refused") {
  CHECK_THROWS_AS(Normalization(zeros({3, 2}, i32)), DTypeError);
  CHECK_THROWS_AS(Normalization(scalar(1)), ShapeError);
  CHECK_THROWS_AS(Normalization(zeros({0, 2})), ValueError);
  CHECK_THROWS_AS(Normalization(zeros({2, 0})), ValueError);
  CHECK_THROWS_AS(Normalization(Tensor{}), ValueError);
  CHECK_THROWS_WITH_AS(Normalization(tensor({2, 1}, {1, infinity})),
                       Contains("a number is not finite (" __FILE__), ValueError);
  CHECK_THROWS_AS(Normalization({1}, {0}), ValueError);
  CHECK_THROWS_AS(Normalization({1}, {1, 2}), ValueError);
  CHECK_THROWS_AS(Normalization(Numbers{}, Numbers{}), ValueError);
  CHECK_THROWS_AS(Normalization({infinity}, {1}), ValueError);
  const Normalization by({1, 2}, {1, 1});
  CHECK_THROWS_WITH_AS(by.apply(zeros({2, 3})), Contains("x is [2, 3], but there are 2 features"),
                       ShapeError);
  CHECK_THROWS_AS(by.invert(zeros({2}, i32)), DTypeError);
}

TEST_CASE("piano rolls: the keys that sound at each step") {
  const TemporaryDirectory directory;
  const PianoRolls rolls = read_piano_rolls(directory.file(
      "a.json",
      R"({"test": [], "valid": [[[108]]], "train": [[[21, 60, 60], [], [-1, 62]], [[]]]})"));
  CHECK(rolls.test.empty());
  REQUIRE(rolls.train.size() == 2);
  CHECK(rolls.train[0].shape() == Shape{3, 88});
  CHECK(rolls.train[1].shape() == Shape{1, 88});
  CHECK(rolls.train[0].dtype() == f32);
  CHECK(sum(rolls.train[0]).item() == 3);
  CHECK(rolls.train[0].at({0, 0}) == 1);
  CHECK(rolls.train[0].at({0, 60 - 21}) == 1);
  CHECK(rolls.train[0].at({2, 62 - 21}) == 1);
  CHECK(rolls.valid[0].at({0, 87}) == 1);
}

TEST_CASE("piano rolls: real chorales") {
  const auto path = shared_data("jsb-chorales-quarter.json");
  if (!path) return;
  const PianoRolls rolls = read_piano_rolls(*path);
  CHECK(rolls.train.size() == 229);
  CHECK(rolls.valid.size() == 76);
  CHECK(rolls.test.size() == 77);
  CHECK(std::ranges::max(rolls.train, {}, [](const Tensor& x) { return x.size(0); }).size(0) ==
        129);
  for (const Tensor& roll : rolls.test) CHECK(max(sum(roll, {1})).item() <= 4);
}
