// The steps of a greedy NMS of sorted boxes, for each image of a batch.
//
// Boxes are taken in blocks of 1,024 by falling score. Once an image, `mark_earlier` finds for each
// box which earlier ones of its own block overlap it. Then for each block in turn, `resolve_block`
// finds which of its boxes stay and writes them down, and `suppress_later` drops the boxes of later
// blocks that overlap one of those. So a pair is compared if the earlier box stays or the two share
// a block, and what is serial is 32 short steps a block.
//
// The number of launches follows from the shapes alone. A launch that has nothing to do, since an
// image has its boxes or holds no more candidates, reads one number and ends.

#pragma once

#include "boxes.cuh"
#include "warp.cuh"

namespace detlite {

constexpr int kBlock = 1024;           // boxes that are resolved together, one thread each
constexpr int kWords = kBlock / kWarp;  // of one bit a box
constexpr int kLater = 256;            // boxes of a tile, one thread each
constexpr int kEarlier = 128;          // boxes that each of them is compared with
constexpr int kTilesPerBlock = kBlock / kEarlier;
static_assert(kWords == kWarp, "a warp holds the words of a block, one a lane");

template <typename T>
struct alignas(16) SortedBox {
  Box<T> box;
  T area;
  int64_t group;

  __device__ PreparedBox<T> prepared() const { return {box, area}; }
};

// All boxes of a batch by falling score; arrays of (images, size).
template <typename T>
struct SortedBoxes {
  int size;
  const int64_t* order;  // place before sorting
  SortedBox<T>* boxes;
  bool* alive;  // neither dropped nor padding
  // (images, blocks, kWords, kBlock): bit k of word w of box i: it overlaps box 32 w + k < i of its
  // block. Words beyond the box's own are not written.
  unsigned* earlier;

