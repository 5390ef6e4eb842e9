// Greedy non-maximum suppression; see cpu/nms.cpp for shapes and meaning, nms_kernels.cuh for the
// steps.
//
// nms and batched_nms wait for the device once, at the end, for the number of boxes that they
// return. nms_padded never waits and can be captured in a CUDA graph.

#include <torch/csrc/stable/library.h>

#include <array>
#include <cmath>
#include <optional>
#include <tuple>

#include "launch.cuh"
#include "nms_kernels.cuh"

namespace detlite {
namespace {

struct Batch {
  Tensor boxes;                  // (..., 4)
  Tensor scores;                 // (...)
  std::optional<Tensor> groups;  // (...)
  int64_t images, size;
  bool padded;  // a score of minus infinity is no candidate
};

Tensor scratch(const Tensor& like, int64_t images, int64_t bytes) {
  return torch::stable::new_empty(like, {images, bytes}, ScalarType::Byte);
}

template <typename T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// torch::stable::sort came after torch 2.10; the operator that it calls did not.
std::tuple<Tensor, Tensor> sort_falling(const Tensor& keys) {
  std::array<StableIValue, 4> stack{
      torch::stable::detail::from(keys),
      torch::stable::detail::from(std::optional<bool>(true)),  // stable
      torch::stable::detail::from(int64_t(-1)),
      torch::stable::detail::from(true)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  return {
      torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

std::tuple<Tensor, Tensor> sort_scores(const OnDeviceOf& device, const Batch& batch) {
  const Tensor scores = widened(batch.scores);
  const int64_t count = batch.images * batch.size;
  Tensor keys = torch::stable::new_empty(scores, {batch.images, batch.size});
  dispatch_floating(scores, "scores", [&](auto zero) {
    using T = decltype(zero);
    device.launch(
        &make_keys<T>, grid_of(ceil_div(count, kLater)), kLater,
        static_cast<const T*>(scores.const_data_ptr()), data<T>(keys), count);
  });
  return sort_falling(keys);
}

template <typename T>
void suppress(
    const OnDeviceOf& device, const SortedBoxes<T>& sorted, const KeptBoxes<T>& kept,
    int64_t images, T threshold) {
  device.launch(
      &mark_earlier<T>, grid_of(ceil_div(sorted.size, kLater), kTilesPerBlock, images), kLater,
      sorted, threshold);
  // One block at least: without boxes it writes that there are none.
  const int blocks = static_cast<int>(std::max<int64_t>(ceil_div(sorted.size, kBlock), 1));
  for (int block = 0; block < blocks; ++block) {
    const bool last = block + 1 == blocks;
    device.launch(&resolve_block<T>, grid_of(images), kBlock, sorted, kept, block, last);
    if (last) break;
    const int begin = (block + 1) * kBlock;
    device.launch(
        &suppress_later<T>,
        grid_of(ceil_div(sorted.size - begin, kLater), kTilesPerBlock, images), kLater, sorted,
        kept, begin, threshold);
  }
}

// Indices (images, limit) and counts (images,).
std::tuple<Tensor, Tensor> keep(
    const OnDeviceOf& device, const Batch& batch, double iou_threshold, int64_t limit) {
  STD_TORCH_CHECK(
      batch.size < std::numeric_limits<int32_t>::max() - kBlock, "too many boxes: ", batch.size);
  const auto [keys, order] = sort_scores(device, batch);
  const Tensor boxes = widened(batch.boxes);
  std::optional<Tensor> groups;
  if (batch.groups) {
    groups = as_int64(*batch.groups);
  }
  Tensor indices = torch::stable::new_empty(boxes, {batch.images, limit}, ScalarType::Long);
  Tensor counts = torch::stable::new_empty(boxes, {batch.images}, ScalarType::Long);
  dispatch_floating(boxes, "boxes", [&](auto zero) {
    using T = decltype(zero);
    const int64_t blocks = ceil_div(batch.size, kBlock);
    const Tensor sorted_boxes = scratch(boxes, batch.images, batch.size * sizeof(SortedBox<T>));
    const Tensor alive = scratch(boxes, batch.images, batch.size);
    const Tensor earlier = scratch(boxes, batch.images, blocks * kBlock * kWords * 4);
    const Tensor kept_boxes = scratch(boxes, batch.images, kBlock * sizeof(SortedBox<T>));
    const Tensor num_kept = scratch(boxes, batch.images, sizeof(int));
    const SortedBoxes<T> sorted{
        static_cast<int>(batch.size), static_cast<const int64_t*>(order.const_data_ptr()),
        data<SortedBox<T>>(sorted_boxes), data<bool>(alive), data<unsigned>(earlier)};
    const KeptBoxes<T> kept{
        data<SortedBox<T>>(kept_boxes), data<int>(num_kept), data<int64_t>(indices),
        data<int64_t>(counts), limit};
    dispatch_floating(keys, "scores", [&](auto zero_key) {
      using Key = decltype(zero_key);
      device.launch(
          &gather_sorted<T, Key>, grid_of(ceil_div(batch.size, kLater), batch.images), kLater,
          boxes_of<T>(boxes),
          groups ? static_cast<const int64_t*>(groups->const_data_ptr()) : nullptr,
          static_cast<const Key*>(keys.const_data_ptr()), batch.padded, sorted);
    });
    suppress<T>(device, sorted, kept, batch.images, round_down<T>(iou_threshold));
  });
  return {indices, counts};
}

Tensor kept_indices(
    const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups,
    double iou_threshold) {
  check_boxes(boxes, "boxes");
  const int64_t n = boxes.size(0);
  check_rows(scores, "scores", boxes);
  if (groups) check_rows(*groups, "groups", boxes);
  const OnDeviceOf device(boxes);
  const auto [indices, counts] =
      keep(device, {boxes, scores, groups, 1, n, false}, iou_threshold, n);
  int64_t count = 0;
  STD_CUDA_CHECK(cudaMemcpyAsync(
      &count, counts.const_data_ptr(), sizeof(count), cudaMemcpyDeviceToHost, device.stream()));
  STD_CUDA_CHECK(cudaStreamSynchronize(device.stream()));
  // A copy, so that few indices do not hold the memory of all.
  Tensor kept = torch::stable::new_empty(indices, {count});
  STD_CUDA_CHECK(cudaMemcpyAsync(
      kept.mutable_data_ptr(), indices.const_data_ptr(), count * sizeof(int64_t),
      cudaMemcpyDeviceToDevice, device.stream()));
  return kept;
}

Tensor nms_cuda(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return kept_indices(boxes, scores, std::nullopt, iou_threshold);
}

Tensor batched_nms_cuda(
    const Tensor& boxes, const Tensor& scores, const Tensor& groups, double iou_threshold) {
  return kept_indices(boxes, scores, groups, iou_threshold);
}

std::tuple<Tensor, Tensor> nms_padded_cuda(
    const Tensor& boxes, const Tensor& scores, const Tensor& groups, double iou_threshold,
    int64_t max_detections) {
  check_boxes(boxes, "boxes", 3);
  check_same_type(boxes, scores, "boxes and scores");
  check_same_device(boxes, groups, "boxes and groups");
  const int64_t images = boxes.size(0), n = boxes.size(1);
  for (const Tensor* tensor : {&scores, &groups}) {
    STD_TORCH_CHECK(
        tensor->dim() == 2 && tensor->size(0) == images && tensor->size(1) == n,
        "scores and groups must have the shape of boxes without its last dimension");
  }
  STD_TORCH_CHECK(max_detections >= 0, "max_detections must not be negative: ", max_detections);
  const OnDeviceOf device(boxes);
  return keep(device, {boxes, scores, groups, images, n, true}, iou_threshold, max_detections);
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CUDA, m) {
  m.impl("nms", TORCH_BOX(&detlite::nms_cuda));
  m.impl("batched_nms", TORCH_BOX(&detlite::batched_nms_cuda));
  m.impl("nms_padded", TORCH_BOX(&detlite::nms_padded_cuda));
}
