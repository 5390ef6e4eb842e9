// Types of 16 bits are for storage only: kernels compute in float32, or in float64 on float64.

#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "../tensors.h"

namespace detlite {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

template <typename Stored>
using Computed = std::conditional_t<std::is_same_v<Stored, double>, double, float>;

// Calls f with a value of the tensor's type, which must be floating.
template <typename F>
auto dispatch_stored(const Tensor& tensor, const char* name, const F& f) {
  if (tensor.scalar_type() == ScalarType::Half) return f(Half());
  if (tensor.scalar_type() == ScalarType::BFloat16) return f(BFloat16());
  return dispatch_floating(tensor, name, f);
}

// What one thread loads or stores at once.
constexpr int64_t kPackBytes = 16;

template <typename Stored>
struct alignas(kPackBytes) Pack {
  static constexpr int kSize = kPackBytes / sizeof(Stored);
  Stored values[kSize];
};

template <typename Stored>
bool is_packed(const Stored* values, int64_t stride) {
  return reinterpret_cast<uintptr_t>(values) % kPackBytes == 0 && stride % Pack<Stored>::kSize == 0;
}

}  // namespace detlite
