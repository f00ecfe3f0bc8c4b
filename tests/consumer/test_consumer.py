"""Builds a user's program against Reel: installed, through pkg-config, and as a Meson subproject."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = pathlib.Path(os.environ.get("REEL_BUILD", ROOT / "build"))
WERROR = os.environ.get("REEL_WERROR", "false")
LONG = os.environ.get("REEL_LONG") == "1"  # as ./dev test --long sets it
MESON = "/usr/bin/meson" if os.path.exists("/usr/bin/meson") else "meson"
EXPECTED = "[5, 2, 3] 1\n"


def run(*command, **environment):
    done = subprocess.run([str(word) for word in command], env={**os.environ, **environment},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding="utf-8")
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


class Consumer(unittest.TestCase):
    def test_installed_through_pkg_config(self):
        with tempfile.TemporaryDirectory() as folder:
            staging = pathlib.Path(folder)
            run(MESON, "install", "-C", BUILD, "--no-rebuild", "--quiet", DESTDIR=folder)
            module, = staging.rglob("reel.pc")
            flags = run("pkg-config", "--cflags", "--libs", "reel",
                        PKG_CONFIG_PATH=str(module.parent)).split()
            program = staging / "consumer"
            compiler = ("g++", "-std=c++20", "-Wall", "-Wextra", "-Werror")
            # Nothing in the library may depend on the flags of the program that links it.
            for own in ([], ["-O0", "-march=x86-64"], ["-O2", "-march=native"]):
                run(*compiler, *own, HERE / "main.cpp", *flags, "-o", program)
                self.assertEqual(run(program), EXPECTED)
            # AVX-512, which this processor may lack: GCC warns in its own header for it.
            run(*compiler, "-O2", "-march=x86-64-v4", "-c", HERE / "main.cpp", *flags, "-o",
                staging / "main.o")
            for name in ("bin/char_lm", "share/man/man1/char_lm.1", "share/zsh/site-functions/_char_lm",
                         "share/bash-completion/completions/char_lm"):
                installed, = staging.rglob(name)
                self.assertGreater(installed.stat().st_size, 0)

    def test_the_library_shares_no_function_of_eigen_with_the_program(self):
        # Eigen's alignment of memory depends on the instruction set that a file is compiled for;
        # the linker would keep one function for all.
        symbols = run("nm", "-C", "--defined-only", BUILD / "libreel.a").splitlines()
        shared = [line for line in symbols if " Eigen::" in line.split("reel::")[0] and
                  line.split()[1:2] and line.split()[1] in "WVu"]
        self.assertEqual(shared, [])

    def test_files_of_one_instruction_set_share_no_function_with_the_others(self):
        # The linker keeps one copy of an inline function: that of AVX-512 would end on other
        # processors.
        objects = sorted(BUILD.glob("libreel-*.p/*.o"))
        self.assertGreater(len(objects), 0)
        for path in objects:
            for line in run("nm", "-C", "--defined-only", path).splitlines():
                _, kind, name = line.split(maxsplit=2)
                if name == "DW.ref.__gxx_personality_v0":
                    continue  # the address of the C++ library's exception handler
                self.assertNotIn(kind, "WVu", f"{path}: {name}")
                if kind.isupper():
                    self.assertIn("(reel::kernels::Level)", name)

    def test_meson_subproject(self):
        # Optimising causes additional warnings, but takes minutes. The folder is kept, so that later only
        # changes are compiled.
        project = BUILD / "consumer"
        (project / "subprojects").mkdir(parents=True, exist_ok=True)
        for name in ("main.cpp", "meson.build"):
            shutil.copy2(HERE / name, project)
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


if __name__ == "__main__":
    unittest.main()
