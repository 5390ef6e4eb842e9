// Sum of the focal loss of dense predictions (Lin et al. 2017, eq. 5), and its gradient.
//   logits    (R, K) float64, float32, float16 or bfloat16; the last three computed in float32
//   classes   (R,) integers: 0 to K - 1 the class, K and above background, below 0 ignored
//   returns   the sum, a scalar of the type of the computation; the gradient (R, K), that of logits
//
// With z the logit of being wrong (-logit where the class is the row's own), p = sigmoid(z) and
// s = softplus(z) = -log(1 - p), an entry is weight p^gamma s. Its derivative by z is
// weight p^gamma (gamma (1 - p) s + p). Nothing is kept between the two but the inputs.
//
// The logits are taken as one row of numbers in tiles that stay in the first-level cache: a tile is
// loaded with signs and weights, so that the arithmetic has no branches and any K is fast. The sum
// is that of fixed blocks, in double and in order: the number of threads does not change a bit.

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "../tensors.h"
#include "elementary.h"
#include "vectorize.h"

namespace detlite {
namespace {

constexpr int64_t kTile = 512;
constexpr int64_t kTilesOfBlock = 16;
constexpr int64_t kBlock = kTile * kTilesOfBlock;

template <typename T>
struct Tile {
  alignas(64) T z[kTile], weight[kTile];
  alignas(64) T p[kTile], not_p[kTile];  // not_p is 1 - p without its cancellation
  alignas(64) T softplus[kTile];
  alignas(64) T power[kTile];  // p^gamma
};

// gamma in the steps in which a tile is raised to it: p^whole, times sqrt(p), times p^rest.
struct Exponent {
  int64_t whole = 0;
  bool half = false;
  double rest = 0;

