// The sum of the focal loss over class indices, and its gradient; see cpu/sigmoid_focal_loss.cpp
// for shapes and meaning.
//
// With z = logit, negated at an anchor's own class, an entry is wrong by p = sigmoid(z), weighs
// alpha (1 - alpha elsewhere) times p^gamma, and its cross-entropy is softplus(z). The sum is the
// same in every run: each block adds its part in float64, and one block adds the parts. Nothing
// waits for the device.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>

#include "element_types.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace detlite {
namespace {

constexpr int kThreads = 256;
// Enough for the largest GPU; fixed, since it decides how the sum is rounded.
constexpr int64_t kMaxBlocks = 4096;

template <typename T>
struct Focal {
  T own_weight, other_weight, gamma;

  Focal(double alpha, double gamma)
      : own_weight(static_cast<T>(alpha)),
        other_weight(static_cast<T>(1 - alpha)),
        gamma(finite_exponent<T>(gamma)) {
    STD_TORCH_CHECK(gamma >= 0, "gamma must be at least 0, got ", gamma);
  }

  // p to the power of gamma; without the general case where gamma is a usual one. The logarithm
  // tells apart what is close to 1, where p itself rounds to it.
  __device__ T fade(T p, T log_p) const {
    if (gamma == T(2)) return p * p;
    if (gamma == T(0)) return T(1);
    return gamma == T(1) ? p : std::exp(gamma * log_p);
  }
};

enum class Role { kIgnored, kOtherClass, kOwnClass };

template <typename T>
struct Entry {
  T p, rest, entropy, weight;  // rest: 1 - p

  __device__ Entry(const Focal<T>& focal, T logit, Role role) {
    const bool own = role == Role::kOwnClass;
    const T z = own ? -logit : logit;
    const T e = std::exp(-std::abs(z));  // never overflows
    const T reciprocal = T(1) / (T(1) + e);
    p = z >= 0 ? reciprocal : e * reciprocal;
    rest = z >= 0 ? e * reciprocal : reciprocal;
    const T tail = std::log1p(e);
    entropy = (z > 0 ? z : T(0)) + tail;
    const T faded = focal.fade(p, (z < 0 ? z : T(0)) - tail);
    weight = (own ? focal.own_weight : focal.other_weight) * faded;
  }

  __device__ T loss() const { return weight * entropy; }
  // By the logit: d(p^gamma) = gamma p^gamma (1 - p) dz, d(softplus) = p dz.
  __device__ T slope(const Focal<T>& focal, Role role) const {
    const T by_z = weight * (focal.gamma * rest * entropy + p);
    return role == Role::kOwnClass ? -by_z : by_z;
  }
};

template <typename Stored>
struct Predictions {
  const Stored* logits;    // (R, K)
  const int64_t* classes;  // (R,)
  int64_t num_classes;
  int64_t size;  // R K
};

// Where a thread stands in the matrix. It moves by equal steps, so that one division is enough.
struct Place {
  int64_t row, column;

  __device__ Place(int64_t index, int64_t num_classes)
      : row(index / num_classes), column(index % num_classes) {}

  __device__ void move(const Place& step, int64_t num_classes) {
    row += step.row;
    column += step.column;
    if (column >= num_classes) ++row, column -= num_classes;
  }
};

template <typename Stored, int size>
struct alignas(size * sizeof(Stored)) Values {
  Stored values[size];
};

// Calls visit(index, logits, roles) for this thread's entries, `size` neighbours at a time.
template <int size, typename Stored, typename Visit>
__device__ void for_each_pack(const Predictions<Stored>& predictions, const Visit& visit) {
  const int64_t num_classes = predictions.num_classes;
  const int64_t stride = int64_t(gridDim.x) * kThreads * size;
  int64_t index = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * size;
  Place place(index, num_classes);
  const Place step(stride, num_classes);
  for (; index < predictions.size; index += stride, place.move(step, num_classes)) {
    const auto logits = *reinterpret_cast<const Values<Stored, size>*>(predictions.logits + index);
    Role roles[size];
    int64_t row = place.row, column = place.column, own = predictions.classes[row];
#pragma unroll
    for (int k = 0; k < size; ++k) {
      roles[k] = own < 0 ? Role::kIgnored : own == column ? Role::kOwnClass : Role::kOtherClass;
      if (++column == num_classes && k + 1 < size) column = 0, own = predictions.classes[++row];
    }
    visit(index, logits, roles);
  }
}

// The sum over the block, for thread 0.
__device__ inline double block_sum(double value) {
  __shared__ double parts[kThreads / kWarp];
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kThreads / kWarp; ++i) sum += parts[i];
  return sum;
}

