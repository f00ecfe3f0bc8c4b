"""Compiles the peers' C++ programs, each against the framework that it is named after."""
import pathlib
import subprocess
import sys

TORCH = "/usr/include/torch/csrc/api/include"
FRAMEWORKS = {  # header, flags, Debian package
    "libtorch": (f"{TORCH}/torch/torch.h",
                 ["-isystem", TORCH, "-ltorch", "-ltorch_cpu", "-lc10"], "libtorch-dev"),
    "onednn": ("/usr/include/oneapi/dnnl/dnnl.hpp", ["-fopenmp", "-ldnnl"], "libdnnl-dev"),
}


def build(name, directory):
    """Compiles `name`.cpp into `directory` unless it is there. None where the framework is missing,
    after saying so."""
    source = pathlib.Path(__file__).with_name(f"{name}.cpp")
    program = pathlib.Path(directory).resolve() / name
    header, flags, package = FRAMEWORKS[name.split("_")[0]]
    if not pathlib.Path(header).exists():
        print(f"{name}: skipped, no {header} (Debian: {package})", file=sys.stderr)
        return None
    sources = [source, source.parent.parent / "protocol.h"]
    newest = max(file.stat().st_mtime for file in sources)
    if not program.exists() or program.stat().st_mtime < newest:
        print(f"compiling {name}, once", file=sys.stderr)
        subprocess.run(["g++", "-std=c++17", "-O3", "-march=native", source, "-o", program, *flags],
                       check=True)
    return program
