// What every kernel needs of a tensor. Python checks arguments for the user, with better messages;
// the checks here keep a wrong call of torch.ops.detlite from touching memory that is not its own.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "box.h"

namespace detlite {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_boxes(const Tensor& boxes, const char* name, int64_t dimensions = 2) {
  STD_TORCH_CHECK(
      boxes.dim() == dimensions && boxes.size(dimensions - 1) == 4,
      name,
      " must have 4 columns and ",
      dimensions,
      " dimensions, got ",
      boxes.dim(),
      " dimensions");
}

inline void check_same_device(const Tensor& a, const Tensor& b, const char* names) {
  STD_TORCH_CHECK(
      a.is_cuda() == b.is_cuda() && a.get_device_index() == b.get_device_index(),
      names,
      " must be on one device");
}

inline void check_same_type(const Tensor& a, const Tensor& b, const char* names) {
  check_same_device(a, b, names);
  STD_TORCH_CHECK(a.scalar_type() == b.scalar_type(), names, " must be of one type");
}

// A tensor that goes with the rows of another.
inline void check_rows(const Tensor& tensor, const char* name, const Tensor& rows) {
  STD_TORCH_CHECK(
      tensor.dim() == 1 && tensor.size(0) == rows.size(0),
      name,
      " must have ",
      rows.size(0),
      " entries");
  check_same_device(tensor, rows, name);
}

// A contiguous tensor for the kernels: types of 16 bits become float32.
inline Tensor widened(const Tensor& tensor) {
  const ScalarType type = tensor.scalar_type();
  const bool narrow = type == ScalarType::Half || type == ScalarType::BFloat16;
  return torch::stable::contiguous(
      narrow ? torch::stable::to(tensor, ScalarType::Float) : tensor);
}

inline Tensor as_int64(const Tensor& tensor) {
  return torch::stable::contiguous(torch::stable::to(tensor, ScalarType::Long));
}

// Calls f with a value of the tensor's type, which must be float or double.
template <typename F>
auto dispatch_floating(const Tensor& tensor, const char* name, const F& f) {
  if (tensor.scalar_type() == ScalarType::Double) return f(double());
  STD_TORCH_CHECK(
      tensor.scalar_type() == ScalarType::Float, name, " must be float32 or float64");
  return f(float());
}

// The largest number of type T up to the threshold: a T exceeds the double exactly if it exceeds
// this number, which is how torchvision compares in NMS.
template <typename T>
T round_down(double threshold) {
  T rounded = static_cast<T>(threshold);
  if (rounded > threshold) rounded = std::nextafter(rounded, -std::numeric_limits<T>::infinity());
  return rounded;
}

// An exponent as a T, infinity as the largest finite number: infinity times 0 would be a NaN.
template <typename T>
T finite_exponent(double exponent) {
  return static_cast<T>(
      std::min(exponent, static_cast<double>(std::numeric_limits<T>::max())));
}

// The rows of a contiguous tensor (..., 4).
template <typename T>
const Box<T>* boxes_of(const Tensor& tensor) {
  static_assert(sizeof(Box<T>) == 4 * sizeof(T));
  return static_cast<const Box<T>*>(tensor.const_data_ptr());
}

}  // namespace detlite
