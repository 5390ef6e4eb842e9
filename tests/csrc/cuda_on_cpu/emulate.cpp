// csrc/cuda/KERNELS.cu, compiled for the CPU and registered there in namespace detlite_emulated.
// Compiled once for each file, with -DKERNELS=name and -Ddetlite=detlite_emulated.

#include <torch/csrc/stable/library.h>

#include "cuda_runtime.h"

#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(name, key, m) _STABLE_TORCH_LIBRARY_IMPL(name, CPU, m, C10_UID)

#define QUOTED(path) #path
#define FILE_OF(kernels) QUOTED(../../../csrc/cuda/kernels.cu)
#include FILE_OF(KERNELS)
