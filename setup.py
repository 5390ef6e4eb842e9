"""Build of the native parts and of the wheel; the metadata is in pyproject.toml.

Three extensions, each of which may be missing: `detlite.ops._native` (C++), `_native_cuda` (CUDA,
where there is an nvcc and a torch with CUDA) and `detlite.evaluation._coco_match` (Cython). What
could not be built is named with its reason, and plain torch or pycocotools does its work.
DETLITE_NATIVE says otherwise: `off` builds none, `cpu` leaves CUDA out, `require` makes an error
of a failure.

torch is compiled against, not part of the build: the torch of the environment that detlite is
installed into is used where there is one, though pip builds in an environment of its own. Only
where there is none does pip install one for the build, another 5 GB for its duration.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

try:
    from Cython.Build import cythonize
except ImportError:  # `pip install --no-build-isolation` without it
    cythonize = None
try:
    # pip hides these folders from the build; what it installed for the build is found first.
    sys.path += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    import torch
    from torch.utils import cpp_extension
except ImportError:
    torch = None
else:
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
        torch = None  # pip is about to replace it

MODE = os.environ.get("DETLITE_NATIVE", "auto")
if MODE not in ("auto", "off", "cpu", "require"):
    sys.exit(f"DETLITE_NATIVE must be auto, off, cpu or require, got {MODE!r}")

# The stable ABI of torch 2.10: the binary runs under every torch from there on.
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"
# Every operation is rounded by itself, so that CPU, CUDA and plain torch agree to the bit.
EXACT = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS = ["-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-Wall", STABLE_ABI, *EXACT]
NVCC_FLAGS = ["-O3", "-std=c++20", "--fmad=false", STABLE_ABI, "-DUSE_CUDA"]
# Without a GPU to ask: A100 and H100, and PTX for what comes after them.
CUDA_ARCHITECTURES = "8.0;9.0+PTX"


def sources(folder: str, pattern: str) -> list[str]:
    """Files under csrc/, relative to this file as setuptools wants them."""
    return sorted(str(path) for path in Path("csrc", folder).glob(pattern))


def extensions() -> list[Extension]:
    """What this machine can try to build."""
    found = []
    if cythonize is not None:
        matcher = Extension(
            "detlite.evaluation._coco_match",
            ["detlite/evaluation/_coco_match.pyx"],
            depends=[str(path) for path in Path("detlite/evaluation").glob("*.pxi")],
            # BuildExtension compiles C++ only.
            language="c++",
            extra_compile_args=["-O3", "-g0", *EXACT],
        )
        found += cythonize([matcher], build_dir="build")
    if torch is not None:
        found.append(
            cpp_extension.CppExtension(
                "detlite.ops._native",
                ["csrc/library.cpp", *sources("cpu", "*.cpp")],
                extra_compile_args={"cxx": [*CXX_FLAGS]},
                py_limited_api=True,  # it holds no Python at all
            )
        )
        if has_cuda():
            kernels = cpp_extension.CUDAExtension(
                "detlite.ops._native_cuda",
                sources("cuda", "*.cu"),
                extra_compile_args={"cxx": [*CXX_FLAGS], "nvcc": [*NVCC_FLAGS]},
                py_limited_api=True,
            )
            # Linked in, as nvcc itself does: torch may bring a runtime of another name.
            kernels.libraries.remove("cudart")
            kernels.libraries += ["cudart_static", "rt", "dl", "pthread"]
            found.append(kernels)
    return found


def has_cuda() -> bool:
    """Whether there are a toolkit and a torch with CUDA; tells torch where and for which GPUs."""
    nvcc = shutil.which("nvcc")
    if MODE == "cpu" or torch.version.cuda is None or nvcc is None:
        return False
    # torch takes the folder of any nvcc on the path, which may be a link or a script.
    homes = [os.environ.get("CUDA_HOME"), Path(nvcc).resolve().parents[1], "/usr/local/cuda"]
    homes = [home for home in homes if home and Path(home, "include/cuda_runtime.h").exists()]
    if not homes:
        return False
    cpp_extension.CUDA_HOME = str(homes[0])
    if not torch.cuda.is_available():
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHITECTURES)
    return True


class BuildWithConfigs(build_py):
    """Put configs/ into a wheel as detlite/configs; an editable install reads them in place."""

    def run(self) -> None:
        """Copy the configs beside the modules."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "detlite", "configs")
            shutil.copytree("configs", target, dirs_exist_ok=True)


class BuildEach(build_ext if torch is None else cpp_extension.BuildExtension):
    """Build extensions one by one; go on without those that fail."""

    def build_extensions(self) -> None:
        """Build what can be built; ``extensions`` holds only that afterwards."""
        wanted, built = self.extensions, []
        for extension in wanted:
            self.extensions = [extension]
            try:
                super().build_extensions()
                built.append(extension)
            # Whatever a missing compiler, header or toolkit raises, the install must not fail.
            except Exception as error:
                if MODE == "require":
                    raise
                print(f"detlite: {extension.name} is left out: {error}", file=sys.stderr)
        self.extensions = built


setup(
    ext_modules=[] if MODE == "off" else extensions(),
    cmdclass={"build_ext": BuildEach, "build_py": BuildWithConfigs},
    # What a build needs beside pyproject.toml's list.
    setup_requires=["torch>=2.10"] if torch is None and MODE != "off" else [],
)
