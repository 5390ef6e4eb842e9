// Kept boxes hashed by scale and place; kept_boxes.h says why that is exact.

#pragma once

#include "kept_boxes.h"

namespace detlite {

// 2 to a whole power, and the whole power below a positive number; for normal doubles.
DETLITE_INLINE double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}
DETLITE_INLINE int exponent_of(double value) {
  return static_cast<int>(std::bit_cast<uint64_t>(value) >> 52) - 1023;
}

// Centre and sides of a box in double, in which the sums and differences of float32 are exact.
struct BoxShape {
  double x, y, width, height;

  template <typename T>
  DETLITE_INLINE explicit BoxShape(const Box<T>& box)
      : x(double(box.x1) / 2 + double(box.x2) / 2),
        y(double(box.y1) / 2 + double(box.y2) / 2),
        width(double(box.x2) - double(box.x1)),
        height(double(box.y2) - double(box.y1)) {}

  DETLITE_INLINE double longer_side() const { return width > height ? width : height; }
};

template <typename T>
class BoxGrid {
 public:
  // For at most `capacity` boxes.
  BoxGrid(int64_t capacity, T threshold)
      : threshold_(threshold),
        // The quotient of rounded numbers may exceed t where the true one is a little below; next
        // to nothing is left of a tiny t, so then only boxes that do not touch are skipped.
        bound_(threshold < 1e-6 ? 0.0 : double(threshold) * (1 - (sizeof(T) == 4 ? 1e-5 : 1e-12))),
        cell_exponent_(cell_exponent(threshold)),
        num_slots_(std::bit_ceil(static_cast<uint64_t>(2 * capacity + 1))),
        slots_(num_slots_),
        chunks_(capacity + 1),
        next_(capacity + 1),
        level_sizes_(kLevels) {}

  // Whether arithmetic in double, and areas in T, keep their relative accuracy for this box. All
  // boxes of the grid and all that are compared with it must be such.
  static DETLITE_INLINE bool can_hold(const Box<T>& box) {
    constexpr double kSmallest = sizeof(T) == 4 ? 1e-30 : 1e-200;
    constexpr double kLargest = sizeof(T) == 4 ? 1e38 : 1e100;
    const BoxShape shape(box);
    return shape.width * shape.height > kSmallest && shape.width < kLargest &&
        shape.height < kLargest && std::abs(shape.x) < kLargest && std::abs(shape.y) < kLargest;
  }

  DETLITE_INLINE void insert(const Box<T>& box) {
    const BoxShape shape(box);
    // Level l holds the boxes whose longer side is from 2^l to below 2^(l + 1).
    const int level = exponent_of(shape.longer_side());
    const double scale = cells_per_pixel(level);
    Slot& slot = slot_for(key(level, cell(shape.x * scale), cell(shape.y * scale)));
    if (slot.size % kWidth == 0) {
      next_[++num_chunks_] = slot.head;
      slot.head = num_chunks_;
    }
    chunks_[slot.head].set(slot.size++ % kWidth, box);
    ++level_sizes_[level + kLevels / 2];
    lowest_ = std::min(lowest_, level);
    highest_ = std::max(highest_, level);
    ++size_;
  }

  enum class Answer { kNo, kYes, kTooManyCells };

  // Whether a box here overlaps `box`; kTooManyCells if it is cheaper to compare all boxes.
  DETLITE_INLINE Answer overlaps(const Box<T>& box, T box_area) const {
    const BoxShape shape(box);
    const double side = shape.longer_side();
    int from = lowest_, to = highest_;
    if (bound_ > 0) {
      from = std::max(from, exponent_of(side * bound_));
      to = std::min(to, exponent_of(side / bound_));
    }
    double budget = size_ / 8 + 8;
    uint64_t keys[kKeysAtOnce];
    int num_keys = 0;
    for (int level = from; level <= to; ++level) {
      if (level_sizes_[level + kLevels / 2] == 0) continue;
      const double scale = cells_per_pixel(level), longest = power_of_two(level + 1);
      const double dx = reach(shape.width, longest) + std::abs(shape.x) * kSlack;
      const double dy = reach(shape.height, longest) + std::abs(shape.y) * kSlack;
      const int64_t x1 = cell((shape.x - dx) * scale), x2 = cell((shape.x + dx) * scale);
      const int64_t y1 = cell((shape.y - dy) * scale), y2 = cell((shape.y + dy) * scale);
      budget -= static_cast<double>(x2 - x1 + 1) * static_cast<double>(y2 - y1 + 1);
      const bool beyond = x1 <= -kLastCell || x2 >= kLastCell || y1 <= -kLastCell || y2 >= kLastCell;
      if (budget < 0 || beyond) return Answer::kTooManyCells;
      for (int64_t y = y1; y <= y2; ++y) {
        for (int64_t x = x1; x <= x2; ++x) {
          // All cells are asked for before the first is read, so that memory answers at once.
          keys[num_keys] = key(level, x, y);
          __builtin_prefetch(&slots_[first_slot(keys[num_keys])]);
          if (++num_keys < kKeysAtOnce) continue;
          if (cells_overlap(keys, num_keys, box, box_area)) return Answer::kYes;
          num_keys = 0;
        }
      }
    }
    return cells_overlap(keys, num_keys, box, box_area) ? Answer::kYes : Answer::kNo;
  }

