"""Checks the output of ./dev: which machine it found, and what to do after a failure."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Dev(unittest.TestCase):
    """Runs a copy of ./dev on a build directory whose one step prints a message and fails."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tree = pathlib.Path(folder.name)
        shutil.copy2(ROOT / "dev", self.tree)
        shutil.copytree(ROOT / ".ci", self.tree / ".ci")

    def breaks(self, message):
        """Makes the build print the message and fail."""
        build = self.tree / "build"
        build.mkdir(exist_ok=True)
        (build / "dev-options").write_text("-Dwerror=false\n-Ddefault_library=both\n")
        (build / "message").write_text(message + "\n")
        (build / "build.ninja").write_text(
            "rule break\n  command = cat message && false\nbuild all: break\n")

    def dev(self, *words, **environment):
        done = subprocess.run(["./dev", *words], cwd=self.tree, env={**os.environ, **environment},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8")
        return done.returncode, done.stdout

    def test_it_says_what_it_found_and_how_long_it_takes(self):
        self.breaks("x.cpp:1:1: error: no")
        _, output = self.dev("build", "--jobs", "2")
        self.assertRegex(output, r"(?m)^compiler   g\+\+ \d+\.\d+\S*, meson 1\.\S+, ninja 1\.\S+$")
        self.assertRegex(output, r"(?m)^processor  .*\d+ cores")
        self.assertIn("packages   all found\n", output)
        self.assertIn("building   build/ for the first time, which takes about 13 min", output)

    def test_advice_fits_the_failure(self):
        for message, advice in (
                ("g++: fatal error: Killed signal terminated program cc1plus", "build --jobs 1"),
                ("virtual memory exhausted: Cannot allocate memory", "build --jobs 1"),
                ("error: a.o: No space left on device", "./dev clean removes"),
                ("g++: internal compiler error: Illegal instruction", "-Dcpu=, then again ./dev build"),
                ("internal compiler error: in foo", "./dev build --compiler clang++"),
                ("cc1plus: all warnings being treated as errors", "without it they do not"),
                ("x.h:1: fatal error: fmt/format.h: No such file or directory", "install-deps"),
                ("x.cpp:1:1: error: expected ';'", "the first error was\nx.cpp:1:1: error: expected"),
                ("nobody knows", "./dev clean, then again ./dev build")):
            with self.subTest(message):
                self.breaks(message)
                status, output = self.dev("build")
                self.assertEqual(status, 1)
                said = output[output.index("\ndev: "):]
                self.assertIn(advice, said)
                self.assertTrue(said.endswith("all that was printed is in build/build.log\n"), said)
                self.assertIn(message, (self.tree / "build/build.log").read_text())

    def test_a_test_run_ends_with_its_count(self):
        self.breaks("x.cpp:1:1: error: no")
        status, output = self.dev("test")
        self.assertEqual(status, 1)
        self.assertTrue(output.endswith("build/build.log\n0 passed, 1 failed\n"), output)

    def test_what_cannot_be_installed_is_named(self):
        programs = self.tree / "programs"
        programs.mkdir()
        for name in ("sh", "dirname", "grep", "sed", "awk", "uname", "nproc", "sort", "head", "paste",
                     "id", "cat", "python3", "pkg-config"):
            (programs / name).symlink_to(shutil.which(name))
        status, output = self.dev("build", PATH=str(programs))
        self.assertEqual(status, 1)
        self.assertIn("compiler   g++ not found", output)
        self.assertRegex(output, r"dev: please install what Debian calls: g\+\+.*; then again: \./dev "
                                 r"build\n$")
        self.assertFalse((self.tree / "build").exists())

    def test_words_that_are_not_understood(self):
        for words, message in ((("build", "--fast"), "build does not know --fast"),
                               (("build", "--long"), "build does not know --long"),
                               (("build", "lstm"), "build takes options alone, not lstm"),
                               (("test", "--cpu"), "--cpu wants a value"),
                               (("test", "--jobs", "0"), "--jobs wants a number from 1 on, not 0"),
                               (("test", "--sanitize", "--valgrind"), "exclude each other"),
                               (("build", "--host", "aarch64-linux", "--sanitize"), "without sanitizers"),
                               (("build", "--host", "beos"), "or aarch64-macos, not beos"),
                               (("test", "--host", "aarch64-macos"), "do not run on other systems"),
                               (("docs", "--web"), "docs takes --write or --site alone, not --web"),
                               (("dance",), "unknown command dance")):
            with self.subTest(words):
                status, output = self.dev(*words)
                self.assertEqual(status, 1)
                self.assertIn(message, output.splitlines()[-1])
                self.assertFalse((self.tree / "build").exists())

    def test_the_cross_build_installs_the_emulator_that_it_runs(self):
        # Meson runs a program of the target before it compiles anything.
        wrapper = re.search(r"^exe_wrapper = \['([^']*)'", (ROOT / ".ci/cross/aarch64-linux.ini").read_text(),
                            re.M)[1]
        self.assertRegex((ROOT / ".ci/machine.sh").read_text(),
                         rf"(?m)^cross +\S+ +command {wrapper}$")

    def test_the_files_with_tests_about_threads_are_those_for_the_thread_sanitizer(self):
        words = re.search(r"^about_threads='(.*)'$", (ROOT / "dev").read_text(), re.M)[1]
        about = re.compile("|".join(re.escape(word.strip("*")) for word in words.split(",")))
        listed = re.search(r"^about_threads = files\((.*?)^\)",
                           (ROOT / "tests" / "meson.build").read_text(), re.M | re.S)[1]
        tests = re.compile(r'TEST_CASE(?:_TEMPLATE)?\(\s*"([^"]*)"')
        found = [path.name for path in sorted((ROOT / "tests").glob("test_*.cpp"))
                 if any(map(about.search, tests.findall(path.read_text())))]
        self.assertEqual(found, sorted(re.findall(r"'(.*?)'", listed)))


if __name__ == "__main__":
    unittest.main()
