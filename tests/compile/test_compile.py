"""What must compile without warnings, and what must not, with a short error that says why."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("REEL_BUILD", ROOT / "build"))
COMPILERS = [c for c in ("g++", "clang++") if shutil.which(c)]
# Warning options of users; Reel's headers are not system headers here.
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion",
            "-Wold-style-cast", "-Wextra-semi", "-Wnon-virtual-dtor", "-Woverloaded-virtual",
            "-Werror"]
LONGEST_ERROR = 16  # lines, including those with source and carets

# Names that users may define themselves, along with `using namespace reel`.
NAMES = """
Accumulator Argument Arguments Attributes Axis Batch Block Call Cell Check Clock Config Context Count
Data Dataset Definition Derivative Dimension Entry Event Experiment Flag Forward Fused Generator
Gradient Group Hook Hidden Integer Item Keeps Kernel Leaf Loss Map Metrics Model Node Number Options
Part Pass Point Position Product Record Registry Result Rule Run Sample Samples Sequence Slot Spec
State Statistics Step Stream Table Task Timer Token Trainer Values View Weights Window Worker
""".split()
FUNCTIONS = """
accumulate batch check compute draw evaluate fused gradient indices integer loss main_loop map merge
next none normal positive positions rule run sample sampled several step train uniform update values
""".split()

PREAMBLE = """
#include <reel/reel.h>
#include <iostream>
using namespace reel;

