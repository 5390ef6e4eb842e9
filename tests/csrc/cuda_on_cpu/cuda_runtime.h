// CUDA on the CPU, for tests: the few words of CUDA that csrc/cuda uses, so that a C++ compiler
// takes the same kernels as nvcc does. Stands in for the toolkit's header of this name.
//
// It proves logic, not speed. Each thread of a block is a fiber (scheduler.h). Where real threads
// would run side by side, fibers run in a random order from one barrier to the next, so that a
// missing barrier shows as a wrong result; shared memory starts with random bytes. A barrier that
// only some threads reach is an error.

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>

#include "scheduler.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(threads)
// One block runs at a time. A section of its own, so that the memory can be filled.
#define __shared__ static __attribute__((section("cuda_on_cpu_shared")))

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

// The host's side: streams run at once, and counters tell the tests what was asked for.

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace cuda_on_cpu {

inline int64_t num_launches = 0, num_waits = 0;
inline std::mt19937 random;

// The linker's names for the ends of the section.
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __start_cuda_on_cpu_shared[];
extern "C" __attribute__((weak, visibility("hidden"))) unsigned char __stop_cuda_on_cpu_shared[];

__attribute__((no_sanitize("address", "undefined"))) inline void fill_shared_memory() {
  const auto byte = static_cast<unsigned char>(random());
  volatile unsigned char* end = __stop_cuda_on_cpu_shared;
  for (volatile unsigned char* p = __start_cuda_on_cpu_shared; p != end; ++p) *p = byte;
}

inline dim3 at(unsigned index, dim3 shape) {
  return dim3(index % shape.x, index / shape.x % shape.y, index / shape.x / shape.y);
}

}  // namespace cuda_on_cpu

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(
    const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  namespace emulator = cuda_on_cpu;
  const dim3 grid = config->gridDim, block = config->blockDim;
  const unsigned threads = block.x * block.y * block.z;
  const bool fits = grid.x > 0 && grid.x <= 0x7fffffffu && grid.y > 0 && grid.y <= 65535 &&
                    grid.z > 0 && grid.z <= 65535;
  if (!fits || threads == 0 || threads > 1024 || threads % 32) return cudaErrorInvalidConfiguration;
  ++emulator::num_launches;
  gridDim = grid;
  blockDim = block;
  std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), emulator::random);
  for (const unsigned index : order) {
    blockIdx = emulator::at(index, grid);
    emulator::fill_shared_memory();
    emulator::scheduler.run(
        threads, emulator::random(), [&] { kernel(Parameters(arguments)...); },
        [&](unsigned thread) { threadIdx = emulator::at(thread, block); });
  }
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(
    void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  ++cuda_on_cpu::num_waits;
  return cudaSuccess;
}

// The device's side. Barriers remember the line that they stand in: all threads must meet in one.

using cuda_on_cpu::Site;

inline void __syncthreads(Site site = Site::current()) {
  cuda_on_cpu::scheduler.block_barrier(false, site);
}
inline int __syncthreads_or(int predicate, Site site = Site::current()) {
  return cuda_on_cpu::scheduler.block_barrier(predicate != 0, site) > 0;
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, Site site = Site::current()) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const uint64_t* all = cuda_on_cpu::scheduler.warp_barrier(mask, bits, site);
  std::memcpy(&value, &all[(threadIdx.x % 32) ^ lanes], sizeof(T));
  return value;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, Site site = Site::current()) {
  const uint64_t* all = cuda_on_cpu::scheduler.warp_barrier(mask, predicate != 0, site);
  unsigned ballot = 0;
  for (int lane = 0; lane < 32; ++lane) ballot |= unsigned(all[lane]) << lane;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate, Site site = Site::current()) {
  return __ballot_sync(mask, predicate, site) != 0;
}

template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}

inline int __popc(unsigned bits) { return std::popcount(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
