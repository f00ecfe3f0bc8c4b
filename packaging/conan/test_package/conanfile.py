"""What `conan create` runs of the package: the program of a user in ../../../tests/consumer."""
import os

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, cmake_layout


class ReelTest(ConanFile):
    settings = "os", "compiler", "build_type", "arch"
    generators = "CMakeToolchain", "CMakeDeps"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure(build_script_folder=os.path.join("..", "..", "..", "tests", "consumer"))
        cmake.build()

    def test(self):
        if can_run(self):
            for program in ("consumer", "registry"):
                self.run(os.path.join(self.cpp.build.bindir, program), env="conanrun")