template <int size, typename Stored>
__global__ void __launch_bounds__(kThreads) add_losses(
    Predictions<Stored> predictions, Focal<Computed<Stored>> focal, double* parts) {
  using T = Computed<Stored>;
  double sum = 0;
  for_each_pack<size>(predictions, [&](int64_t, const auto& logits, const Role* roles) {
    T part = 0;
#pragma unroll
    for (int k = 0; k < size; ++k) {
      if (roles[k] == Role::kIgnored) continue;
      part += Entry<T>(focal, static_cast<T>(logits.values[k]), roles[k]).loss();
    }
    sum += part;
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) add_parts(const double* parts, int count, T* total) {
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += kThreads) sum += parts[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total = static_cast<T>(sum);
}

template <int size, typename Stored>
__global__ void __launch_bounds__(kThreads) write_slopes(
    Predictions<Stored> predictions, Focal<Computed<Stored>> focal, const Computed<Stored>* grad,
    Stored* slopes) {
  using T = Computed<Stored>;
  const T scale = *grad;
  for_each_pack<size>(predictions, [&](int64_t index, const auto& logits, const Role* roles) {
    Values<Stored, size> pack;
#pragma unroll
    for (int k = 0; k < size; ++k) {
      const Entry<T> entry(focal, static_cast<T>(logits.values[k]), roles[k]);
      const T slope = roles[k] == Role::kIgnored ? T(0) : scale * entry.slope(focal, roles[k]);
      pack.values[k] = static_cast<Stored>(slope);
    }
    *reinterpret_cast<Values<Stored, size>*>(slopes + index) = pack;
  });
}

// Inputs of both kernels, contiguous and of the types that they take.
struct Arguments {
  Tensor logits, classes;
  int64_t size;

  Arguments(const Tensor& raw_logits, const Tensor& raw_classes)
      : logits(torch::stable::contiguous(raw_logits)),
        classes(as_int64(raw_classes)),
        size(logits.numel()) {
    STD_TORCH_CHECK(logits.dim() == 2, "logits must have 2 dimensions, got ", logits.dim());
    check_rows(classes, "classes", logits);
  }

  template <typename Stored>
  Predictions<Stored> predictions() const {
    return {
        static_cast<const Stored*>(logits.const_data_ptr()),
        static_cast<const int64_t*>(classes.const_data_ptr()), logits.size(1), size};
  }

  template <typename Stored>
  bool packed() const {
    return is_packed(static_cast<const Stored*>(logits.const_data_ptr()), size);
  }

  int64_t num_blocks(int64_t pack) const {
    return std::min(kMaxBlocks, ceil_div(size, kThreads * pack));
  }
};

Tensor sigmoid_focal_loss_cuda(
    const Tensor& logits, const Tensor& classes, double alpha, double gamma) {
  const OnDeviceOf device(logits);
  const Arguments arguments(logits, classes);
  const Tensor parts = torch::stable::new_empty(logits, {kMaxBlocks}, ScalarType::Double);
  auto* part = static_cast<double*>(parts.mutable_data_ptr());
  return dispatch_stored(logits, "logits", [&](auto zero) {
    using Stored = decltype(zero);
    using T = Computed<Stored>;
    constexpr int kPack = Pack<Stored>::kSize;
    constexpr auto kType = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
    const bool packed = arguments.packed<Stored>();
    const int64_t blocks = arguments.num_blocks(packed ? kPack : 1);
    device.launch(
        packed ? &add_losses<kPack, Stored> : &add_losses<1, Stored>, grid_of(blocks), kThreads,
        arguments.predictions<Stored>(), Focal<T>(alpha, gamma), part);
    Tensor total = torch::stable::new_empty(logits, {}, kType);
    device.launch(
        &add_parts<T>, dim3(1), kThreads, static_cast<const double*>(part),
        static_cast<int>(blocks), static_cast<T*>(total.mutable_data_ptr()));
    return total;
  });
}

Tensor sigmoid_focal_loss_backward_cuda(
    const Tensor& grad, const Tensor& logits, const Tensor& classes, double alpha, double gamma) {
  const OnDeviceOf device(logits);
  const Arguments arguments(logits, classes);
  STD_TORCH_CHECK(grad.numel() == 1, "grad must have one entry, got ", grad.numel());
  check_same_device(grad, logits, "grad and logits");
  Tensor slopes = torch::stable::empty_like(arguments.logits);
  dispatch_stored(logits, "logits", [&](auto zero) {
    using Stored = decltype(zero);
    using T = Computed<Stored>;
    constexpr int kPack = Pack<Stored>::kSize;
    constexpr auto kType = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
    const Tensor scale = torch::stable::to(grad, kType);
    auto* out = static_cast<Stored*>(slopes.mutable_data_ptr());
    const bool packed = arguments.packed<Stored>() && is_packed(out, arguments.size);
    device.launch(
        packed ? &write_slopes<kPack, Stored> : &write_slopes<1, Stored>,
        grid_of(arguments.num_blocks(packed ? kPack : 1)), kThreads,
        arguments.predictions<Stored>(), Focal<T>(alpha, gamma),
        static_cast<const T*>(scale.const_data_ptr()), out);
  });
  return slopes;
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&detlite::sigmoid_focal_loss_cuda));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&detlite::sigmoid_focal_loss_backward_cuda));
}
