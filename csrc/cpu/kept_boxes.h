// The boxes that a greedy NMS has kept so far, and the question that it asks of them: does one of
// them overlap this box by more than the threshold?
//
// A few boxes are compared all at once. Many are hashed by scale and place. With IoU > t > 0:
//   - the longer sides of the two boxes differ by a factor of less than 1 / t, since the
//     intersection is at most the product of the smaller sides and the union at least the area of
//     either box;
//   - the boxes share more than t times the larger width, so their centres are less than
//     (w + w') / 2 - t max(w, w') apart in x; the same in y.
// So a box has to look at few levels of scale, and in each at few cells. The exact IoU decides;
// the bounds, in double with slack for rounding, only skip boxes that cannot exceed t.

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../box.h"
#include "vectorize.h"

namespace detlite {

// Boxes by coordinate, so that one instruction takes several. Empty places hold zeros, which
// overlap nothing.
template <typename T, int width>
struct Chunk {
  T x1[width], y1[width], x2[width], y2[width];

  DETLITE_INLINE void set(int i, const Box<T>& box) {
    x1[i] = box.x1, y1[i] = box.y1, x2[i] = box.x2, y2[i] = box.y2;
  }

  // Whether a box here has an IoU with `box` of more than `threshold`, a number of type T.
  DETLITE_INLINE bool overlaps(const Box<T>& box, T box_area, T threshold) const {
    // A rounded quotient greater than t has overlap >= t * total, also when the product is
    // rounded, as rounding is monotonic. Only what passes this test is worth a division.
    int maybe = 0;
    for (int i = 0; i < width; ++i) {
      const Box<T> other{x1[i], y1[i], x2[i], y2[i]};
      const T overlap = intersection(box, other);
      const T total = box_area + area(other) - overlap;
      maybe |= (overlap >= threshold * total) & (overlap > 0);
    }
    if (!maybe) return false;
    int found = 0;
    for (int i = 0; i < width; ++i) {
      const Box<T> other{x1[i], y1[i], x2[i], y2[i]};
      // An empty place has no area: 0 / box_area.
      found |= intersection_over_union(box, box_area, other, area(other)) > threshold;
    }
    return found;
  }
};

// Zeroed memory whose pages cost nothing before they are touched.
template <typename Item>
class ZeroedArray {
 public:
  explicit ZeroedArray(int64_t size) : memory_(std::calloc(size * sizeof(Item) + 64, 1)) {
    if (!memory_) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    items_ = reinterpret_cast<Item*>((address + 63) / 64 * 64);
  }
  Item& operator[](int64_t i) { return items_[i]; }
  const Item& operator[](int64_t i) const { return items_[i]; }

 private:
  struct Free {
    void operator()(void* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<void, Free> memory_;
  Item* items_;
};

// A list of boxes that is compared from end to end.
template <typename T>
class BoxList {
 public:
  static constexpr int kWidth = 64 / sizeof(T);

  DETLITE_INLINE void clear() {
    chunks_.clear();
    size_ = 0;
  }
  DETLITE_INLINE int64_t size() const { return size_; }

  DETLITE_INLINE void insert(const Box<T>& box) {
    if (size_ % kWidth == 0) chunks_.emplace_back();
    chunks_.back().set(size_++ % kWidth, box);
  }

  DETLITE_INLINE bool overlaps(const Box<T>& box, T box_area, T threshold) const {
    for (const auto& chunk : chunks_) {
      if (chunk.overlaps(box, box_area, threshold)) return true;
    }
    return false;
  }

  DETLITE_INLINE Box<T> operator[](int64_t i) const {
    const auto& chunk = chunks_[i / kWidth];
    const int64_t j = i % kWidth;
    return {chunk.x1[j], chunk.y1[j], chunk.x2[j], chunk.y2[j]};
  }

 private:
  std::vector<Chunk<T, kWidth>> chunks_;
  int64_t size_ = 0;
};

}  // namespace detlite
