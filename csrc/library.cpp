// The operators of namespace detlite: the table of contents of the native side.
//
// Shapes and meanings stand in detlite/ops, kernels in cpu/ and cuda/, one op a file; each ends with
// its own registration. Only LibTorch's stable ABI is used, so one binary serves every torch from
// 2.10 on and every Python.

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(detlite, m) {
  m.def("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor");
  m.def(
      "batched_nms(Tensor boxes, Tensor scores, Tensor groups, float iou_threshold) -> Tensor");
  m.def(
      "nms_padded(Tensor boxes, Tensor scores, Tensor groups, float iou_threshold, "
      "SymInt max_detections) -> (Tensor, Tensor)");
  m.def("box_iou(Tensor boxes1, Tensor boxes2) -> Tensor");
  m.def("generalized_box_iou(Tensor boxes1, Tensor boxes2) -> Tensor");
  m.def(
      "match_anchors(Tensor gt_boxes, Tensor offsets, Tensor anchors, float foreground_thresh, "
      "float background_thresh, bool allow_low_quality) -> (Tensor, Tensor)");
  m.def(
      "sigmoid_focal_loss(Tensor logits, Tensor classes, float alpha, float gamma) -> Tensor");
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor classes, float alpha, "
      "float gamma) -> Tensor");
}
