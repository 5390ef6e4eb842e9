// Give each anchor the ground truth that it overlaps most, and a label; for a batch of images. See
// cpu/match_anchors.cpp for shapes and meaning.
//
// The IoU matrix never exists: the low-quality rule takes a pass for the best IoU of each ground
// truth, and `match` computes the same IoUs once more. Nothing waits for the device.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "boxes.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace detlite {
namespace {

constexpr int kThreads = 256;  // one anchor each
constexpr int kTile = 128;     // ground truths in shared memory

// Floats that are not negative are ordered as their bits are, and bits have an atomic maximum.
__device__ inline unsigned bits_of(float iou) { return __float_as_uint(iou); }
__device__ inline unsigned long long bits_of(double iou) {
  return static_cast<unsigned long long>(__double_as_longlong(iou));
}
template <typename T>
using Bits = decltype(bits_of(T()));

template <typename T>
struct Images {
  const Box<T>* gt_boxes;
  int64_t num_gt;
  const int64_t* offsets;
  const Box<T>* anchors;
  int64_t num_anchors;

  // The ground truth of an image. Offsets are on the device and not checked, only held in bounds.
  __device__ int64_t begin(int image) const { return held(offsets[image]); }
  __device__ int64_t end(int image) const { return held(offsets[image + 1]); }
  __device__ int64_t held(int64_t row) const { return max(int64_t(0), min(row, num_gt)); }

  __device__ PreparedBox<T> anchor(int64_t index) const {
    return prepare(index < num_anchors ? anchors[index] : nowhere<T>());
  }
};

// The next ground truths of an image, put into shared memory by all threads of a block.
template <typename T>
__device__ int load_tile(
    const Images<T>& images, int64_t begin, int64_t end, PreparedBox<T>* tile) {
  const int size = static_cast<int>(min(int64_t(kTile), end - begin));
  __syncthreads();  // the last tile is done with
  for (int g = threadIdx.x; g < size; g += kThreads) tile[g] = prepare(images.gt_boxes[begin + g]);
  __syncthreads();
  return size;
}

// The best IoU of each ground truth, as bits, into `best` (G,), which starts at 0. Grid: tiles of
// anchors, images.
template <typename T>
__global__ void __launch_bounds__(kThreads) best_of_ground_truth(Images<T> images, Bits<T>* best) {
  __shared__ PreparedBox<T> tile[kTile];
  __shared__ Bits<T> best_of_tile[kTile];
  const PreparedBox<T> anchor = images.anchor(int64_t(blockIdx.x) * kThreads + threadIdx.x);
  const int64_t end = images.end(blockIdx.y);
  for (int64_t begin = images.begin(blockIdx.y); begin < end; begin += kTile) {
    const int size = load_tile(images, begin, end, tile);
    if (threadIdx.x < kTile) best_of_tile[threadIdx.x] = 0;
    __syncthreads();
    for (int g = 0; g < size; ++g) {
      const T iou = overlap_of(tile[g], anchor);
      // Neighbours in memory are neighbours in the image: most warps miss most boxes.
      if (!__any_sync(kWholeWarp, iou > 0)) continue;
      const Bits<T> most = warp_max(bits_of(iou));
      if (threadIdx.x % kWarp == 0) atomicMax(&best_of_tile[g], most);
    }
    __syncthreads();
    for (int g = threadIdx.x; g < size; g += kThreads) {
      if (best_of_tile[g] > 0) atomicMax(&best[begin + g], best_of_tile[g]);
    }
  }
}

// Grid as above. `best` is null without the low-quality rule.
template <typename T>
__global__ void __launch_bounds__(kThreads) match(
    Images<T> images, const Bits<T>* best, T foreground, T background, int64_t* matched,
    int8_t* labels) {
  __shared__ PreparedBox<T> tile[kTile];
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const PreparedBox<T> anchor = images.anchor(index);
  const int64_t first = images.begin(blockIdx.y), end = images.end(blockIdx.y);
  T most = 0;
  int64_t most_at = first;
  bool unsurpassed = false;
  for (int64_t begin = first; begin < end; begin += kTile) {
    const int size = load_tile(images, begin, end, tile);
    for (int g = 0; g < size; ++g) {
      const T iou = overlap_of(tile[g], anchor);
      if (iou > most) most = iou, most_at = begin + g;
      if (iou > 0 && best != nullptr) unsurpassed |= bits_of(iou) == best[begin + g];
    }
  }
  if (index >= images.num_anchors) return;
  const int64_t out = blockIdx.y * images.num_anchors + index;
  matched[out] = most_at - first;
  int8_t label = most < background ? 0 : -1;
  if (most >= foreground || unsurpassed) label = 1;
  labels[out] = first < end ? label : 0;
}

std::tuple<Tensor, Tensor> match_anchors_cuda(
    const Tensor& gt_boxes, const Tensor& offsets, const Tensor& anchors, double foreground_thresh,
    double background_thresh, bool allow_low_quality) {
  check_boxes(gt_boxes, "gt_boxes");
  check_boxes(anchors, "anchors");
  check_same_type(gt_boxes, anchors, "gt_boxes and anchors");
  STD_TORCH_CHECK(
      offsets.dim() == 1 && offsets.size(0) > 0 && offsets.scalar_type() == ScalarType::Long,
      "offsets must be int64 with one dimension and at least one entry");
  check_same_device(offsets, anchors, "offsets and anchors");
  const OnDeviceOf device(anchors);
  const Tensor gt = widened(gt_boxes), places = widened(anchors);
  const Tensor bounds = torch::stable::contiguous(offsets);
  const int64_t n = bounds.size(0) - 1, r = places.size(0);
  Tensor matched = torch::stable::new_empty(places, {n, r}, ScalarType::Long);
  Tensor labels = torch::stable::new_empty(places, {n, r}, ScalarType::Char);
  dispatch_floating(places, "anchors", [&](auto zero) {
    using T = decltype(zero);
    const Images<T> images{
        boxes_of<T>(gt), gt.size(0), static_cast<const int64_t*>(bounds.const_data_ptr()),
        boxes_of<T>(places), r};
    const dim3 grid = grid_of(ceil_div(r, kThreads), n);
    Bits<T>* best = nullptr;
    Tensor best_bits;
    if (allow_low_quality && gt.size(0) > 0) {
      // As many bits as a T has, all of them zero: the IoU 0.
      best_bits = torch::stable::new_zeros(gt, {gt.size(0)});
      best = static_cast<Bits<T>*>(best_bits.mutable_data_ptr());
      device.launch(&best_of_ground_truth<T>, grid, kThreads, images, best);
    }
    device.launch(
        &match<T>, grid, kThreads, images, static_cast<const Bits<T>*>(best),
        static_cast<T>(foreground_thresh), static_cast<T>(background_thresh),
        static_cast<int64_t*>(matched.mutable_data_ptr()),
        static_cast<int8_t*>(labels.mutable_data_ptr()));
  });
  return {matched, labels};
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CUDA, m) {
  m.impl("match_anchors", TORCH_BOX(&detlite::match_anchors_cuda));
}
