// The order of scores: falling, equal ones by rising index, NaN as the lowest.

#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace detlite {

// Unsigned keys that rise as scores fall, so that a stable radix sort of the keys is the order.
template <typename T>
auto descending_key(T score) {
  using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr Key kSign = Key(1) << (sizeof(Key) * 8 - 1);
  if (score != score) score = -std::numeric_limits<T>::infinity();
  const Key bits = std::bit_cast<Key>(score + T(0));  // -0 becomes 0, which it equals
  return bits & kSign ? bits : ~(bits | kSign);
}

// Indices of n scores in their order. Least significant digit first; a digit that all keys share
// costs nothing but its count.
template <typename T, int kDigitBits>
std::vector<int32_t> radix_order(const T* scores, int64_t n) {
  using Key = decltype(descending_key(T()));
  constexpr int kDigits = (sizeof(Key) * 8 + kDigitBits - 1) / kDigitBits;
  constexpr int kRadix = 1 << kDigitBits;

  struct Entry {
    Key key;
    int32_t index;
  };
  std::vector<Entry> entries(n), sorted(n);
  std::vector<int32_t> counts(kDigits * kRadix);
  for (int64_t i = 0; i < n; ++i) {
    const Key key = descending_key(scores[i]);
    entries[i] = {key, static_cast<int32_t>(i)};
    for (int d = 0; d < kDigits; ++d) {
      ++counts[d * kRadix + (key >> (d * kDigitBits)) % kRadix];
    }
  }
  for (int d = 0; d < kDigits; ++d) {
    int32_t* count = &counts[d * kRadix];
    if (n == 0 || count[(entries[0].key >> (d * kDigitBits)) % kRadix] == n) continue;
    int32_t place = 0;
    for (int r = 0; r < kRadix; ++r) place += std::exchange(count[r], place);
    for (const Entry& entry : entries) {
      sorted[count[(entry.key >> (d * kDigitBits)) % kRadix]++] = entry;
    }
    entries.swap(sorted);
  }
  std::vector<int32_t> order(n);
  for (int64_t i = 0; i < n; ++i) order[i] = entries[i].index;
  return order;
}

template <typename T>
std::vector<int32_t> order_by_score(const T* scores, int64_t n) {
  // Fewer passes cost larger tables, which pay for many scores only.
  return n < 4096 ? radix_order<T, 8>(scores, n) : radix_order<T, 11>(scores, n);
}

}  // namespace detlite
