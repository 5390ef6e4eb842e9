// A block of anchors that stays in the first-level cache, laid out by coordinate, with the loops
// over its anchors; see match_anchors.cpp.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../box.h"
#include "vectorize.h"

namespace detlite {

constexpr int64_t kBlock = 512;
constexpr int64_t kLanes = 16;  // of the widest vector of floats

template <typename T>
struct AnchorBlock {
  // As wide as T, so that one mask of a comparison serves both.
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

  alignas(64) T x1[kBlock], y1[kBlock], x2[kBlock], y2[kBlock];
  alignas(64) T area[kBlock];
  alignas(64) T best[kBlock];
  alignas(64) Index matched[kBlock];
  Box<T> hull;
  int64_t size;    // anchors
  int64_t padded;  // a multiple of kLanes; what is beyond the anchors overlaps nothing
};

template <typename T>
DETLITE_INLINE void load(const Box<T>* anchors, AnchorBlock<T>& block) {
  block.padded = (block.size + kLanes - 1) / kLanes * kLanes;
  for (int64_t j = 0; j < block.padded; ++j) {
    const Box<T> anchor = j < block.size ? anchors[j] : nowhere<T>();
    const bool valid = is_valid(anchor);
    block.x1[j] = valid ? anchor.x1 : T(0);
    block.y1[j] = valid ? anchor.y1 : T(0);
    block.x2[j] = valid ? anchor.x2 : T(0);
    block.y2[j] = valid ? anchor.y2 : T(0);
    block.area[j] = valid ? area(anchor) : T(1);
  }
  T x1[kLanes], y1[kLanes], x2[kLanes], y2[kLanes];
  for (int64_t k = 0; k < kLanes; ++k) {
    x1[k] = block.x1[k], y1[k] = block.y1[k], x2[k] = block.x2[k], y2[k] = block.y2[k];
  }
  for (int64_t j = kLanes; j < block.padded; j += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      x1[k] = lower(x1[k], block.x1[j + k]);
      y1[k] = lower(y1[k], block.y1[j + k]);
      x2[k] = higher(x2[k], block.x2[j + k]);
      y2[k] = higher(y2[k], block.y2[j + k]);
    }
  }
  block.hull = {
      *std::min_element(x1, x1 + kLanes),
      *std::min_element(y1, y1 + kLanes),
      *std::max_element(x2, x2 + kLanes),
      *std::max_element(y2, y2 + kLanes)};
}

// Whether a valid box can have an IoU above 0 with an anchor of the block.
template <typename T>
inline bool reaches(const Box<T>& box, const Box<T>& hull) {
  return box.x1 < hull.x2 && box.x2 > hull.x1 && box.y1 < hull.y2 && box.y2 > hull.y1;
}

template <typename T>
DETLITE_INLINE T iou_with(
    const AnchorBlock<T>& block, int64_t j, const Box<T>& box, T box_area) {
  const Box<T> anchor{block.x1[j], block.y1[j], block.x2[j], block.y2[j]};
  return intersection_over_union(box, box_area, anchor, block.area[j]);
}

// Update the best of each anchor with a valid box; returns the box's best.
template <typename T>
DETLITE_INLINE T compare(
    AnchorBlock<T>& block, const Box<T>& box, typename AnchorBlock<T>::Index index) {
  const T box_area = area(box);
  T tops[kLanes] = {};
  for (int64_t j = 0; j < block.padded; j += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      const T iou = iou_with(block, j + k, box, box_area);
      const bool better = iou > block.best[j + k];
      block.best[j + k] = better ? iou : block.best[j + k];
      block.matched[j + k] = better ? index : block.matched[j + k];
      tops[k] = higher(tops[k], iou);
    }
  }
  return *std::max_element(tops, tops + kLanes);
}

template <typename T>
DETLITE_INLINE void write_labels(
    const AnchorBlock<T>& block, T foreground, T background, int64_t* matched, int8_t* labels) {
  for (int64_t j = 0; j < block.size; ++j) matched[j] = block.matched[j];
  for (int64_t j = 0; j < block.size; ++j) {
    labels[j] = block.best[j] >= foreground ? 1 : block.best[j] < background ? 0 : -1;
  }
}

template <typename T>
DETLITE_INLINE void raise_labels(
    const AnchorBlock<T>& block, const Box<T>& box, T peak, int8_t* labels) {
  const T box_area = area(box);
  for (int64_t j = 0; j < block.size; ++j) {
    labels[j] = iou_with(block, j, box, box_area) == peak ? 1 : labels[j];
  }
}

// target_clones takes no templates: one function for each type.
#define DETLITE_MATCHING(T)                                                                      \
  DETLITE_CLONES static void load_block(const Box<T>* anchors, AnchorBlock<T>& block) {          \
    load<T>(anchors, block);                                                                     \
  }                                                                                              \
  DETLITE_CLONES static T compare_block(                                                         \
      AnchorBlock<T>& block, const Box<T>& box, AnchorBlock<T>::Index index) {                   \
    return compare<T>(block, box, index);                                                        \
  }                                                                                              \
  DETLITE_CLONES static void write_block(                                                        \
      const AnchorBlock<T>& block, T foreground, T background, int64_t* matched,                 \
      int8_t* labels) {                                                                          \
    write_labels<T>(block, foreground, background, matched, labels);                             \
  }                                                                                              \
  DETLITE_CLONES static void raise_block(                                                        \
      const AnchorBlock<T>& block, const Box<T>& box, T peak, int8_t* labels) {                  \
    raise_labels<T>(block, box, peak, labels);                                                   \
  }
DETLITE_MATCHING(float)
DETLITE_MATCHING(double)
#undef DETLITE_MATCHING

}  // namespace detlite