  explicit Exponent(double gamma) {
    STD_TORCH_CHECK(gamma >= 0, "gamma must be at least 0, got ", gamma);
    constexpr double kMostProducts = 8;  // beyond, an exponential is as accurate and faster
    if (gamma > kMostProducts) {
      rest = gamma;
      return;
    }
    whole = static_cast<int64_t>(gamma);
    rest = gamma - static_cast<double>(whole);
    half = rest == 0.5;
    if (half) rest = 0;
  }
};

template <typename T>
DETLITE_INLINE void fill_logistic(Tile<T>& tile) {
  for (int64_t j = 0; j < kTile; ++j) {
    const Logistic<T> value = logistic(tile.z[j]);
    tile.p[j] = value.p;
    tile.not_p[j] = value.not_p;
    tile.softplus[j] = value.softplus;
  }
}

template <typename T>
DETLITE_INLINE void fill_power(Tile<T>& tile, const Exponent& gamma) {
  if (gamma.rest != 0) {
    // log(p) = z - softplus(z), without cancellation where p is small.
    const T rest = static_cast<T>(gamma.rest);
    for (int64_t j = 0; j < kTile; ++j) {
      const T log_p = tile.z[j] > 0 ? -log1p_up_to_1(tile.not_p[j] / tile.p[j])
                                    : tile.z[j] - tile.softplus[j];
      tile.power[j] = exp_of_negative(rest * log_p);
    }
  } else if (gamma.half) {
    for (int64_t j = 0; j < kTile; ++j) tile.power[j] = std::sqrt(tile.p[j]);
  } else {
    for (int64_t j = 0; j < kTile; ++j) tile.power[j] = 1;
  }
  for (int64_t i = 0; i < gamma.whole; ++i) {
    for (int64_t j = 0; j < kTile; ++j) tile.power[j] *= tile.p[j];
  }
}

template <typename T>
DETLITE_INLINE double sum_losses(const Tile<T>& tile) {
  constexpr int64_t kLanes = 16;
  double sums[kLanes] = {};
  for (int64_t j = 0; j < kTile; j += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      sums[k] += tile.weight[j + k] * tile.power[j + k] * tile.softplus[j + k];
    }
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// The gradient takes the place of the power.
template <typename T>
DETLITE_INLINE void fill_gradient(Tile<T>& tile, T gamma) {
  for (int64_t j = 0; j < kTile; ++j) {
    const T slope = gamma * tile.not_p[j] * tile.softplus[j] + tile.p[j];
    tile.power[j] = tile.weight[j] * tile.power[j] * slope;
  }
}

// target_clones takes no templates: one function for each type.
#define DETLITE_FOCAL(T)                                                                         \
  DETLITE_CLONES double losses_of_tile(Tile<T>& tile, const Exponent& exponent) {                \
    fill_logistic<T>(tile);                                                                      \
    fill_power<T>(tile, exponent);                                                               \
    return sum_losses<T>(tile);                                                                  \
  }                                                                                              \
  DETLITE_CLONES void gradients_of_tile(Tile<T>& tile, const Exponent& exponent, double gamma) { \
    fill_logistic<T>(tile);                                                                      \
    fill_power<T>(tile, exponent);                                                               \
    fill_gradient<T>(tile, static_cast<T>(gamma));                                               \
  }
DETLITE_FOCAL(float)
DETLITE_FOCAL(double)
#undef DETLITE_FOCAL

// The logits as one row of numbers.
template <typename Value>
class Predictions {
 public:
  using T = std::conditional_t<std::is_same_v<Value, double>, double, float>;

  Predictions(const Tensor& logits, const Tensor& classes, double alpha, double grad)
      : logits_(static_cast<const Value*>(logits.const_data_ptr())),
        classes_(static_cast<const int64_t*>(classes.const_data_ptr())),
        num_classes_(logits.size(1)),
        size_(logits.numel()),
        positive_(static_cast<T>(alpha * grad)),
        negative_(static_cast<T>((1 - alpha) * grad)) {}

  int64_t num_blocks() const { return (size_ + kBlock - 1) / kBlock; }

  // Calls f(begin, end) for the tiles of a block.
  template <typename F>
  void in_tiles(int64_t block, const F& f) const {
    const int64_t end = std::min(size_, (block + 1) * kBlock);
    for (int64_t i = block * kBlock; i < end; i += kTile) f(i, std::min(end, i + kTile));
  }

  // Entries of ignored rows and those beyond the end get a weight of 0 and harmless logits.
  void load(int64_t begin, int64_t end, Tile<T>& tile) const {
    for (int64_t i = begin; i < end; ++i) tile.z[i - begin] = static_cast<T>(logits_[i]);
    std::fill_n(tile.weight, end - begin, negative_);
    ignore(tile, end - begin, kTile);
    in_rows(begin, end, [&](int64_t row, int64_t first, int64_t last) {
      if (classes_[row] < 0) {
        ignore(tile, first - begin, last - begin);
      } else if (const int64_t own = target(row); own >= first && own < last) {
        tile.z[own - begin] = -tile.z[own - begin];
        tile.weight[own - begin] = positive_;
      }
    });
  }

  void store(int64_t begin, int64_t end, Tile<T>& tile, Value* gradient) const {
    in_rows(begin, end, [&](int64_t row, int64_t first, int64_t last) {
      const int64_t own = target(row);
      if (own >= first && own < last) tile.power[own - begin] = -tile.power[own - begin];
    });
    for (int64_t i = begin; i < end; ++i) gradient[i] = static_cast<Value>(tile.power[i - begin]);
  }

 private:
  // The place of a row's class among all numbers, -1 for a row without one.
  int64_t target(int64_t row) const {
    const int64_t k = classes_[row];
    return k >= 0 && k < num_classes_ ? row * num_classes_ + k : -1;
  }

  static void ignore(Tile<T>& tile, int64_t begin, int64_t end) {
    std::fill(tile.z + begin, tile.z + end, T(0));
    std::fill(tile.weight + begin, tile.weight + end, T(0));
  }

  // Calls f(row, first, last) for the part of each row that is in a tile.
  template <typename F>
  void in_rows(int64_t begin, int64_t end, const F& f) const {
    for (int64_t row = begin / num_classes_; row * num_classes_ < end; ++row) {
      f(row, std::max(begin, row * num_classes_), std::min(end, (row + 1) * num_classes_));
    }
  }

  const Value* logits_;
  const int64_t* classes_;
  int64_t num_classes_, size_;
  T positive_, negative_;
};

template <typename F>
auto dispatch_logits(const Tensor& logits, const F& f) {
  switch (logits.scalar_type()) {
    case ScalarType::Half: return f(torch::headeronly::Half());
    case ScalarType::BFloat16: return f(torch::headeronly::BFloat16());
    default: return dispatch_floating(logits, "logits", f);
  }
}

Tensor checked_classes(const Tensor& logits, const Tensor& classes) {
  STD_TORCH_CHECK(logits.dim() == 2, "logits must have 2 dimensions, got ", logits.dim());
  check_rows(classes, "classes", logits);
  return as_int64(classes);
}

Tensor sigmoid_focal_loss_cpu(
    const Tensor& logits, const Tensor& classes, double alpha, double gamma) {
  const Tensor rows = checked_classes(logits, classes);
  const Tensor values = torch::stable::contiguous(logits);
  return dispatch_logits(values, [&](auto zero) {
    using T = typename Predictions<decltype(zero)>::T;
    const Predictions<decltype(zero)> predictions(values, rows, alpha, 1);
    const Exponent exponent(finite_exponent<T>(gamma));
    std::vector<double> sums(predictions.num_blocks(), 0.0);
    torch::stable::parallel_for(0, predictions.num_blocks(), 1, [&](int64_t begin, int64_t end) {
      Tile<T> tile;
      for (int64_t block = begin; block < end; ++block) {
        predictions.in_tiles(block, [&](int64_t first, int64_t last) {
          predictions.load(first, last, tile);
          sums[block] += losses_of_tile(tile, exponent);
        });
      }
    });
    double sum = 0;
    for (const double part : sums) sum += part;
    const auto type = sizeof(T) == sizeof(double) ? ScalarType::Double : ScalarType::Float;
    Tensor total = torch::stable::new_empty(values, {}, type);
    *static_cast<T*>(total.mutable_data_ptr()) = static_cast<T>(sum);
    return total;
  });
}

Tensor sigmoid_focal_loss_backward_cpu(
    const Tensor& grad, const Tensor& logits, const Tensor& classes, double alpha, double gamma) {
  const Tensor rows = checked_classes(logits, classes);
  const Tensor values = torch::stable::contiguous(logits);
  STD_TORCH_CHECK(grad.numel() == 1, "grad must be a scalar");
  const Tensor scale = torch::stable::to(grad, ScalarType::Double);
  const double factor = *static_cast<const double*>(scale.const_data_ptr());
  Tensor gradient = torch::stable::new_empty(values, values.sizes());
  dispatch_logits(values, [&](auto zero) {
    using Value = decltype(zero);
    using T = typename Predictions<Value>::T;
    const Predictions<Value> predictions(values, rows, alpha, factor);
    const double power = finite_exponent<T>(gamma);
    const Exponent exponent(power);
    auto* out = static_cast<Value*>(gradient.mutable_data_ptr());
    torch::stable::parallel_for(0, predictions.num_blocks(), 1, [&](int64_t begin, int64_t end) {
      Tile<T> tile;
      for (int64_t block = begin; block < end; ++block) {
        predictions.in_tiles(block, [&](int64_t first, int64_t last) {
          predictions.load(first, last, tile);
          gradients_of_tile(tile, exponent, power);
          predictions.store(first, last, tile, out);
        });
      }
    });
  });
  return gradient;
}

}  // namespace
}  // namespace detlite

STABLE_TORCH_LIBRARY_IMPL(detlite, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&detlite::sigmoid_focal_loss_cpu));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&detlite::sigmoid_focal_loss_backward_cpu));
}
