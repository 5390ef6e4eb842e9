// Boxes, compiled for host and device and without torch, so that the twins cannot disagree.
//
// Every number is rounded after each operation (no fused multiply-add: -ffp-contract=off and
// --fmad=false), so that CPU, CUDA and ops/reference.py agree to the bit.

#pragma once

#include <limits>

#ifdef __CUDACC__
#define DETLITE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DETLITE_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace detlite {

// XYXY in pixels; the layout of a row of a contiguous (N, 4) tensor.
template <typename T>
struct Box {
  T x1, y1, x2, y2;
};

// Comparisons instead of std::min and std::max: they turn into one instruction each, and no box
// that gets here holds a NaN. A GPU has that instruction as fmin and fmax; only the sign of a zero
// may differ, which no result shows.
template <typename T>
DETLITE_HOST_DEVICE T lower(T a, T b) {
#ifdef __CUDA_ARCH__
  return ::fmin(a, b);
#else
  return a < b ? a : b;
#endif
}

template <typename T>
DETLITE_HOST_DEVICE T higher(T a, T b) {
#ifdef __CUDA_ARCH__
  return ::fmax(a, b);
#else
  return a > b ? a : b;
#endif
}

template <typename T>
DETLITE_HOST_DEVICE T area(const Box<T>& box) {
  return (box.x2 - box.x1) * (box.y2 - box.y1);
}

// Whether a box is finite and has an area that its type can hold. A box that is not valid overlaps
// nothing: its IoU is 0 and its GIoU -1 with every box.
template <typename T>
DETLITE_HOST_DEVICE bool is_valid(const Box<T>& box) {
  const T a = area(box);  // finite corners follow from a finite area; NaN fails each comparison
  return a > 0 && a <= std::numeric_limits<T>::max() && box.x2 > box.x1;
}

// What stands for a box that is not valid where all boxes go through the same arithmetic: with an
// area of 1 its IoU comes out as 0 without a branch.
template <typename T>
DETLITE_HOST_DEVICE Box<T> nowhere() {
  return {0, 0, 0, 0};
}

template <typename T>
DETLITE_HOST_DEVICE T intersection(const Box<T>& a, const Box<T>& b) {
  const T width = lower(a.x2, b.x2) - higher(a.x1, b.x1);
  const T height = lower(a.y2, b.y2) - higher(a.y1, b.y1);
  return higher(width, T(0)) * higher(height, T(0));
}

// Intersection over union of valid boxes with the given areas.
template <typename T>
DETLITE_HOST_DEVICE T intersection_over_union(
    const Box<T>& a, T area_a, const Box<T>& b, T area_b) {
  const T overlap = intersection(a, b);
  return overlap / (area_a + area_b - overlap);
}

// Generalised IoU of valid boxes (Rezatofighi et al. 2019, eq. 3). A hull too large for the type is
// all but empty.
template <typename T>
DETLITE_HOST_DEVICE T generalized_iou(const Box<T>& a, T area_a, const Box<T>& b, T area_b) {
  const T overlap = intersection(a, b);
  const T total = area_a + area_b - overlap;
  const T hull =
      (higher(a.x2, b.x2) - lower(a.x1, b.x1)) * (higher(a.y2, b.y2) - lower(a.y1, b.y1));
  const T empty = hull <= std::numeric_limits<T>::max() ? (hull - total) / hull : T(1);
  return overlap / total - empty;
}

}  // namespace detlite
