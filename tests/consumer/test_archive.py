"""The tree as an archive, without Git, and the recipes of packages that come with it."""
import json
import re
import shutil
import tarfile
import unittest

from consumers import CMAKE, EXPECTED, HERE, INTERFACE, LONG, MESON, ROOT, VERSION, archive, folder, need, run


def extracted(name):
    with tarfile.open(archive(name)) as files:
        files.extractall(folder())
    return folder() / name


class Archive(unittest.TestCase):
    def test_it_configures(self):
        tree = extracted("configured")
        run(MESON, "setup", tree / "build", tree, "--wrap-mode=nofallback")
        if shutil.which(CMAKE):
            run(CMAKE, "-S", tree, "-B", tree / "build-cmake")

    @unittest.skipUnless(LONG, "compiles everything again: REEL_LONG=1")
    def test_its_tests_pass(self):
        tree = extracted("tested")
        run("./dev", "test", cwd=tree)


class Versions(unittest.TestCase):
    def test_every_file_names_the_same(self):
        def found(path, pattern):
            return re.search(pattern, (ROOT / path).read_text()).group(1)
        parts = dict(re.findall(r"version_(\w+) = (\d+);", (ROOT / "include/reel/version.h").read_text()))
        self.assertEqual(".".join(parts[part] for part in ("major", "minor", "patch")), VERSION)
        self.assertEqual(found("CHANGELOG.md", r"\n## \[([0-9.]+)\]"), VERSION)
        self.assertEqual(found("debian/changelog", r"^reel \(([0-9.]+)-"), VERSION)
        self.assertEqual(json.loads((ROOT / "packaging/vcpkg/vcpkg.json").read_text())["version"], VERSION)
        self.assertEqual(found("debian/control", r"\nPackage: libreel([0-9.]+)\n"), INTERFACE)
        self.assertTrue((ROOT / f"debian/libreel{INTERFACE}.install").exists())


class Debian(unittest.TestCase):
    @unittest.skipUnless(LONG, "compiles the library again: REEL_LONG=1")
    def test_packages(self):
        need("dpkg-buildpackage", "dh", "dpkg-deb")
        tree = extracted("debian-build")
        # Without -d it would ask for Debian's own package of Meson.
        run("dpkg-buildpackage", "-b", "-us", "-uc", "-d", cwd=tree)
        root = folder() / "debian-root"
        contents = {}
        for package in tree.parent.glob("*.deb"):
            name = package.name.split("_")[0]
            contents[name] = run("dpkg-deb", "-c", package)
            if "dbgsym" not in name:
                run("dpkg-deb", "-x", package, root)
        if shutil.which("lintian"):
            run("lintian", "--fail-on", "error", *tree.parent.glob("*.changes"))
        self.assertIn(f"libreel.so.{INTERFACE}\n", contents[f"libreel{INTERFACE}"].replace(" ->", "\n"))
        for file in ("libreel.a", "ReelConfig.cmake", "reel.pc", "include/reel/reel.h"):
            self.assertIn(file, contents["libreel-dev"])
        self.assertIn(f"Reel {VERSION}", run(root / "usr/bin/char_lm", "--version"))
        library, = root.rglob("libreel.so")
        program = folder() / "of-debian"
        run("g++", "-std=c++20", "-I", root / "usr/include", "-isystem", "/usr/include/eigen3",
            HERE / "main.cpp", HERE / "border.cpp", library, "-lfmt", "-o", program)
        self.assertEqual(run(program, LD_LIBRARY_PATH=str(library.parent)), EXPECTED)


if __name__ == "__main__":
    unittest.main()
