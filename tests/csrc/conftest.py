"""The CUDA kernels compiled for the CPU, see cuda_on_cpu/cuda_runtime.h."""

import ctypes
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).parents[2]
EMULATOR = Path(__file__).with_name("cuda_on_cpu")
# setup.py's for what decides about results. Names are renamed throughout: beside the real library
# there must be nothing that the linker could take for the same.
FLAGS = [
    *["-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"],
    *["-Wall", "-Wno-unknown-pragmas", "-Werror"],
    *["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-Ddetlite=detlite_emulated"],
]


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    """The operators of csrc/cuda as ``ops``; ``launches()`` and ``waits()`` so far; ``seed(n)``.

    With DETLITE_SANITIZE=address,undefined they are compiled with those sanitizers.
    """
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to compile the CUDA kernels for the CPU")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    library = _build(folder, os.environ.get("DETLITE_SANITIZE", ""))
    torch.ops.load_library(library)
    emulator = ctypes.CDLL(str(library))
    emulator.emulator_launches.restype = emulator.emulator_waits.restype = ctypes.c_int64
    return SimpleNamespace(
        ops=torch.ops.detlite_emulated,
        launches=emulator.emulator_launches,
        waits=emulator.emulator_waits,
        seed=emulator.emulator_seed,
    )


def _build(folder: Path, sanitizers: str) -> Path:
    sanitize = []
    if sanitizers:
        sanitize = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-g"]
    includes = [f"-I{EMULATOR}", *(f"-isystem{path}" for path in cpp_extension.include_paths())]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
    compiler = ["g++", *FLAGS, *sanitize, *includes, "-c"]
    commands = [[*compiler, str(EMULATOR / "driver.cpp"), "-o", str(folder / "driver.o")]]
    for kernels in sorted(path.stem for path in (ROOT / "csrc/cuda").glob("*.cu")):
        source = [f"-DKERNELS={kernels}", str(EMULATOR / "emulate.cpp")]
        commands.append([*compiler, *source, "-o", str(folder / f"{kernels}.o")])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_run, commands))
    library = folder / "detlite_emulated.so"
    objects = sorted(map(str, folder.glob("*.o")))
    # Symbolic: its own stand-ins for libtorch_cuda come before the real ones.
    link = ["g++", "-shared", *sanitize, "-Wl,-Bsymbolic", *objects, *libraries]
    _run([*link, "-ltorch", "-ltorch_cpu", "-lc10", "-o", str(library)])
    return library


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture(autouse=True)
def _garbage_in_new_memory():
    """Torch fills what it allocates with NaN or the largest integer: nothing may depend on it.

    One thread, since the work comes in crumbs.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.set_num_threads(before[1])
