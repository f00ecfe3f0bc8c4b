"""The recipe for Conan, with the libraries of this system in place of those of its registry."""
import sys
import unittest

from consumers import BUILD, CMAKE, EXPECTED, HERE, LONG, MESON, ROOT, built, folder, need, ops, run

# What the recipe requires, by the names of pkg-config.
REQUIRED = {"eigen": "eigen3", "fmt": "fmt", "nlohmann_json": "nlohmann_json", "utf8proc": "libutf8proc",
            "libzip": "libzip"}
RECIPE = """
from conan import ConanFile
from conan.tools.gnu import PkgConfig

class OfTheSystem(ConanFile):
    name, version = {name!r}, {version!r}

    def package_info(self):
        PkgConfig(self, {module!r}).fill_cpp_info(self.cpp_info)
        self.cpp_info.set_property("pkg_config_name", {module!r})
"""
PROFILE = """
[settings]
os=Linux
arch={arch}
build_type=Release
compiler=gcc
compiler.version={version}
compiler.libcxx=libstdc++11
compiler.cppstd=20
[platform_tool_requires]
meson/{meson}
[conf]
tools.build:compiler_executables={compilers}
tools.build:jobs=2
tools.cmake.cmake_layout:test_folder={test}
"""


class Conan(unittest.TestCase):
    def setUp(self):
        need("conan", "g++", "pkg-config", CMAKE)
        self.home = folder() / "conan"

    def conan(self, *arguments):
        return run("conan", *arguments, cwd=folder(), CONAN_HOME=str(self.home))

    def compiler(self):
        """Without REEL_LONG=1 one that takes the objects of the build directory; see reuse.py."""
        if LONG:
            return "g++"
        built("static")
        script = folder() / "conan-compiler"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "reuse.py"} {BUILD} "$PWD/.." g++ "$@"\n')
        script.chmod(0o755)
        return str(script)

    def test_create(self):
        self.home.mkdir()
        for name, module in REQUIRED.items():
            recipe = folder() / f"conan-{name}" / "conanfile.py"
            recipe.parent.mkdir()
            recipe.write_text(RECIPE.format(name=name, module=module,
                                            version=run("pkg-config", "--modversion", module).strip()))
            self.conan("export", recipe)
        profile = folder() / "profile"
        profile.write_text(PROFILE.format(
            arch={"x86_64": "x86_64", "aarch64": "armv8"}[run("uname", "-m").strip()],
            version=run("g++", "-dumpversion").strip().split(".")[0],
            meson=run(MESON, "--version").strip(), compilers={"cpp": self.compiler()},
            test=folder() / "conan-test"))
        output = self.conan("create", ROOT / "packaging" / "conan", "--profile:all", profile, "--build=missing",
                            "--no-remote")
        self.assertIn(f"\n{EXPECTED}", output)
        self.assertIn("\n".join(ops()), output)


if __name__ == "__main__":
    unittest.main()