struct NoMap { Tensor h; };
struct CellWithoutMap {
  using State = NoMap;
  explicit CellWithoutMap(const Params&) {}
  nn::Output<State> operator()(const Tensor& x, const State&, const nn::Mode&) const { return {x, {x}}; }
  Index output_size() const { return 1; }
};
struct OwnCell : nn::GruCell {
  using GruCell::GruCell;
};
struct CellWithoutState {
  explicit CellWithoutState(const Params&) {}
  Tensor operator()(const Tensor& x) const { return x; }
};
"""
PARAMETERS = ("[[maybe_unused]] const Tensor& x, [[maybe_unused]] const Tensor& n, "
              "[[maybe_unused]] const Params& p, [[maybe_unused]] Rng& rng, "
              "[[maybe_unused]] Tape& tape")

# An argument that would be misinterpreted, and a word of the error.
WRONG = [
    ("max(x, 0.0)", "maximum"), ("min(x, 1.5)", "minimum"), ("max(x, n)", "maximum"),
    ("max(x, true)", "deleted"), ("min(x, 0.5f)", "minimum"),
    ("sum(x, true)", "deleted"), ("sum(x, 0.0)", "deleted"), ("sum(x, {0.5})", "deleted"),
    ("sum(x, {true})", "deleted"), ("sum(x, 0, 1)", "deleted"), ("mean(x, 1.0)", "deleted"),
    ("mean(x, true)", "deleted"), ("prod(x, false)", "deleted"), ("any(x, true)", "deleted"),
    ("all(x, 2.0)", "deleted"), ("var(x, 0, true, true)", "deleted"),
    ("var(x, 0, true, 1.5)", "deleted"), ("reel::std(x, true)", "deleted"),
    ("logsumexp(x, true)", "deleted"), ("norm(x, 1)", "norm"), ("norm(x, 2.0)", "norm"),
    ("norm(x, true)", "norm"), ("cumsum(x, true)", "deleted"), ("cumsum(x, 0, 1)", "deleted"),
    ("cumsum(x, 1.0)", "deleted"), ("argmax(x, true)", "deleted"), ("argmin(x, 0.5)", "deleted"),
    ("argmax(x, 0, 1)", "deleted"), ("softmax(x, 1.0)", "deleted"), ("softmax(x, true)", "deleted"),
    ("log_softmax(x, false)", "deleted"), ("sort(x, true)", "deleted"),
    ("sort(x, -1, 1)", "deleted"), ("argsort(x, true)", "deleted"), ("topk(x, 2.5)", "deleted"),
    ("topk(x, true)", "deleted"), ("topk(x, 2, true)", "deleted"),
    ("topk_indices(x, 2.0)", "deleted"), ("flip(x, true)", "deleted"),
    ("concat({x, x}, true)", "deleted"), ("concat({x, x}, 0.0)", "deleted"),
    ("stack({x, x}, true)", "deleted"), ("split(x, 2.0, 0)", "deleted"),
    ("split(x, 2, true)", "deleted"), ("slice(x, 0, 0.5, 2)", "deleted"),
    ("slice(x, true, 0, 2)", "deleted"), ("slice(x, 0, 0, 2, true)", "deleted"),
    ("select(x, 0, 1.0)", "deleted"), ("select(x, 0, true)", "deleted"),
    ("pad(x, 0, 1.0, 2)", "deleted"), ("pad(x, 0, 1, true)", "deleted"),
    ("repeat(x, 2.5, 0)", "deleted"), ("repeat(x, 2, true)", "deleted"),
    ("expand(x, true)", "deleted"), ("squeeze(x, 1.0)", "deleted"),
    ("transpose(x, true)", "deleted"), ("transpose(x, 0.0, 1.0)", "deleted"),
    ("tril(x, 0.5)", "deleted"), ("triu(x, true)", "deleted"),
    ("matmul(x, x, 1)", "deleted"), ("matmul(x, x, false, 1)", "deleted"),
    ("one_hot(n, 10.0)", "deleted"), ("one_hot(n, true)", "deleted"),
    ("take_along(x, n, true)", "deleted"), ("scatter_along(x, n, 2.5, 0)", "deleted"),
    ("scatter_add_rows(x, n, true)", "deleted"), ("masked_fill(x, n, true)", "deleted"),
    ("clamp(x, false, true)", "deleted"), ("clamp(x, 0, true)", "deleted"),
    ("dropout(x, true, rng)", "deleted"), ("leaky_relu(x, true)", "deleted"),
    ("elu(x, true)", "deleted"), ("pow(x, true)", "deleted"), ("layer_norm(x, x, x, true)", "deleted"),
    ("huber(x, x, true)", "deleted"), ("x.size(true)", "deleted"), ("x.size(1.0)", "deleted"),
    ("x[1.5]", "deleted"), ("x[true]", "deleted"), ("x + true", "deleted"), ("true * x", "deleted"),
    ("maximum(x, true)", "deleted"), ("where(n, x, false)", "deleted"), ("equal(x, true)", "deleted"),
    ("full({2}, true)", "deleted"), ("scalar(true)", "deleted"), ("arange(2.5)", "deleted"),
    ("arange(0, 1, 0.1)", "deleted"), ("eye(true)", "deleted"),
    ("relu(x, 0)", "Site"), ("softmax(x, -1, 0)", "Site"), ('exp(x, "here")', "Site"),
    ("rng.integer(2.5)", "deleted"), ("rng.uniform({2}, false, true)", "deleted"),
    ("rng.normal({2}, 0, true)", "deleted"), ("sum(x, 'a')", "deleted"),
    ("permute(x, {true, false})", "deleted"), ("set_threads(1.5)", "deleted"),
    ("set_threads(true)", "deleted"), ("huber(x, x, true, n)", "deleted"),
    ("bce_with_logits(x, x, n, true)", "deleted"), ("Gradients g; g *= true", "deleted"),
    ("Gradients g; optim::clip_by_norm(g, true)", "deleted"),
    ("Gradients g; optim::clip_by_value(g, true)", "deleted"),
    ("optim::StepDecay().at(1.5)", "deleted"), ("optim::ExponentialDecay().at(true)", "deleted"),
    ("datasets::Windows(std::span<const std::int32_t>(), 1.5, 2)", "deleted"), ("datasets::split({}, true)", "deleted"),
    ("datasets::Windows(std::span<const std::int32_t>(), 1, 2)[0.5]", "deleted"),
    ("nn::Linear(p, 2.5, 3)", "deleted"), ("nn::Linear(p, 2, true)", "deleted"),
    ("nn::Embedding(p, 2, 3.0)", "deleted"), ("nn::LayerNorm(p, 2, true)", "deleted"),
    ("nn::LayerNorm(p, 2.5)", "deleted"), ("nn::Dropout(true)", "deleted"),
    ("nn::Lstm(p, 2, 3.5)", "deleted"), ("nn::GruCell(p, true, 3)", "deleted"),
    ("nn::Stacked<nn::Rnn>(p, 2, 3.5)", "deleted"),
    ("nn::Bidirectional<nn::Rnn>(p, 2, true)", "deleted"),
    # what lacks something
    ("nn::Stacked<nn::LstmCell>(p, 2, 3)", "Unroll"),
    ("nn::Bidirectional<nn::GruCell>(p, 2, 3)", "Unroll"),
    ("nn::Unroll<nn::Lstm>(p, 2, 3)", "leave out Unroll"),
    ("nn::Stacked<nn::Gru, nn::RnnCell>(p, 2, 3)", "Unroll"),
    ("nn::WithInitialState<OwnCell>(p, 2, 3)", "Unroll"),
    ("nn::WithInitialState<nn::Rnn>(p, 2, 3.5)", "deleted"),
    ("nn::Stacked<nn::Gru, nn::Rnn>(p, 2, true)", "deleted"),
    ("nn::Stacked<nn::Gru, nn::Rnn>(p, 2, 3, {}, nn::GruOptions{})", "for each of its layers"),
    ("nn::Stepper(nn::Bidirectional<nn::Gru>(p, 2, 3))", "backward direction begins at the end"),
    ("const nn::Stacked<nn::Bidirectional<nn::Rnn>> l(p, 2, 3); const nn::Stepper s(l)",
     "a bidirectional layer has no Stepper"),
    ("nn::Stream(nn::Bidirectional<nn::Gru>(p, 2, 3))", "backward direction begins at the end"),
    ("const nn::Stacked<nn::Bidirectional<nn::Rnn>> l(p, 2, 3); const nn::Stream s(l)",
     "a bidirectional layer has no Stream"),
    ("nn::Stream(nn::Unroll<nn::GruCell>(p, 2, 3))", "the function of a unit"),
    ("nn::all_states(nn::Bidirectional<nn::Gru>(p, 2, 3), x)", "call all_states for each"),
    ("(void)nn::Unroll<CellWithoutMap>(p)", "map"),
    ("(void)nn::Unroll<CellWithoutState>(p)", "State"),
    ("optim::Tbptt<nn::HiddenState>(p, {.k1 = 2, .k2 = 2})"
     ".run({x, x}, [](const Tensor& in, const nn::HiddenState& s) { return std::pair(in, s); }, "
     "[](const Gradients&, double) {})", "a tensor for each of the data"),
]

RIGHT = [
    "sum(x, 0)", "sum(x, {0, -1}, true)", "sum(x, std::size_t{1})", "sum(x, std::vector{0, 1})",
    "sum(x, {})", "max(x, 0, true)", "max(x, {1})", "norm(x, {1})", "norm(x, {}, true)",
    "norm(x, Axes(1))", "enum Axis { steps, rows }; sum(x, rows)", "x.size(short{0})",
    "permute(x, std::vector{1, 0})", "permute(x, {1, 0})", "topk(x, 2, 0)", "softmax(x, x.rank() - 1)",
    "zeros(std::vector<Index>{2, 3})", "reshape(x, {2, -1})", "reshape(x, std::vector<Index>{6})",
    "const std::array<Index, 2> sizes{2, 3}; zeros(sizes)",
    "tensor({2}, std::vector<float>{1, 2})", "tensor({2}, std::vector<double>{1, 2}, f64)",
    "tensor({2}, std::vector<std::int32_t>{1, 2})", "tensor({2}, std::vector<Index>{1, 2})",
    "tensor({2}, {1, 2}, i32)", "tensor({0}, {})", "full({2}, 1, i32)", "scalar(2.5f)",
    "arange(3)", "arange(3, f32)", "arange(0, 6, 2)", "arange(5, 0, -1, f64)", "eye(3)",
    "eye(2, 3, f64)",
    "maximum(x, 0.0)", "minimum(1, x)", "equal(x, 3)", "less(x, 0)", "greater_equal(0.5f, x)",
    "where(n, x, 0.0)", "where(n, 1.0, x)", "where(x > 0, 1, 0)", "pow(x, 2)", "pow(2.0, x)",
    "pow(x, x)", "add(x, 1)", "lerp(x, 1.0, 0.5)", "logical_and(n, 1)",
    "const Param w; pow(w, 2); maximum(w, 0.5); w * 2 + 1; pow(w, w)",
    "x[0]", "x[-1]", "x[std::size_t{1}]", "for (Index t = 0; t < x.size(0); ++t) x[t]",
    "Tensor loss = scalar(0); loss += mean(x); loss -= 1; loss *= 2; loss /= x",
    "std::cout << x.shape() << x",
    "cross_entropy(x, n)", "cross_entropy(x, n, {})", "cross_entropy(x, n, x)",
    "cross_entropy(x, n, std::nullopt)", "cross_entropy(x, n, {.label_smoothing = 0.1})",
    "tape.gradient(x, p)", "tape.gradient(x, p.list())", "tape.gradient(x, {x})",
    "optim::Tbptt<nn::HiddenState> tbptt(p, {.k1 = 1, .k2 = 2}); tbptt.run({x, n}, "
    "[](const Tensor& in, const Tensor&, const auto& s) { return nn::Output<nn::HiddenState>{in, s}; }, "
    "[](Gradients, double) {})",
    "const nn::LstmCell cell(p, 2, 3); cell(x); cell(x, {}); cell(x, nn::Train{rng}); "
    "cell(x, {}, nn::Train{rng})",
    "nn::Stacked<nn::Lstm>(p, 2, 3, {.layers = 2, .dropout = 0.3}, nn::LstmOptions{})",
    "nn::Stacked<nn::Gru, nn::Lstm>(p, 2, 3, {.widths = {4, 3}, .layer_norm = true})",
    "nn::Stacked<nn::Bidirectional<nn::Gru>>(p, 2, 3, {.connection = nn::Connection::residual}, "
    "nn::BidirectionalOptions{.merge = nn::Merge::sum}, nn::GruOptions{})",
    "nn::Bidirectional<nn::Gru>(p, 2, 3, {.merge = nn::Merge::mean}, nn::GruOptions{})",
    "nn::Stacked(p, {}, std::tuple(nn::Gru(p, 2, 3), nn::Lstm(p, 3, 4)))",
    "nn::Stacked(p, {.layer_norm = true}, std::vector{nn::Gru(p, 2, 2)})",
    "nn::Bidirectional(nn::Gru(p, 2, 3), nn::Gru(p, 2, 3))",
    "nn::WithInitialState(p, nn::Gru(p, 2, 3), 2)",
] + [
    f"const nn::{layer} l(p, 2, 3); const decltype(l)::State s; const nn::Mode mode = nn::Eval{{}}; "
    "l(x); l(x, {}); l(x, s); l(x, {.lengths = n}); l(x, nn::Train{rng}); l(x, mode); "
    "l(x, nn::Train{rng}, {.lengths = n}); l(x, s, {.reverse = true}); l(x, {}, {.lengths = n}); "
    "l(x, s, mode); l(x, {}, nn::Train{rng}, {.lengths = n})"
    for layer in ("Rnn", "Gru", "Lstm", "Stacked<nn::Gru>", "Bidirectional<nn::Lstm>",
                  "Unroll<nn::RnnCell>", "Stacked<nn::Bidirectional<nn::Unroll<nn::GruCell>>>",
                  "Stacked<nn::Gru, nn::Bidirectional<nn::Lstm>>", "WithInitialState<nn::Lstm>")
]


def compiled(compiler, source, *options):
    """The compiler's output for a source."""
    command = [compiler, "-std=c++20", "-fsyntax-only", "-fno-diagnostics-color",
               f"-I{BUILD / 'include'}", f"-I{ROOT / 'include'}", *options, source]
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    return done.returncode, done.stdout


