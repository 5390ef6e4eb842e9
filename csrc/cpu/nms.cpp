// Greedy non-maximum suppression: exact, near-linear on boxes that are scattered.
//   boxes    (N, 4) float32 or float64, XYXY in pixels
//   scores   (N,) the same type; NaN counts as the lowest
//   groups   (N,) int64; only boxes of one group suppress each other
//   returns  (M,) int64, kept boxes by falling score, equal scores by rising index
// nms_padded takes a batch (B, N, ...) and returns indices (B, max_detections), padded with -1, and
// counts (B,); a score of minus infinity marks a place without a candidate there.

#include <torch/csrc/stable/library.h>

#include <atomic>
#include <optional>
#include <tuple>
#include <unordered_map>

#include "../tensors.h"
#include "box_grid.h"
#include "sort_scores.h"
#include "vectorize.h"

namespace detlite {
namespace {

// Up to here it is quicker to compare a box with all kept ones than to hash.
constexpr int64_t kBoxesWithoutGrid = 192;
// Below this number of boxes, waking the other threads can cost more than they save.
constexpr int64_t kBoxesOfOneThread = 16384;

// Marks in `kept` which of n boxes of one group, by falling score, stay; stops after `limit`.
template <typename T>
DETLITE_INLINE void greedy(
    const Box<T>* boxes, int64_t n, T threshold, int64_t limit, bool* kept) {
  BoxList<T> list;
  std::optional<BoxGrid<T>> grid;
  bool hashable = true;
  int64_t num_kept = 0;
  for (int64_t i = 0; i < n && num_kept < limit; ++i) {
    const Box<T> box = boxes[i];
    kept[i] = true;
    ++num_kept;
    if (!is_valid(box)) continue;  // it overlaps nothing
    const T box_area = area(box);
    hashable = hashable && BoxGrid<T>::can_hold(box);
    using Answer = typename BoxGrid<T>::Answer;
    Answer answer = Answer::kTooManyCells;
    if (hashable && list.size() >= kBoxesWithoutGrid) {
      if (!grid) {
        grid.emplace(list.size() + n - i, threshold);
        for (int64_t j = 0; j < list.size(); ++j) grid->insert(list[j]);
      }
      answer = grid->overlaps(box, box_area);
    }
    if (answer == Answer::kTooManyCells) {
      answer = list.overlaps(box, box_area, threshold) ? Answer::kYes : Answer::kNo;
    }
    if (answer == Answer::kYes) {
      kept[i] = false;
      --num_kept;
      continue;
    }
    list.insert(box);
    if (grid && hashable) grid->insert(box);
  }
}

// target_clones takes no templates: one function for each type.
DETLITE_CLONES void suppress(
    const Box<float>* boxes, int64_t n, float threshold, int64_t limit, bool* kept) {
  greedy(boxes, n, threshold, limit, kept);
}
DETLITE_CLONES void suppress(
    const Box<double>* boxes, int64_t n, double threshold, int64_t limit, bool* kept) {
  greedy(boxes, n, threshold, limit, kept);
}

// Numbers from 0 for the groups of the candidates, and how many there are.
std::pair<std::vector<int32_t>, int64_t> number_groups(
    const int64_t* groups, const std::vector<int32_t>& candidates) {
  std::vector<int32_t> numbers(candidates.size());
  if (candidates.empty()) return {numbers, 0};
  int64_t low = groups[candidates[0]], high = low;
  for (const int32_t i : candidates) {
    low = std::min(low, groups[i]);
    high = std::max(high, groups[i]);
  }
  // As unsigned numbers, since the difference may be beyond int64.
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  if (range < 4 * candidates.size() + 1024) {
    for (size_t r = 0; r < candidates.size(); ++r) {
      numbers[r] = static_cast<int32_t>(groups[candidates[r]] - low);
    }
    return {numbers, static_cast<int64_t>(range) + 1};
  }
  std::unordered_map<int64_t, int32_t> known;
  for (size_t r = 0; r < candidates.size(); ++r) {
    const auto next = static_cast<int32_t>(known.size());
    numbers[r] = known.try_emplace(groups[candidates[r]], next).first->second;
  }
  return {numbers, static_cast<int64_t>(known.size())};
}

// Calls f(0) ... f(n - 1) on all cores, each taking the next one when it is free.
template <typename F>
void for_each_in_parallel(int64_t n, const F& f) {
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < n; i = next++) f(i);
  });
}

// Which of the candidates, indices by falling score, stay.
template <typename T>
std::unique_ptr<bool[]> keep(
    const Box<T>* boxes,
    const int64_t* groups,
    const std::vector<int32_t>& candidates,
    double iou_threshold,
    int64_t limit) {
  const auto n = static_cast<int64_t>(candidates.size());
  const T threshold = round_down<T>(iou_threshold);
  std::vector<Box<T>> sorted(n);
  std::unique_ptr<bool[]> kept(new bool[n]());
  if (groups == nullptr) {
    for (int64_t r = 0; r < n; ++r) sorted[r] = boxes[candidates[r]];
    suppress(sorted.data(), n, threshold, limit, kept.get());
    return kept;
  }
  // Group after group, each by falling score.
  const auto [numbers, num_groups] = number_groups(groups, candidates);
  std::vector<int64_t> begins(num_groups + 1);
  for (const int32_t number : numbers) ++begins[number + 1];
  for (int64_t g = 0; g < num_groups; ++g) begins[g + 1] += begins[g];
  std::vector<int64_t> places(n), ends(begins.begin(), begins.end() - (num_groups > 0));
  for (int64_t r = 0; r < n; ++r) {
    places[r] = ends[numbers[r]]++;
    sorted[places[r]] = boxes[candidates[r]];
  }
  std::unique_ptr<bool[]> kept_by_group(new bool[n]());
  const auto one_group = [&](int64_t g) {
    const int64_t begin = begins[g], size = begins[g + 1] - begin;
    if (size > 0) suppress(&sorted[begin], size, threshold, limit, &kept_by_group[begin]);
  };
  if (n < kBoxesOfOneThread) {
    for (int64_t g = 0; g < num_groups; ++g) one_group(g);
  } else {
    for_each_in_parallel(num_groups, one_group);
  }
  for (int64_t r = 0; r < n; ++r) kept[r] = kept_by_group[places[r]];
  return kept;
}

