"""A user's programs with g++ and clang++, through pkg-config, from installations that were moved."""
import functools
import pathlib
import shutil
import unittest

from consumers import (BUILD, COMPILERS, HERE, INTERFACE, MESON, VERSION, check_program, fails, folder, folder_of, in_parallel,
                       installed, run)


def flags(kind, *options):
    return run("pkg-config", *options, "reel",
               PKG_CONFIG_PATH=str(folder_of(installed(kind), "reel.pc"))).split()


@functools.cache
def objects(compiler):
    """A user's files, compiled with the headers of the static installation."""
    own = [compiler[0], "-Wall", "-Wextra", "-Werror", *compiler[1:], *flags("static", "--cflags")]
    if compiler[0] == "g++":
        own += ["-fno-ipa-cp"]  # docs/add_a_cell.md
    target = folder() / f"objects-{COMPILERS.index(compiler)}"
    target.mkdir()
    for source in HERE.glob("*.cpp"):
        run(*own, "-c", source, "-o", target / f"{source.stem}.o")
    return target


def link(compiler, kind, libraries):
    """The paths of the two programs."""
    files = objects(compiler)
    consumer, registry = files / f"consumer-{kind}", files / f"registry-{kind}"
    run(compiler[0], files / "main.o", files / "border.o", *libraries, "-o", consumer)
    run(compiler[0], files / "registry.o", *libraries, "-o", registry)
    return consumer, registry


class PkgConfig(unittest.TestCase):
    compilers = [c for c in COMPILERS if shutil.which(c[0])]

    @classmethod
    def setUpClass(cls):
        flags("static", "--cflags")  # installs it once
        in_parallel([functools.partial(objects, c) for c in cls.compilers])

    def check(self, kind, libraries, **environment):
        for compiler in self.compilers:
            with self.subTest(kind=kind, compiler=compiler):
                check_program(self, *link(compiler, kind, libraries), **environment)

    def test_the_command_is_installed_with_its_texts(self):
        staging = folder() / "everything"
        run(MESON, "install", "-C", BUILD, "--no-rebuild", "--quiet", DESTDIR=staging)
        for name in ("bin/char_lm", "share/man/man1/char_lm.1", "share/zsh/site-functions/_char_lm",
                     "share/bash-completion/completions/char_lm"):
            path, = staging.rglob(name)
            self.assertGreater(path.stat().st_size, 0)

    def test_static(self):
        self.check("static", flags("static", "--libs"))

    def test_shared(self):
        self.assertEqual(*([word for word in flags(kind, "--cflags") if word.startswith("-f")]
                           for kind in ("static", "shared")))
        libraries = folder_of(installed("shared"), "libreel.so")
        self.check("shared", flags("shared", "--libs"), LD_LIBRARY_PATH=str(libraries))

    def test_static_beside_shared(self):
        library = folder_of(installed("both"), "libreel.a") / "libreel.a"
        libraries = [library if word == "-lreel" else word
                     for word in flags("both", "--static", "--libs")]
        self.check("both", libraries)

    def test_what_it_requires(self):
        for kind in ("static", "shared", "both"):
            module = (folder_of(installed(kind), "reel.pc") / "reel.pc").read_text()
            self.assertIn(f"Version: {VERSION}\n", module)
            self.assertNotIn("json", module)
            if kind == "shared":
                self.assertNotIn("Requires.private", module)

    def test_a_library_of_another_version_is_refused_before_the_program_starts(self):
        program, _ = link(self.compilers[0], "shared", flags("shared", "--libs"))
        other = folder() / "other"
        other.mkdir()
        failed, output = fails(program, LD_LIBRARY_PATH=str(other))
        self.assertTrue(failed)
        self.assertIn(f"libreel.so.{INTERFACE}: cannot open shared object file", output)
        # One of another version that was given the file's name.
        exports = other / "exports.map"
        exports.write_text("REEL_9.9 { local: *; };\n")
        name = f"libreel.so.{INTERFACE}"
        run("g++", "-shared", "-x", "c++", "/dev/null", f"-Wl,--version-script={exports}",
            f"-Wl,-soname,{name}", "-o", other / name)
        failed, output = fails(program, LD_LIBRARY_PATH=str(other))
        self.assertTrue(failed)
        self.assertIn(f"version `REEL_{INTERFACE}' not found", output)


if __name__ == "__main__":
    unittest.main()
