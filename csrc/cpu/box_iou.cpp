// IoU and generalised IoU of every pair.
//   boxes1   (N, 4) float32 or float64, XYXY in pixels
//   boxes2   (M, 4) the same type
//   returns  (N, M); 0 (GIoU: -1) where a box is empty, inverted or not finite

#include <torch/csrc/stable/library.h>

#include "../tensors.h"
#include "vectorize.h"

namespace detlite {
namespace {

// A tile fits in the first-level cache: its columns are laid out by coordinate once and then used
// by all of its rows.
constexpr int64_t kTileRows = 64;
constexpr int64_t kTileColumns = 512;

template <typename T>
struct Columns {
  alignas(64) T x1[kTileColumns], y1[kTileColumns], x2[kTileColumns], y2[kTileColumns];
  alignas(64) T area[kTileColumns];
  alignas(64) T valid[kTileColumns];
};

enum class Overlap { kIoU, kGeneralizedIoU };

template <typename T, Overlap kind>
DETLITE_INLINE void fill_tile(
    const Box<T>* boxes1, int64_t rows, const Box<T>* boxes2, int64_t columns, T* out, int64_t m) {
  constexpr T kNothing = kind == Overlap::kIoU ? T(0) : T(-1);
  Columns<T> c;
  for (int64_t j = 0; j < columns; ++j) {
    const bool valid = is_valid(boxes2[j]);
    const Box<T> box = valid ? boxes2[j] : nowhere<T>();
    c.x1[j] = box.x1, c.y1[j] = box.y1, c.x2[j] = box.x2, c.y2[j] = box.y2;
    c.area[j] = valid ? area(boxes2[j]) : T(1);
    c.valid[j] = valid ? T(1) : T(0);
  }
  for (int64_t i = 0; i < rows; ++i) {
    T* row = out + i * m;
    if (!is_valid(boxes1[i])) {
      for (int64_t j = 0; j < columns; ++j) row[j] = kNothing;
      continue;
    }
    const Box<T> a = boxes1[i];
    const T area_a = area(a);
    for (int64_t j = 0; j < columns; ++j) {
      const Box<T> b{c.x1[j], c.y1[j], c.x2[j], c.y2[j]};
      if constexpr (kind == Overlap::kIoU) {
        row[j] = intersection_over_union(a, area_a, b, c.area[j]);
      } else {
        const T value = generalized_iou(a, area_a, b, c.area[j]);
        row[j] = c.valid[j] > 0 ? value : kNothing;
      }
    }
  }
}

// target_clones takes no templates: one function for each type and kind.
#define DETLITE_FILL_TILE(T, kind)                                                               \
  DETLITE_CLONES void fill(                                                                      \
      std::integral_constant<Overlap, kind>, const Box<T>* boxes1, int64_t rows,                 \
      const Box<T>* boxes2, int64_t columns, T* out, int64_t m) {                                \
    fill_tile<T, kind>(boxes1, rows, boxes2, columns, out, m);                                   \
  }
DETLITE_FILL_TILE(float, Overlap::kIoU)
DETLITE_FILL_TILE(double, Overlap::kIoU)
DETLITE_FILL_TILE(float, Overlap::kGeneralizedIoU)
DETLITE_FILL_TILE(double, Overlap::kGeneralizedIoU)
#undef DETLITE_FILL_TILE

template <Overlap kind>
Tensor overlap_cpu(const Tensor& boxes1, const Tensor& boxes2) {
  check_boxes(boxes1, "boxes1");
  check_boxes(boxes2, "boxes2");
  check_same_type(boxes1, boxes2, "boxes1 and boxes2");
  const Tensor a = widened(boxes1), b = widened(boxes2);
  const int64_t n = a.size(0), m = b.size(0);
  Tensor out = torch::stable::new_empty(a, {n, m});
  dispatch_floating(a, "boxes", [&](auto zero) {
    using T = decltype(zero);
    T* values = static_cast<T*>(out.mutable_data_ptr());
    const int64_t across = (m + kTileColumns - 1) / kTileColumns;
    const int64_t down = (n + kTileRows - 1) / kTileRows;
    torch::stable::parallel_for(0, across * down, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t i = tile / across * kTileRows, j = tile % across * kTileColumns;
        fill(
            std::integral_constant<Overlap, kind>(),
            boxes_of<T>(a) + i,
            std::min(kTileRows, n - i),
            boxes_of<T>(b) + j,
            std::min(kTileColumns, m - j),
            values + i * m + j,
            m);
      }
    });
  });
  return torch::stable::to(out, boxes1.scalar_type());
}

Tensor box_iou_cpu(const Tensor& boxes1, const Tensor& boxes2) {
  return overlap_cpu<Overlap::kIoU>(boxes1, boxes2);
}

Tensor generalized_box_iou_cpu(const Tensor& boxes1, const Tensor& boxes2) {
  return overlap_cpu<Overlap::kGeneralizedIoU>(boxes1, boxes2);
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CPU, m) {
  m.impl("box_iou", TORCH_BOX(&detlite::box_iou_cpu));
  m.impl("generalized_box_iou", TORCH_BOX(&detlite::generalized_box_iou_cpu));
}
