"""What the libraries share with the programs that link them."""
import re
import unittest

from consumers import BUILD, built, run


class Symbols(unittest.TestCase):
    def test_the_static_library_shares_no_function_of_eigen_with_the_program(self):
        # Eigen's alignment of memory depends on the instruction set that a file is compiled for;
        # the linker would keep one function for all.
        symbols = run("nm", "-C", "--defined-only", BUILD / "libreel.a").splitlines()
        shared = [line for line in symbols if " Eigen::" in line.split("reel::")[0] and
                  line.split()[1:2] and line.split()[1] in "WVu"]
        self.assertEqual(shared, [])

    def test_the_shared_library_exports_only_what_is_in_namespace_reel(self):
        lines = run("nm", "-D", "--defined-only", built("shared")).splitlines()
        names = {line.split()[-1].split("@")[0] for line in lines if line.split()[1] != "A"}
        for name in ("_ZN4reel7versionEv", "_ZN4reel2op8registryEv", "_ZTIN4reel10ShapeErrorE"):
            self.assertIn(name, names)
        # The names of functions, variables, their guards and types, as the C++ ABI writes them.
        ours = re.compile(r"_Z(T[IVSTHW]|T[hvc][n\d_hv]+|GV)?Z?N[KVRO]*4reel")
        self.assertEqual([name for name in names if not ours.match(name)], [])

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


if __name__ == "__main__":
    unittest.main()