  __device__ int64_t at(int image, int place) const { return int64_t(image) * size + place; }
  __device__ unsigned& word(int image, int place, int w) const {
    const int64_t blocks = (size + kBlock - 1) / kBlock;
    return earlier[((image * blocks + place / kBlock) * kWords + w) * kBlock + place % kBlock];
  }
};

// The boxes that stay: of the last block that was resolved, and the results so far.
template <typename T>
struct KeptBoxes {
  SortedBox<T>* boxes;  // (images, kBlock)
  int* num_boxes;       // (images,); 0 where later boxes need not be looked at
  int64_t* indices;     // (images, limit)
  int64_t* counts;      // (images,)
  int64_t limit;
};

// Scores as keys for a sort: NaN, which CUDA sorts before all numbers, as the lowest.
template <typename T>
__global__ void __launch_bounds__(kLater) make_keys(const T* scores, T* keys, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * kLater + threadIdx.x;
  if (i >= count) return;
  const T score = scores[i];
  keys[i] = score != score ? -std::numeric_limits<T>::infinity() : score + T(0);  // no -0
}

// Grid: places, images. `groups` may be null: one group. A key of minus infinity marks padding.
template <typename T, typename Key>
__global__ void __launch_bounds__(kLater) gather_sorted(
    const Box<T>* boxes, const int64_t* groups, const Key* keys, bool padded,
    SortedBoxes<T> sorted) {
  const int place = blockIdx.x * kLater + threadIdx.x;
  if (place >= sorted.size) return;
  const int64_t to = sorted.at(blockIdx.y, place);
  const int64_t from = sorted.at(blockIdx.y, static_cast<int>(sorted.order[to]));
  const PreparedBox<T> box = prepare(boxes[from]);
  sorted.boxes[to] = {box.box, box.area, groups == nullptr ? 0 : groups[from]};
  sorted.alive[to] = !padded || keys[to] > -std::numeric_limits<Key>::infinity();
}

template <typename T>
__device__ bool suppresses(const SortedBox<T>& kept, const SortedBox<T>& box, T threshold) {
  return kept.group == box.group && overlaps(kept.prepared(), box.prepared(), threshold);
}

// Grid: tiles of kLater boxes, tiles of kEarlier boxes of the same block, images.
template <typename T>
__global__ void __launch_bounds__(kLater) mark_earlier(SortedBoxes<T> sorted, T threshold) {
  __shared__ SortedBox<T> tile[kEarlier];
  const int image = blockIdx.z;
  const int begin = blockIdx.x * kLater;
  const int first = begin / kBlock * kBlock + blockIdx.y * kEarlier;
  const int last = min(min(first + kEarlier, begin + kLater), sorted.size);
  if (first >= last) return;
  for (int j = first + threadIdx.x; j < last; j += kLater) {
    tile[j - first] = sorted.boxes[sorted.at(image, j)];
  }
  __syncthreads();
  const int place = begin + threadIdx.x;
  if (place >= sorted.size || !sorted.alive[sorted.at(image, place)]) return;
  const SortedBox<T> box = sorted.boxes[sorted.at(image, place)];
  for (int start = first; start < last && start / kWarp <= place / kWarp; start += kWarp) {
    const int end = min(start + kWarp, place);
    unsigned bits = 0;
    for (int j = start; j < end; ++j) {
      bits |= unsigned(suppresses(tile[j - first], box, threshold)) << (j - start);
    }
    sorted.word(image, place, start % kBlock / kWarp) = bits;
  }
}

// Which of a warp's boxes stay, given which are alive. Box i depends on earlier ones only, so it is
// right after i rounds; most warps need two or three.
__device__ inline unsigned resolve_warp(bool alive, unsigned earlier) {
  unsigned kept = __ballot_sync(kWholeWarp, alive);
  while (true) {
    const unsigned next = __ballot_sync(kWholeWarp, alive && !(earlier & kept));
    if (next == kept) return kept;
    kept = next;
  }
}

// Writes down the box of this thread, if it stays. All threads of the block call it.
template <typename T>
__device__ void write_kept(
    const SortedBoxes<T>& sorted, const KeptBoxes<T>& kept, const unsigned* words, int block,
    int64_t found) {
  const int image = blockIdx.x, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int size_of_word = __popc(words[lane]);
  const int total = warp_sum(size_of_word);
  const int before = warp_sum(lane < warp ? size_of_word : 0);
  if (words[warp] >> lane & 1) {
    const int rank = before + __popc(words[warp] & ((1u << lane) - 1));
    const int64_t from = sorted.at(image, block * kBlock + threadIdx.x);
    if (found + rank < kept.limit) {
      kept.indices[image * kept.limit + found + rank] = sorted.order[from];
    }
    kept.boxes[image * kBlock + rank] = sorted.boxes[from];
  }
  if (threadIdx.x == 0) {
    kept.counts[image] = min(found + total, kept.limit);
    kept.num_boxes[image] = found + total < kept.limit ? total : 0;
  }
}

// Grid: images. Words are resolved one after the other, each by its warp; then the boxes of the
// words after it see what they have to leave for.
template <typename T>
__global__ void __launch_bounds__(kBlock) resolve_block(
    SortedBoxes<T> sorted, KeptBoxes<T> kept, int block, bool last) {
  __shared__ unsigned words[kWords];
  const int image = blockIdx.x, warp = threadIdx.x / kWarp;
  const int place = block * kBlock + threadIdx.x;
  const int64_t found = block == 0 ? 0 : kept.counts[image];
  if (block > 0 && found >= kept.limit) return;  // its num_boxes is 0 already
  bool alive = place < sorted.size && sorted.alive[sorted.at(image, place)];
  if (threadIdx.x < kWords) words[threadIdx.x] = 0;
  if (__syncthreads_or(alive)) {
    unsigned earlier[kWords];
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      earlier[w] = alive && w <= warp ? sorted.word(image, place, w) : 0;
    }
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      if (w == warp) {
        const unsigned stay = resolve_warp(alive, earlier[w]);
        if (threadIdx.x % kWarp == 0) words[w] = stay;
      }
      __syncthreads();
      if (w < warp && (earlier[w] & words[w])) alive = false;
    }
  }
  write_kept(sorted, kept, words, block, found);
  if (!last) return;
  __syncthreads();
  for (int64_t i = kept.counts[image] + threadIdx.x; i < kept.limit; i += kBlock) {
    kept.indices[image * kept.limit + i] = -1;
  }
}

// Grid: tiles of the boxes from `begin` on, tiles of the kept boxes of one block, images.
template <typename T>
__global__ void __launch_bounds__(kLater) suppress_later(
    SortedBoxes<T> sorted, KeptBoxes<T> kept, int begin, T threshold) {
  __shared__ SortedBox<T> tile[kEarlier];
  const int image = blockIdx.z;
  const int first = blockIdx.y * kEarlier;
  const int size = min(kEarlier, kept.num_boxes[image] - first);
  if (size <= 0) return;
  for (int j = threadIdx.x; j < size; j += kLater) {
    tile[j] = kept.boxes[image * kBlock + first + j];
  }
  __syncthreads();
  const int place = begin + blockIdx.x * kLater + threadIdx.x;
  if (place >= sorted.size) return;
  const int64_t at = sorted.at(image, place);
  // Blocks of other kept boxes may drop the box at the same time; all write the same.
  if (!sorted.alive[at]) return;
  const SortedBox<T> box = sorted.boxes[at];
  for (int j = 0; j < size; ++j) {
    if (suppresses(tile[j], box, threshold)) {
      sorted.alive[at] = false;
      return;
    }
  }
}

}  // namespace detlite
