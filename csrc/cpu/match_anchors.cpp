// Give each anchor the ground truth that it overlaps most, and a label; for a batch of images.
//   gt_boxes  (G, 4) floating, XYXY in pixels: the ground truth of all images, one after the other
//   offsets   (N + 1,) int64: image i has the rows offsets[i] to offsets[i + 1]
//   anchors   (R, 4) the same type, the same for all images
//   returns   the ground truth (N, R) int64, counted within the image, the first of equal ones; the
//             label (N, R) int8: 1 foreground, 0 background, -1 ignored
//
// Thresholds are rounded to the type of the boxes, as torch compares a tensor with a number. An
// image without ground truth is background throughout. Boxes that are not valid overlap nothing.
//
// The IoU matrix never exists. Anchors are taken in blocks that stay in the first-level cache; a
// ground truth outside a block's hull is passed over, since its IoU is 0 there. The low-quality
// rule needs the best IoU of each ground truth among all anchors: a second pass looks for the
// anchors that attain it, only in the blocks between the first and the last of a chunk that did.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "../tensors.h"
#include "anchor_block.h"

namespace detlite {
namespace {

constexpr int64_t kMaxChunks = 64;

// The best IoU of a ground truth within a chunk, and the first and the last block that has it.
template <typename T>
struct Peak {
  T iou = 0;
  int32_t first = 0, last = -1;
};

template <typename T>
class Matching {
 public:
  Matching(
      const Tensor& gt_boxes, const Tensor& offsets, const Tensor& anchors, Tensor& matched,
      Tensor& labels)
      : gt_boxes_(boxes_of<T>(gt_boxes)),
        num_gt_(gt_boxes.size(0)),
        offsets_(static_cast<const int64_t*>(offsets.const_data_ptr())),
        num_images_(offsets.size(0) - 1),
        anchors_(boxes_of<T>(anchors)),
        num_anchors_(anchors.size(0)),
        matched_(static_cast<int64_t*>(matched.mutable_data_ptr())),
        labels_(static_cast<int8_t*>(labels.mutable_data_ptr())),
        num_blocks_((num_anchors_ + kBlock - 1) / kBlock),
        num_chunks_(std::min(num_blocks_, kMaxChunks)),
        peaks_(num_gt_ * num_chunks_) {}

  // What each thread does is fixed by the chunks, whatever the number of threads.
  void run(T foreground, T background, bool allow_low_quality) {
    in_chunks([&](int64_t chunk) { match(chunk, foreground, background); });
    if (!allow_low_quality) return;
    std::vector<T> best(num_gt_, T(0));
    for (int64_t chunk = 0; chunk < num_chunks_; ++chunk) {
      for (int64_t g = 0; g < num_gt_; ++g) best[g] = higher(best[g], peak(chunk, g).iou);
    }
    in_chunks([&](int64_t chunk) { raise(chunk, best); });
  }

 private:
  template <typename F>
  void in_chunks(const F& f) {
    torch::stable::parallel_for(0, num_chunks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) f(chunk);
    });
  }

  Peak<T>& peak(int64_t chunk, int64_t g) { return peaks_[chunk * num_gt_ + g]; }

  void load(int64_t index, AnchorBlock<T>& block) {
    block.size = std::min(kBlock, num_anchors_ - index * kBlock);
    load_block(anchors_ + index * kBlock, block);
  }

  // A chunk takes every num_chunks-th block, so that each has its share of large and small anchors.
  void match(int64_t chunk, T foreground, T background) {
    const auto block = std::make_unique<AnchorBlock<T>>();
    for (int64_t index = chunk; index < num_blocks_; index += num_chunks_) {
      load(index, *block);
      for (int64_t image = 0; image < num_images_; ++image) {
        match_image(chunk, index, image, *block);
        const int64_t place = image * num_anchors_ + index * kBlock;
        if (offsets_[image] == offsets_[image + 1]) {
          std::fill_n(matched_ + place, block->size, 0);
          std::fill_n(labels_ + place, block->size, 0);
        } else {
          write_block(*block, foreground, background, matched_ + place, labels_ + place);
        }
      }
    }
  }

