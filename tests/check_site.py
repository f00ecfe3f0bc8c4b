"""Checks how docs/site prepares headers and guides for Doxygen, and finds links that lead nowhere."""
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "docs" / "site"))
import build  # noqa: E402
import guides  # noqa: E402
import headers  # noqa: E402


class Headers(unittest.TestCase):
    def prepared(self, *lines):
        return headers.with_comments("\n".join(lines)).splitlines()

    def test_functions_without_a_comment_share_the_one_above(self):
        self.assertEqual(
            self.prepared("/// Sums.", "T add(T a);", "template <class U>", "T add(U a) {", "  return a;", "}",
                          "/// Other.", "T sub(T a);", "using V = T;", "", "T free();"),
            ["/// Sums.", "T add(T a);", "/// Sums.", "template <class U>", "T add(U a) {", "  return a;",
             "}", "/// Other.", "T sub(T a);", "using V = T;", "", "T free();"])

    def test_in_a_class_overloads_alone_share_it(self):
        self.assertEqual(
            self.prepared("struct A {", "  /// The i-th.", "  T at(int i) {", "    return x;", "  }",
                          "  template <class I>", "  T at(I i);", "  int size();", "};"),
            ["struct A {", "  /// The i-th.", "  T at(int i) {", "    return x;", "  }", "  /// The i-th.",
             "  template <class I>", "  T at(I i);", "  int size();", "};"])

    def test_templates_that_refuse_an_argument_are_left_out(self):
        self.assertEqual(
            self.prepared("T f(T a);", "template <Bad U>", "requires(X<U>) T", "    f(U, V = {})", "= delete;  // f(T)",
                          "template <Good U>", "T f(U a);", "A(const A&) = delete;"),
            ["T f(T a);", "template <Good U>", "T f(U a);", "A(const A&) = delete;"])

    def test_a_comment_before_the_namespace_is_of_the_header(self):
        self.assertEqual(self.prepared("/// Ops.", "namespace reel {"),
                         ["/// @file", "/// Ops.", "namespace reel {"])

    def test_equations_are_blocks_and_text_is_escaped(self):
        self.assertEqual(
            self.prepared("/// A vector<T>, `a<b>`:", "///   h' = a < b", "/// for all.", "int f();",
                          "int n;  ///< of a<b>"),
            ["/// A vector\\<T>, `a<b>`:", "///", "///     h' = a < b", "///", "/// for all.", "int f();",
             "int n;  ///< of a\\<b>"])


class Guides(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def page(self, text):
        """The second of two pages, which has this text."""
        for path, content in (("README.md", "# Top\n## A part, of it\n"), ("docs/b.md", text),
                              ("nn/a.h", ""), ("b.cpp", ""), ("p.svg", "")):
            (self.root / path).parent.mkdir(exist_ok=True)
            (self.root / path).write_text(content)
        self.guides = guides.Guides(self.root, [pathlib.Path("README.md"), pathlib.Path("docs/b.md")],
                                    {pathlib.Path("nn/a.h"): "reel/nn/a.h"}, {"nn::A": "reel::nn::A"})
        return self.guides.page(pathlib.Path("docs/b.md"))

    def test_links_lead_to_pages(self):
        self.assertEqual(
            self.page("# B\n[top](../README.md), [part](../README.md#a-part-of-it), [a](../nn/a.h),\n"
                      "[b](../b.cpp), [dir](../nn), ![p](../p.svg), `nn::A`, `x`, [site](https://x.org)\n"
                      "```cpp\n[i](j) < `nn::A`\n```\n"),
            '# B {#docs_b_md}\n[top](@ref index), [part](@ref index__a-part-of-it), @ref reel/nn/a.h "a",\n'
            '[b](@ref b_cpp), dir, <img src="p.svg" alt="p">, <code>@ref reel::nn::A "nn::A"</code>, `x`, '
            "[site](https://x.org)\n"
            "```{.cpp}\n[i](j) < `nn::A`\n```\n")
        self.assertEqual(self.guides.problems, [])
        self.assertEqual((self.guides.sources, self.guides.pictures),
                         ({pathlib.Path("b.cpp")}, {pathlib.Path("p.svg")}))

    def test_links_that_lead_nowhere(self):
        self.page("# B\n[c](c.md), [top](../README.md#no), ![p](q.svg)\n")
        self.assertEqual(self.guides.problems,
                         ["docs/b.md: there is no docs/c.md",
                          "docs/b.md: there is no heading #no in README.md",
                          "docs/b.md: there is no picture docs/q.svg"])

    def test_every_guide_is_in_the_site(self):
        self.assertEqual({path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")},
                         {guide for guide in build.GUIDES if guide.startswith("docs/")})


class Links(unittest.TestCase):
    def test_dead_links_are_found(self):
        with tempfile.TemporaryDirectory() as folder:
            site = pathlib.Path(folder)
            (site / "search").mkdir()
            (site / "a.html").write_text('<h1 id="x"><a href="b.html">b</a><a href="#x">x</a><a href="#y">y</a>'
                                         '<img src="no.png"><a href="https://x.org">x</a>')
            (site / "b.html").write_text('<a name="n"></a><a href="a.html#x">x</a><a href="c.html">c</a>')
            (site / "menudata.js").write_text('{text:"A",url:"a.html"},{text:"D",url:"d.html"}')
            (site / "search/all_0.js").write_text("['b',['../b.html#n',1]],['z',['../b.html#z',1]]")
            self.assertEqual(build.dead_links(site),
                             ["a.html: #y has no such anchor", "a.html: no.png leads nowhere",
                              "b.html: c.html leads nowhere", "menudata.js: d.html leads nowhere",
                              "search/all_0.js: ../b.html#z has no such anchor"])


if __name__ == "__main__":
    unittest.main()