Tensor kept_indices(
    const Tensor& boxes, const Tensor& scores, const Tensor* groups, double iou_threshold) {
  check_boxes(boxes, "boxes");
  const int64_t n = boxes.size(0);
  check_rows(scores, "scores", boxes);
  STD_TORCH_CHECK(n < std::numeric_limits<int32_t>::max(), "too many boxes: ", n);
  const Tensor wide = widened(boxes), wide_scores = widened(scores);
  const std::vector<int32_t> order = dispatch_floating(wide_scores, "scores", [&](auto zero) {
    using T = decltype(zero);
    return order_by_score(static_cast<const T*>(wide_scores.const_data_ptr()), n);
  });
  const int64_t* group_values = nullptr;
  Tensor wide_groups;
  if (groups != nullptr) {
    check_rows(*groups, "groups", boxes);
    wide_groups = as_int64(*groups);
    group_values = static_cast<const int64_t*>(wide_groups.const_data_ptr());
  }
  const auto kept = dispatch_floating(wide, "boxes", [&](auto zero) {
    using T = decltype(zero);
    return keep(boxes_of<T>(wide), group_values, order, iou_threshold, n);
  });
  Tensor indices = torch::stable::new_empty(
      boxes, {std::count(kept.get(), kept.get() + n, true)}, ScalarType::Long);
  auto* out = static_cast<int64_t*>(indices.mutable_data_ptr());
  for (int64_t r = 0; r < n; ++r) {
    if (kept[r]) *out++ = order[r];
  }
  return indices;
}

Tensor nms_cpu(const Tensor& boxes, const Tensor& scores, double iou_threshold) {
  return kept_indices(boxes, scores, nullptr, iou_threshold);
}

Tensor batched_nms_cpu(
    const Tensor& boxes, const Tensor& scores, const Tensor& groups, double iou_threshold) {
  return kept_indices(boxes, scores, &groups, iou_threshold);
}

// One image of nms_padded; returns how many boxes it keeps.
template <typename T>
int64_t keep_best(
    const Box<T>* boxes,
    const T* scores,
    const int64_t* groups,
    int64_t n,
    double iou_threshold,
    int64_t max_detections,
    int64_t* indices) {
  std::vector<int32_t> order = order_by_score(scores, n);
  // NaN and minus infinity are the lowest scores, so those places are the last.
  while (!order.empty() && !(scores[order.back()] > -std::numeric_limits<T>::infinity())) {
    order.pop_back();
  }
  const auto kept = keep(boxes, groups, order, iou_threshold, max_detections);
  int64_t count = 0;
  for (size_t r = 0; r < order.size() && count < max_detections; ++r) {
    if (kept[r]) indices[count++] = order[r];
  }
  std::fill(indices + count, indices + max_detections, -1);
  return count;
}

std::tuple<Tensor, Tensor> nms_padded_cpu(
    const Tensor& boxes,
    const Tensor& scores,
    const Tensor& groups,
    double iou_threshold,
    int64_t max_detections) {
  check_boxes(boxes, "boxes", 3);
  check_same_type(boxes, scores, "boxes and scores");
  check_same_device(boxes, groups, "boxes and groups");
  const int64_t batch = boxes.size(0), n = boxes.size(1);
  for (const Tensor* tensor : {&scores, &groups}) {
    STD_TORCH_CHECK(
        tensor->dim() == 2 && tensor->size(0) == batch && tensor->size(1) == n,
        "scores and groups must have the shape of boxes without its last dimension");
  }
  STD_TORCH_CHECK(max_detections >= 0, "max_detections must not be negative: ", max_detections);
  STD_TORCH_CHECK(n < std::numeric_limits<int32_t>::max(), "too many boxes: ", n);
  const Tensor wide = widened(boxes), wide_scores = widened(scores), wide_groups = as_int64(groups);
  Tensor indices = torch::stable::new_empty(boxes, {batch, max_detections}, ScalarType::Long);
  Tensor counts = torch::stable::new_empty(boxes, {batch}, ScalarType::Long);
  auto* out = static_cast<int64_t*>(indices.mutable_data_ptr());
  auto* out_counts = static_cast<int64_t*>(counts.mutable_data_ptr());
  dispatch_floating(wide, "boxes", [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < batch; ++i) {
      out_counts[i] = keep_best(
          boxes_of<T>(wide) + i * n,
          static_cast<const T*>(wide_scores.const_data_ptr()) + i * n,
          static_cast<const int64_t*>(wide_groups.const_data_ptr()) + i * n,
          n,
          iou_threshold,
          max_detections,
          out + i * max_detections);
    }
  });
  return {indices, counts};
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CPU, m) {
  m.impl("nms", TORCH_BOX(&detlite::nms_cpu));
  m.impl("batched_nms", TORCH_BOX(&detlite::batched_nms_cpu));
  m.impl("nms_padded", TORCH_BOX(&detlite::nms_padded_cpu));
}