  void match_image(int64_t chunk, int64_t index, int64_t image, AnchorBlock<T>& block) {
    std::fill_n(block.best, kBlock, T(0));
    std::fill_n(block.matched, kBlock, 0);
    for (int64_t g = offsets_[image]; g < offsets_[image + 1]; ++g) {
      if (!is_valid(gt_boxes_[g]) || !reaches(gt_boxes_[g], block.hull)) continue;
      const T top = compare_block(block, gt_boxes_[g], g - offsets_[image]);
      Peak<T>& known = peak(chunk, g);
      if (top > known.iou) known = {top, static_cast<int32_t>(index), 0};
      if (top == known.iou) known.last = index;
    }
  }

  // Make foreground the anchors of a chunk that no other surpasses for some ground truth.
  void raise(int64_t chunk, const std::vector<T>& best) {
    const auto block = std::make_unique<AnchorBlock<T>>();
    for (int64_t index = chunk; index < num_blocks_; index += num_chunks_) {
      block->size = 0;
      for (int64_t image = 0; image < num_images_; ++image) {
        int8_t* labels = labels_ + image * num_anchors_ + index * kBlock;
        for (int64_t g = offsets_[image]; g < offsets_[image + 1]; ++g) {
          const Peak<T>& known = peak(chunk, g);
          if (known.iou == 0 || known.iou < best[g]) continue;
          if (index < known.first || index > known.last) continue;
          if (block->size == 0) load(index, *block);
          if (reaches(gt_boxes_[g], block->hull)) {
            raise_block(*block, gt_boxes_[g], best[g], labels);
          }
        }
      }
    }
  }

  const Box<T>* gt_boxes_;
  int64_t num_gt_;
  const int64_t* offsets_;
  int64_t num_images_;
  const Box<T>* anchors_;
  int64_t num_anchors_;
  int64_t* matched_;
  int8_t* labels_;
  int64_t num_blocks_, num_chunks_;
  std::vector<Peak<T>> peaks_;
};

void check_offsets(const Tensor& offsets, int64_t num_gt) {
  STD_TORCH_CHECK(
      offsets.dim() == 1 && offsets.size(0) > 0 && offsets.scalar_type() == ScalarType::Long,
      "offsets must be int64 with one dimension and at least one entry");
  const auto* values = static_cast<const int64_t*>(offsets.const_data_ptr());
  const int64_t last = offsets.size(0) - 1;
  STD_TORCH_CHECK(
      values[0] == 0 && values[last] == num_gt && std::is_sorted(values, values + last + 1),
      "offsets must rise from 0 to the number of boxes, ",
      num_gt);
}

std::tuple<Tensor, Tensor> match_anchors_cpu(
    const Tensor& gt_boxes, const Tensor& offsets, const Tensor& anchors, double foreground_thresh,
    double background_thresh, bool allow_low_quality) {
  check_boxes(gt_boxes, "gt_boxes");
  check_boxes(anchors, "anchors");
  check_same_type(gt_boxes, anchors, "gt_boxes and anchors");
  const Tensor gt = widened(gt_boxes), places = widened(anchors);
  const Tensor bounds = torch::stable::contiguous(offsets);
  check_offsets(bounds, gt.size(0));
  const int64_t n = bounds.size(0) - 1, r = places.size(0);
  Tensor matched = torch::stable::new_empty(places, {n, r}, ScalarType::Long);
  Tensor labels = torch::stable::new_empty(places, {n, r}, ScalarType::Char);
  dispatch_floating(places, "anchors", [&](auto zero) {
    using T = decltype(zero);
    Matching<T>(gt, bounds, places, matched, labels)
        .run(
            static_cast<T>(foreground_thresh),
            static_cast<T>(background_thresh),
            allow_low_quality);
  });
  return {matched, labels};
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CPU, m) {
  m.impl("match_anchors", TORCH_BOX(&detlite::match_anchors_cpu));
}
