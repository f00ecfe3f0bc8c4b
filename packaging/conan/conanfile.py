"""A Conan 2 recipe, of the tree that it is in: conan create packaging/conan"""
import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load
from conan.tools.gnu import PkgConfigDeps
from conan.tools.layout import basic_layout
from conan.tools.meson import Meson, MesonToolchain


class Reel(ConanFile):
    name = "reel"
    description = "Recurrent networks in C++20: autodiff, layers, optimizers, datasets"
    license = "MIT"
    package_type = "library"
    settings = "os", "compiler", "build_type", "arch"
    options = {"shared": [True, False]}
    default_options = {"shared": False}

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, "..", "..", "meson.build"))
        self.version = re.search(r"version: '([0-9.]+)'", text).group(1)

    def export_sources(self):
        tree = os.path.join(self.recipe_folder, "..", "..")
        for pattern in ("meson.build", "meson_options.txt", "LICENSE", "autograd/*", "nn/*", "optim/*",
                        "datasets/*", "include/*", "packaging/*"):
            copy(self, pattern, tree, self.export_sources_folder)

    def layout(self):
        basic_layout(self)

    def requirements(self):
        self.requires("eigen/[>=3.4 <6]", transitive_headers=True)
        self.requires("fmt/[>=9 <13]", transitive_headers=True, transitive_libs=True)
        self.requires("nlohmann_json/[>=3.11 <4]")
        self.requires("utf8proc/[>=2.6 <3]")
        self.requires("libzip/[>=1.7 <2]")

    def build_requirements(self):
        self.tool_requires("meson/[>=1.0.1 <2]")

    def validate(self):
        check_min_cppstd(self, 20)
        if self.settings.os != "Linux" or self.settings.arch not in ("x86_64", "armv8"):
            raise ConanInvalidConfiguration("Reel is built for Linux on x86_64 and armv8")

    def generate(self):
        PkgConfigDeps(self).generate()
        toolchain = MesonToolchain(self)
        for part in ("tests", "examples", "benchmarks"):
            toolchain.project_options[part] = "disabled"
        toolchain.generate()

    def build(self):
        meson = Meson(self)
        meson.configure()
        meson.build()

    def package(self):
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        Meson(self).install()

    def package_info(self):
        self.cpp_info.libs = ["reel"]
        self.cpp_info.set_property("cmake_file_name", "Reel")
        self.cpp_info.set_property("cmake_target_name", "Reel::reel")
        self.cpp_info.set_property("pkg_config_name", "reel")
        # As in meson.build: cells that a program writes itself have the same bits everywhere.
        self.cpp_info.cxxflags = ["-ffp-contract=off", "-fno-trapping-math"]
        if self.settings.os == "Linux":
            self.cpp_info.system_libs = ["pthread"]
