// What the 32 threads of a warp do together.

#pragma once

#include <cuda_runtime.h>

namespace detlite {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;

// Every thread of the warp gets the sum of all.
template <typename T>
__device__ T warp_sum(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, step);
  }
  return value;
}

template <typename T>
__device__ T warp_max(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kWholeWarp, value, step);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace detlite
