// Boxes as the kernels hold them: with their area, and harmless where they are not valid.

#pragma once

#include "../box.h"

namespace detlite {

// Aligned, so that one instruction loads the corners.
template <typename T>
struct alignas(16) PreparedBox {
  Box<T> box;
  T area;  // 0: not valid. Its box is nowhere then and has no intersection with any other.

  __device__ bool valid() const { return area > 0; }
};

template <typename T>
__device__ PreparedBox<T> prepare(const Box<T>& box) {
  if (!is_valid(box)) return {nowhere<T>(), T(0)};
  return {box, area(box)};
}

// IoU of any two boxes. Most pairs do not meet: a comparison instead of a division, which costs as
// much as all the rest.
template <typename T>
__device__ T overlap_of(const PreparedBox<T>& a, const PreparedBox<T>& b) {
  if (!(intersection(a.box, b.box) > 0)) return T(0);
  return intersection_over_union(a.box, a.area, b.box, b.area);
}

// Whether their IoU is greater than a threshold of at least 0. A rounded quotient greater than t
// has overlap >= t * total, also when the product is rounded, as rounding is monotonic; only what
// passes that test is worth a division.
template <typename T>
__device__ bool overlaps(const PreparedBox<T>& a, const PreparedBox<T>& b, T threshold) {
  const T overlap = intersection(a.box, b.box);
  const T total = a.area + b.area - overlap;
  if (!(overlap > 0) || overlap < threshold * total) return false;
  return intersection_over_union(a.box, a.area, b.box, b.area) > threshold;
}

}  // namespace detlite