def functions(bodies):
    return "".join(f"void f{i}({PARAMETERS}) {{ {body}; }}\n" for i, body in enumerate(bodies))


def errors_by_line(output, name):
    """The diagnostics, without the chains of headers, by the line of the source that they are about.
    g++ says where a template was instantiated before the error, clang++ after it. Functions of the C
    library that have the same name are left out, as they are there in any program with <cmath>."""
    diagnostic = re.compile(r"\S+:\d+:\d+: \w+: |note: ")
    of_the_library = re.compile(r"/usr/include/\S+\.h:\d+:\d+: note: |note: \(skipping")
    left_out = False
    here = re.compile(re.escape(name) + r":(\d+):")
    before = re.compile(r": In \w+|required from")
    by_line, error, cause = {}, None, None

    def finish():
        if error:
            found = here.search(error[0]) or cause or next(filter(None, map(here.search, error)), None)
            by_line.setdefault(int(found[1]) if found else 0, []).extend(error)

    for text in output.splitlines():
        if diagnostic.match(text):
            left_out = bool(of_the_library.match(text))
        if left_out or re.match(r"In file included from| +from ", text):
            continue
        if before.search(text):  # of g++: what comes next
            if error:
                finish()
                error, cause = None, None
            cause = here.search(text) or cause
        elif ": error: " in text:
            if error:
                finish()
                cause = None
            error = [text]
        elif error:
            error.append(text)
    finish()
    return by_line