 private:
  static constexpr int kWidth = 32 / sizeof(T);
  static constexpr int kKeysAtOnce = 32;
  static constexpr int kLevels = 1024;  // can_hold leaves exponents of +-400
  static constexpr int64_t kLastCell = int64_t(1) << 52;
  // What rounding may move a centre or the edge of a cell by, of the size of the coordinates.
  static constexpr double kSlack = 1e-14;

  struct Slot {
    uint64_t key;  // 0: free
    int32_t head;  // the newest chunk of the cell; chunk 0 ends every list
    int32_t size;
  };

  // Cells several times as wide as two overlapping boxes are apart: a box then looks into one or
  // two of them along each axis, while dense places still spread over many.
  static int cell_exponent(T threshold) {
    return std::max(-6, static_cast<int>(std::lround(std::log2(4 * (1 - double(threshold)) + 1e-9))));
  }

  DETLITE_INLINE double cells_per_pixel(int level) const {
    return power_of_two(-(level + 1 + cell_exponent_));
  }

  static DETLITE_INLINE int64_t cell(double place) {
    constexpr double kLast = static_cast<double>(kLastCell);
    const double inside = std::min(std::max(place, -kLast), kLast);
    const int64_t whole = static_cast<int64_t>(inside);
    return whole - (static_cast<double>(whole) > inside);
  }

  // How far apart the centres of overlapping boxes may be along an axis, if one box is `side` long
  // there and the other at most `longest`.
  DETLITE_INLINE double reach(double side, double longest) const {
    const double t = bound_;
    const double other = t > 0 ? std::min(longest, side / t) : longest;
    double distance = (side + other) / 2 - t * std::max(side, other);
    if (other > side) distance = std::max(distance, (1 - t) * side);
    return distance * (1 + 1e-9);
  }

  // Never 0. Cells that share a key only cost time; finaliser of MurmurHash3 (Appleby 2011).
  static DETLITE_INLINE uint64_t key(int level, int64_t x, int64_t y) {
    uint64_t hash = static_cast<uint64_t>(x) * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(y);
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu + static_cast<uint64_t>(level + 4096);
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
    return (hash ^ (hash >> 33)) | 1;
  }

  DETLITE_INLINE uint64_t first_slot(uint64_t key) const { return (key >> 1) & (num_slots_ - 1); }

  DETLITE_INLINE Slot& slot_for(uint64_t key) {
    uint64_t i = first_slot(key);
    while (slots_[i].key != 0 && slots_[i].key != key) i = (i + 1) & (num_slots_ - 1);
    slots_[i].key = key;
    return slots_[i];
  }

  DETLITE_INLINE bool cells_overlap(
      const uint64_t* keys, int num_keys, const Box<T>& box, T box_area) const {
    int32_t heads[kKeysAtOnce];
    int num_heads = 0;
    for (int k = 0; k < num_keys; ++k) {
      uint64_t i = first_slot(keys[k]);
      while (slots_[i].key != keys[k] && slots_[i].key != 0) i = (i + 1) & (num_slots_ - 1);
      if (slots_[i].key == 0) continue;
      heads[num_heads++] = slots_[i].head;
      __builtin_prefetch(&chunks_[slots_[i].head]);
      __builtin_prefetch(chunks_[slots_[i].head].x2);
    }
    for (int k = 0; k < num_heads; ++k) {
      for (int32_t chunk = heads[k]; chunk != 0; chunk = next_[chunk]) {
        if (chunks_[chunk].overlaps(box, box_area, threshold_)) return true;
      }
    }
    return false;
  }

  T threshold_;
  double bound_;
  int cell_exponent_;
  uint64_t num_slots_;
  ZeroedArray<Slot> slots_;
  ZeroedArray<Chunk<T, kWidth>> chunks_;
  ZeroedArray<int32_t> next_;
  std::vector<int32_t> level_sizes_;
  int32_t num_chunks_ = 0;
  int64_t size_ = 0;
  int lowest_ = kLevels, highest_ = -kLevels;
};

}  // namespace detlite
