"""A user's CMake project: find_package of installations that were moved, and FetchContent."""
import sys
import unittest

from consumers import (BUILD, CMAKE, COMPILERS, HERE, INTERFACE, LONG, ROOT, VERSION, built, check_program,
                       folder, installed, need, run)


def configure(name, *options):
    """The build directory of the user's project."""
    build = folder() / f"cmake-{name}"
    run(CMAKE, "-S", HERE, "-B", build, *options)
    return build


class FindPackage(unittest.TestCase):
    def setUp(self):
        need(CMAKE)

    def check(self, name, kind, compiler, *options):
        need(compiler[0])
        build = configure(name, f"-DCMAKE_PREFIX_PATH={installed(kind)}",
                          f"-DCMAKE_CXX_COMPILER={compiler[0]}",
                          f"-DCMAKE_CXX_FLAGS={' '.join(compiler[1:])}", *options)
        run(CMAKE, "--build", build, "--parallel", "2")
        check_program(self, build / "consumer", build / "registry")
        return run("ldd", build / "consumer")

    def test_static(self):
        self.assertNotIn("libreel", self.check("static", "static", COMPILERS[1]))

    def test_shared(self):
        libraries = self.check("shared", "shared", COMPILERS[2], "-DCMAKE_BUILD_TYPE=Debug")
        self.assertIn(f"libreel.so.{INTERFACE} => {installed('shared')}", libraries)

    def test_the_static_library_beside_the_shared_one(self):
        for static in (False, True):
            build = configure(f"both-{static}", f"-DCMAKE_PREFIX_PATH={installed('both')}",
                              f"-DReel_USE_STATIC_LIBS={static}")
            run(CMAKE, "--build", build, "--target", "registry")
            libraries = run("ldd", build / "registry")
            (self.assertNotIn if static else self.assertIn)("libreel.so", libraries)

    def test_versions_that_are_found(self):
        script = folder() / "versions"
        script.mkdir()
        major, minor, patch = map(int, VERSION.split("."))
        wanted = {f"{major}.{minor}": True, VERSION: True, f"{VERSION} EXACT": True, "": True,
                  f"{major}.{minor}.{patch + 1}": False, f"{major}.{minor + 1}": False,
                  f"{major}.{minor}...{major}.{minor + 1}": True, "0.1...<0.2": False, "0.1": False,
                  f"{major + 1}": False, f"{major}.{minor}0": False}
        lines = [f"find_package(Reel {version} CONFIG QUIET)\n"
                 f'message("{version}=${{Reel_FOUND}}")\nunset(Reel_DIR CACHE)' for version in wanted]
        (script / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.20)\n"
                                               "project(versions CXX)\n" + "\n".join(lines))
        output = run(CMAKE, "-S", script, "-B", script / "build",
                     f"-DCMAKE_PREFIX_PATH={installed('static')}").splitlines()
        for version, found in wanted.items():
            self.assertIn(f"{version}={1 if found else 0}", output)


class FetchContent(unittest.TestCase):
    def setUp(self):
        need(CMAKE)

    def test_with_the_objects_of_meson(self):
        # The library's sources are not compiled again, but their flags are compared.
        for shared in (False, True):
            with self.subTest(shared=shared):
                build = configure(  # the second time only what links is built again
                    "fetched", f"-DREEL_TREE={ROOT}", f"-DBUILD_SHARED_LIBS={shared}",
                    f"-DCMAKE_CXX_COMPILER_LAUNCHER={sys.executable};{HERE / 'reuse.py'};{BUILD};{ROOT}")
                run(CMAKE, "--build", build, "--parallel", "2")
                check_program(self, build / "consumer", build / "registry")
                self.assertEqual("libreel.so" in run("ldd", build / "consumer"), shared)

    @unittest.skipUnless(LONG, "compiles the library again: REEL_LONG=1")
    def test_from_the_beginning(self):
        for compiler in ("g++", "clang++"):
            with self.subTest(compiler):
                need(compiler)
                build = configure(f"whole-{compiler}", f"-DREEL_TREE={ROOT}", "-DBUILD_SHARED_LIBS=ON",
                                  f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_BUILD_TYPE=Release")
                run(CMAKE, "--build", build, "--parallel", "2")
                check_program(self, build / "consumer", build / "registry")


if __name__ == "__main__":
    unittest.main()