class Compile(unittest.TestCase):
    def source(self, text):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = pathlib.Path(folder.name) / "user.cpp"
        path.write_text(text, encoding="utf-8")
        return path

    def test_what_is_right_compiles_without_a_warning(self):
        source = self.source(PREAMBLE + functions(RIGHT))
        for compiler in COMPILERS:
            with self.subTest(compiler=compiler):
                status, output = compiled(compiler, source, *WARNINGS, "-Wno-unused-value")
                self.assertEqual((status, output), (0, ""))

    def test_names_of_the_users_own(self):
        own = "".join(f"struct {name} {{ int of_the_user; }};\n" for name in NAMES)
        own += "".join(f"inline int {name}(int i) {{ return i; }}\n" for name in FUNCTIONS)
        uses = "".join(f"const {name} v{i}{{1}}; s += v{i}.of_the_user;\n"
                       for i, name in enumerate(NAMES))
        uses += "".join(f"s += {name}(1);\n" for name in FUNCTIONS)
        source = self.source("#include <reel/reel.h>\nusing namespace reel;\n" + own +
                             f"int total() {{ int s = 0;\n{uses}return s; }}\n")
        for compiler in COMPILERS:
            with self.subTest(compiler=compiler):
                status, output = compiled(compiler, source)
                self.assertEqual((status, output), (0, ""))

    def test_what_is_wrong_is_a_short_error(self):
        source = self.source(PREAMBLE + functions(code for code, _ in WRONG))
        first = PREAMBLE.count("\n") + 1
        for compiler in COMPILERS:
            limit = "-fmax-errors=0" if compiler == "g++" else "-ferror-limit=0"
            status, output = compiled(compiler, source, limit)
            self.assertNotEqual(status, 0)
            said = errors_by_line(output, source.name)
            for i, (code, word) in enumerate(WRONG):
                with self.subTest(compiler=compiler, code=code):
                    lines = said.get(first + i, [])
                    text = "\n".join(lines)
                    self.assertIn("error:", text)
                    self.assertIn(word, text)
                    self.assertLessEqual(len(lines), LONGEST_ERROR, text)


if __name__ == "__main__":
    unittest.main()
