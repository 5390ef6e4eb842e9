// Launching kernels: on the tensor's device, on torch's current stream.

#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/shim_utils.h>

#include <limits>

#include "../tensors.h"

namespace detlite {

// Of the y and z dimensions of a grid, in which the images of a batch are laid out.
constexpr int64_t kMaxImages = 65535;

// CUDA counts a grid in unsigned integers; every count here comes from a tensor's size.
constexpr int64_t ceil_div(int64_t count, int64_t size) { return (count + size - 1) / size; }

inline dim3 grid_of(int64_t x, int64_t y = 1, int64_t z = 1) {
  STD_TORCH_CHECK(
      x <= std::numeric_limits<int32_t>::max() && y <= kMaxImages && z <= kMaxImages,
      "too large for CUDA: a grid of ",
      x,
      " x ",
      y,
      " x ",
      z,
      " blocks");
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

// Makes the device of a tensor the current one for as long as this object lives.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

  // A grid without blocks is nothing to do, where CUDA would see a mistake.
  template <typename... Parameters, typename... Arguments>
  void launch(
      void (*kernel)(Parameters...), dim3 grid, unsigned threads, Arguments... arguments) const {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.stream = stream_;
    STD_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace detlite
