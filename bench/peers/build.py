"""Compiles the peers' C++ programs, each against the framework that it is named after."""
import os
import pathlib
import subprocess
import sys

TORCH = "/usr/include/torch/csrc/api/include"
RTNEURAL = os.environ.get("REEL_RTNEURAL", "$REEL_RTNEURAL")


def tool(variable, header):
    """One of those that differentiate C++ and are headers alone, in the folder of a variable."""
    folder = os.environ.get(variable, f"${variable}")
    return (f"{folder}/{header}", ["-DNDEBUG", "-isystem", folder, "-isystem", "/usr/include/eigen3"],
            f"its headers, in the folder that {variable} names")


FRAMEWORKS = {  # header, flags, where it is from
    "libtorch": (f"{TORCH}/torch/torch.h",
                 ["-isystem", TORCH, "-ltorch", "-ltorch_cpu", "-lc10"], "Debian: libtorch-dev"),
    "onednn": ("/usr/include/oneapi/dnnl/dnnl.hpp", ["-fopenmp", "-ldnnl"], "Debian: libdnnl-dev"),
    "rtneural": (f"{RTNEURAL}/RTNeural/RTNeural.h",
                 ["-isystem", RTNEURAL, "-isystem", "/usr/include/eigen3", "-DRTNEURAL_USE_EIGEN=1",
                  "-DRTNEURAL_DEFAULT_ALIGNMENT=32", "-DRTNEURAL_NO_DEBUG=1",
                  "-DEIGEN_STACK_ALLOCATION_LIMIT=0"],
                 "its sources, in the folder that REEL_RTNEURAL names"),
    "adept": tool("REEL_ADEPT", "adept_source.h"),
    "codipack": tool("REEL_CODIPACK", "codi.hpp"),
    "cppad": tool("REEL_CPPAD", "cppad/cppad.hpp"),
}


def build(name, directory):
    """Compiles `name`.cpp into `directory` unless it is there. None where the framework is missing,
    after saying so."""
    source = pathlib.Path(__file__).with_name(f"{name}.cpp")
    program = pathlib.Path(directory).resolve() / name
    header, flags, origin = FRAMEWORKS[name.split("_")[0]]
    if not pathlib.Path(header).exists():
        print(f"{name}: skipped, no {header} ({origin})", file=sys.stderr)
        return None
    sources = [source, source.parent / "scalar_lstm.h", source.parent.parent / "protocol.h"]
    newest = max(file.stat().st_mtime for file in sources)
    if not program.exists() or program.stat().st_mtime < newest:
        print(f"compiling {name}, once", file=sys.stderr)
        subprocess.run(["g++", "-std=c++17", "-O3", "-march=native", source, "-o", program, *flags],
                       check=True)
    return program
