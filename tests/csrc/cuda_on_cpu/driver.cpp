// The schemas, and what libtorch_cuda would bring.

#include "../../../csrc/library.cpp"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>

#include <cstdlib>
#include <cstring>

#include "cuda_runtime.h"

extern "C" {

AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return 0; }
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}

AOTITorchError torch_c10_cuda_check_msg(
    int32_t error, const char* file, const char*, uint32_t line, bool, char** message) {
  *message = nullptr;
  if (error == cudaSuccess) return 0;
  const std::string text = std::string("CUDA on the CPU: wrong launch, ") + file + ":" +
                           std::to_string(line);
  *message = strdup(text.c_str());
  return 0;
}
void torch_c10_cuda_free_error_msg(char* message) { std::free(message); }

// For the tests, through ctypes.
__attribute__((visibility("default"))) void emulator_seed(unsigned seed) {
  cuda_on_cpu::random.seed(seed);
}
__attribute__((visibility("default"))) int64_t emulator_launches() {
  return cuda_on_cpu::num_launches;
}
__attribute__((visibility("default"))) int64_t emulator_waits() { return cuda_on_cpu::num_waits; }
}
