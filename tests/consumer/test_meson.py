"""Reel as a subproject of a user's Meson project, and configurations that are refused."""
import json
import pathlib
import re
import shutil
import sys
import unittest

from consumers import (BUILD, CMAKE, EXPECTED, HERE, INTERFACE, LIBRARY_ALONE, LONG, MESON, ROOT, VERSION, WERROR,
                       archive, fails, folder, need, run)

CROSS = """
[host_machine]
system = 'linux'
cpu_family = '{family}'
cpu = '{family}'
endian = '{endian}'
[binaries]
cpp = '{compiler}'
pkg-config = 'pkg-config'
[built-in options]
cpp_args = {args}
[properties]
skip_sanity_check = true
pkg_config_libdir = {modules}
"""


def cross_file(family, endian, compiler, args="[]", modules="[]"):
    path = folder() / f"{family}-{endian}.ini"
    path.write_text(CROSS.format(family=family, endian=endian, compiler=compiler, args=args,
                                 modules=modules))
    return f"--cross-file={path}"


def copy_project(project):
    (project / "subprojects").mkdir(parents=True, exist_ok=True)
    for path in [HERE / "meson.build", HERE / "border.h", *HERE.glob("*.cpp")]:
        shutil.copy2(path, project)


class Subproject(unittest.TestCase):
    def test_compiled_with_the_project(self):
        # Optimising causes additional warnings, but takes minutes. The folder is kept, so that later only
        # changes are compiled.
        project = BUILD / "consumer"
        copy_project(project)
        reel = project / "subprojects" / "reel"
        if not reel.exists():
            reel.symlink_to(ROOT, target_is_directory=True)
        # Meson 1.12 keeps a subproject's own build type whatever its optimization is set to.
        options = [f"-Dreel:buildtype={'release' if LONG else 'plain'}",
                   f"-Dreel:werror={WERROR}"]
        if (project / "build" / "build.ninja").exists():
            run(MESON, "configure", project / "build", *options)
        else:
            run(MESON, "setup", project / "build", project, "--force-fallback-for=reel", *options)
        run(MESON, "compile", "-C", project / "build")
        self.assertEqual(run(project / "build" / "consumer"), EXPECTED)

    def test_wrap_of_an_archive(self):
        # The library's sources are not compiled again; see reuse.py.
        name = f"reel-{VERSION}"
        packed = archive(name)
        project = folder() / "wrapped"
        copy_project(project)
        (project / "subprojects" / "packagefiles").mkdir()
        shutil.copy2(packed, project / "subprojects" / "packagefiles")
        checksum = run("sha256sum", packed).split()[0]
        wrap = (ROOT / "packaging" / "reel.wrap").read_text()
        for before, after in (("@version@", VERSION), ("@sha256@", checksum)):
            self.assertIn(before, wrap)
            wrap = wrap.replace(before, after)
        (project / "subprojects" / "reel.wrap").write_text(wrap)
        tree = project / "subprojects" / name
        compiler = [sys.executable, str(HERE / "reuse.py"), str(BUILD), str(tree), "g++"]
        native = project / "native.ini"
        native.write_text(f"[binaries]\ncpp = {compiler}\n")
        build = project / "build"
        run(MESON, "setup", build, project, f"--native-file={native}", "--force-fallback-for=reel",
            "-Dbuildtype=release", "-Db_ndebug=true", "-Db_pch=false", "-Dreel:default_library=shared")
        run(MESON, "compile", "-C", build)
        self.assertEqual(run(build / "consumer"), EXPECTED)
        self.assertIn(f"libreel.so.{INTERFACE}", run("ldd", build / "consumer"))


class Flags(unittest.TestCase):
    def test_what_is_compiled_for_each_instruction_set_is_always_optimised(self):
        # Otherwise its inline functions are left over, and the linker keeps those of one set for all.
        build = folder() / "unoptimised"
        run(MESON, "setup", build, ROOT, *LIBRARY_ALONE, "--wrap-mode=nofallback", CXXFLAGS="-O0")
        commands = [c["command"] for c in json.loads((build / "compile_commands.json").read_text())
                    if re.match("libreel-", c["output"])]
        self.assertGreater(len(commands), 0)
        for command in commands:
            self.assertEqual(re.findall(r" (-O\S*)", command)[-1], "-O3", command)


class Hosts(unittest.TestCase):
    def configure(self, *options):
        build = folder() / "-".join(["build"] + [option.split("/")[-1] for option in options])
        return fails(MESON, "setup", build, ROOT, *LIBRARY_ALONE, "--wrap-mode=nofallback", *options)

    def configure_with_cmake(self, processor, compiler, flags, *options):
        """Configures for a processor, whose libraries need not be installed."""
        toolchain = folder() / f"{processor}.cmake"
        toolchain.write_text(f"set(CMAKE_SYSTEM_NAME Linux)\nset(CMAKE_SYSTEM_PROCESSOR {processor})\n"
                             f"set(CMAKE_CXX_COMPILER {compiler})\nset(CMAKE_CXX_FLAGS_INIT {flags})\n"
                             "set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)\n")
        return fails(CMAKE, "-S", ROOT, "-B", folder() / f"cmake-{processor}",
                     f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", *options)

    def test_processors_that_are_refused_before_anything_is_compiled(self):
        for family, endian, args in (("x86", "little", "['-m32']"), ("arm", "little", "[]"),
                                     ("ppc64", "big", "[]"), ("s390x", "big", "[]")):
            with self.subTest(family):
                failed, output = self.configure(cross_file(family, endian, "g++", args))
                self.assertTrue(failed)
                self.assertIn("ERROR: Problem encountered: Reel is for 64-bit little-endian processors, "
                              "such as x86_64 and aarch64, not for this host: "
                              f"{family}, {endian}-endian", output)

    def test_cmake_refuses_them_too(self):
        need(CMAKE)
        failed, output = self.configure_with_cmake("i686", "g++", "-m32")
        self.assertTrue(failed)
        self.assertIn("Reel is for 64-bit little-endian processors, such as x86_64 and aarch64, not for this "
                      "host: i686, 32 bits, LITTLE_ENDIAN", " ".join(output.split()))

    def test_a_cross_file_of_a_user(self):
        compiler = "aarch64-linux-gnu-g++"
        need(compiler)
        modules = [str(ROOT / ".ci" / "cross"), "/usr/share/pkgconfig"]
        failed, output = self.configure(cross_file(
            "aarch64", "little", compiler, "['-idirafter', '/usr/include', '-DFMT_HEADER_ONLY']", modules))
        self.assertFalse(failed, output)

    def test_a_toolchain_file_of_a_user(self):
        need(CMAKE, "aarch64-linux-gnu-g++")
        failed, output = self.configure_with_cmake(
            "aarch64", "aarch64-linux-gnu-g++", "",
            *(f"-Dfmt_DIR={path.parent}" for path in pathlib.Path("/usr/lib").glob("*/cmake/fmt/fmt-config.cmake")))
        self.assertFalse(failed, output)
        self.assertIn("REEL_IS_X86_64 - Failed", output)


if __name__ == "__main__":
    unittest.main()
