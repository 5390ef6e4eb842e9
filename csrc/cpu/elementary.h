// Elementary functions that the compiler vectorises, for float; double calls the C library.
//
// The methods are those of Cody and Waite (Software Manual for the Elementary Functions, 1980). The
// polynomials minimise the relative error and were found by Remez' exchange in 40 digits. Errors
// are the greatest among all floats, against the C library in double, in units of the last place.
// Without fused multiply-add every processor gives the same bits.

#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "vectorize.h"

namespace detlite {

// exp(x) for x <= 0, within 1.2 ulp; 0 where the result would not be a normal number.
DETLITE_INLINE float exp_of_negative(float x) {
  constexpr float kLowest = -87.3365f;  // log of the smallest normal number
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  constexpr float kRounder = 12582912.0f;
  const float clamped = x < kLowest ? kLowest : x;  // a NaN stays
  const float shifted = clamped * 1.44269504f + kRounder;
  const float n = shifted - kRounder;
  // log(2) in two parts, of which the first has few digits: n times it is exact.
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float value = 1.38367466e-3f;
  value = value * r + 8.37489833e-3f;
  value = value * r + 4.16682317e-2f;
  value = value * r + 1.66664192e-1f;
  value = value * r + 4.99999920e-1f;
  value = value * r * r + r + 1.0f;
  const int32_t exponent = (std::bit_cast<int32_t>(shifted) + 127) << 23;
  const float result = value * std::bit_cast<float>(exponent);
  return x < kLowest ? 0.0f : result;
}

// log(1 + x) for x in [0, 1], within 2.1 ulp: 2 atanh(s) with s = x / (2 + x) up to 1/3.
DETLITE_INLINE float log1p_up_to_1(float x) {
  const float s = x / (2.0f + x), u = s * s;
  float value = 2.81783343e-1f;
  value = value * u + 2.79606029e-1f;
  value = value * u + 4.00249103e-1f;
  value = value * u + 6.66663147e-1f;
  return s * u * value + 2.0f * s;
}

DETLITE_INLINE double exp_of_negative(double x) { return std::exp(x); }

DETLITE_INLINE double log1p_up_to_1(double x) { return std::log1p(x); }

// For floats p and not_p are within 2.5 ulp, softplus within 3.
template <typename T>
struct Logistic {
  T p;         // sigmoid(z)
  T not_p;     // sigmoid(-z)
  T softplus;  // log(1 + exp(z))
};

template <typename T>
DETLITE_INLINE Logistic<T> logistic(T z) {
  const T e = exp_of_negative(z > 0 ? -z : z);  // at most 1, so that nothing overflows
  const T larger = 1 / (1 + e), smaller = e / (1 + e);
  return {z > 0 ? larger : smaller, z > 0 ? smaller : larger, (z > 0 ? z : 0) + log1p_up_to_1(e)};
}

}  // namespace detlite
