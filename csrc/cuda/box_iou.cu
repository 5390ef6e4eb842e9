// IoU and generalised IoU of every pair; see cpu/box_iou.cpp for shapes and meaning.
//
// The work is to write the matrix: 16 bytes a thread and row. Columns stay in registers, rows come
// from shared memory.

#include <torch/csrc/stable/library.h>

#include "boxes.cuh"
#include "element_types.cuh"
#include "launch.cuh"

namespace detlite {
namespace {

constexpr int kThreads = 128;
constexpr int kTileRows = 32;

enum class Overlap { kIoU, kGeneralizedIoU };

template <Overlap kind, typename T>
__device__ T overlap_of_kind(const PreparedBox<T>& a, const PreparedBox<T>& b) {
  if constexpr (kind == Overlap::kIoU) {
    return overlap_of(a, b);
  } else {
    return a.valid() && b.valid() ? generalized_iou(a.box, a.area, b.box, b.area) : T(-1);
  }
}

// A block fills kTileRows x (kThreads * kColumns) places. A thread's columns lie side by side where
// every row of the matrix is aligned, and kThreads apart where not; a warp writes whole lines of
// memory both ways.
template <Overlap kind, bool aligned, typename T, typename Stored>
__global__ void __launch_bounds__(kThreads) overlap_tile(
    const Box<T>* boxes1, const Box<T>* boxes2, Stored* out, int64_t n, int64_t m,
    int64_t tiles_across) {
  constexpr int kColumns = Pack<Stored>::kSize;
  __shared__ PreparedBox<T> rows[kTileRows];
  const int64_t top = blockIdx.x / tiles_across * kTileRows;
  const int64_t left = blockIdx.x % tiles_across * kThreads * kColumns;
  const int num_rows = static_cast<int>(min(int64_t(kTileRows), n - top));
  if (static_cast<int>(threadIdx.x) < num_rows) {
    rows[threadIdx.x] = prepare(boxes1[top + threadIdx.x]);
  }
  const int64_t first = left + threadIdx.x * (aligned ? kColumns : 1);
  constexpr int kStep = aligned ? 1 : kThreads;
  PreparedBox<T> columns[kColumns];
#pragma unroll
  for (int k = 0; k < kColumns; ++k) {
    columns[k] = prepare(first + k * kStep < m ? boxes2[first + k * kStep] : nowhere<T>());
  }
  __syncthreads();
  for (int r = 0; r < num_rows; ++r) {
    Pack<Stored> pack;
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      pack.values[k] = static_cast<Stored>(overlap_of_kind<kind>(rows[r], columns[k]));
    }
    Stored* row = out + (top + r) * m + first;
    if constexpr (aligned) {
      if (first < m) *reinterpret_cast<Pack<Stored>*>(row) = pack;
    } else {
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        if (first + k * kStep < m) row[k * kStep] = pack.values[k];
      }
    }
  }
}

template <Overlap kind>
Tensor overlap_cuda(const Tensor& boxes1, const Tensor& boxes2) {
  check_boxes(boxes1, "boxes1");
  check_boxes(boxes2, "boxes2");
  check_same_type(boxes1, boxes2, "boxes1 and boxes2");
  const OnDeviceOf device(boxes1);
  const Tensor a = widened(boxes1), b = widened(boxes2);
  const int64_t n = a.size(0), m = b.size(0);
  Tensor out = torch::stable::new_empty(boxes1, {n, m});
  dispatch_stored(boxes1, "boxes", [&](auto zero) {
    using Stored = decltype(zero);
    using T = Computed<Stored>;
    auto* values = static_cast<Stored*>(out.mutable_data_ptr());
    const auto kernel = is_packed(values, m) ? &overlap_tile<kind, true, T, Stored>
                                             : &overlap_tile<kind, false, T, Stored>;
    const int64_t across = ceil_div(m, kThreads * Pack<Stored>::kSize);
    const dim3 grid = grid_of(across * ceil_div(n, kTileRows));
    device.launch(kernel, grid, kThreads, boxes_of<T>(a), boxes_of<T>(b), values, n, m, across);
  });
  return out;
}

Tensor box_iou_cuda(const Tensor& boxes1, const Tensor& boxes2) {
  return overlap_cuda<Overlap::kIoU>(boxes1, boxes2);
}

Tensor generalized_box_iou_cuda(const Tensor& boxes1, const Tensor& boxes2) {
  return overlap_cuda<Overlap::kGeneralizedIoU>(boxes1, boxes2);
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CUDA, m) {
  m.impl("box_iou", TORCH_BOX(&detlite::box_iou_cuda));
  m.impl("generalized_box_iou", TORCH_BOX(&detlite::generalized_box_iou_cuda));
}
