// Activations and their slopes, a vector at a time. What is not a number stays so.
#pragma once
#include "vector.h"

namespace fishnet {

typedef int32_t Integers __attribute__((vector_size(VL * 4), aligned(4), may_alias));

// Numbers as fishnet/nn/cpu/blocks.py knows them.
enum Activation {
  IDENTITY, RELU, LEAKY_RELU, ELU, SELU, GELU, SILU, TANH, SIGMOID, SOFTPLUS, HARD_SWISH, MISH, RELU6, EXPONENTIAL,
  SQUAREPLUS, PRELU, ACTIVATIONS
};

INLINE Vector at_most(Vector x, float bound) { return x > bound ? splat(bound) : x; }
INLINE Vector at_least(Vector x, float bound) { return x < bound ? splat(bound) : x; }

INLINE Vector square_root(Vector x) {
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);  // the plain one makes GCC 12 warn
#elif defined(__AVX2__)
  return (Vector)_mm256_sqrt_ps((__m256)x);
#else
  return (Vector)vsqrtq_f32((float32x4_t)x);
#endif
}

// x = n log 2 + r with |r| <= log 2 / 2: exp(r) - 1 and n, for |x| <= 130.
struct Reduced {
  Vector minus_one, n;
};
INLINE Reduced reduce(Vector x) {
  const Vector rounder = splat(12582912.f);  // 1.5 2^23: adding it rounds to whole numbers
  const Vector n = fma(x, splat(1.44269504f), rounder) - rounder;
  Vector r = fma(n, splat(-0.693359375f), x);  // log 2 in two parts; the product with the first is exact
  r = fma(n, splat(2.12194440e-4f), r);
  Vector p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  return {fma(p, r * r, r), n};
}

// 2^n for whole n in -126..127.
INLINE Vector power_of_two(Vector n) {
  const Integers bits = __builtin_convertvector(n, Integers);
  return (Vector)((bits + 127) << 23);
}

// Cephes' polynomial: relative error below 2e-7. Infinite from 88.73 on, 0 below -104.
INLINE Vector exp(Vector x) {
  const Reduced part = reduce(at_least(at_most(x, 129.f), -129.f));
  const Vector n = part.n != part.n ? Vector{} : part.n;
  const Vector half = at_least(n * .5f - .25f, -64.f);
  const Vector first = __builtin_convertvector(__builtin_convertvector(half, Integers), Vector);
  return (part.minus_one + 1.f) * power_of_two(first) * power_of_two(n - first);
}

// exp(x) - 1 without cancellation, for x up to 88.
INLINE Vector exp_minus_one(Vector x) {
  const Reduced part = reduce(at_least(at_most(x, 88.f), -88.f));
  const Vector scale = power_of_two(part.n != part.n ? Vector{} : part.n);
  return fma(part.minus_one, scale, scale - 1.f);
}

INLINE Vector tanh(Vector x) {
  const Vector e = exp_minus_one(2.f * at_least(at_most(x, 10.f), -10.f));
  return e / (e + 2.f);
}

INLINE Vector sigmoid(Vector x) { return 1.f / (1.f + exp(-x)); }

// log(1 + exp(x)) = max(x, 0) + 2 atanh(z / (2 + z)), z = exp(-|x|).
INLINE Vector softplus(Vector x) {
  const Vector z = exp(x > 0.f ? -x : x), s = z / (z + 2.f), q = s * s;
  Vector p = splat(1.f / 15);
  p = fma(p, q, splat(1.f / 13));
  p = fma(p, q, splat(1.f / 11));
  p = fma(p, q, splat(1.f / 9));
  p = fma(p, q, splat(1.f / 7));
  p = fma(p, q, splat(1.f / 5));
  p = fma(p, q, splat(1.f / 3));
  const Vector log = 2.f * fma(p * q, s, s);
  return at_least(x, 0.f) + log;
}

constexpr float SELU_SCALE = 1.0507009873554804934193349852946f, SELU_ALPHA = 1.6732632423543772848170429916717f;
constexpr float GELU_A = 0.7978845608028654f, GELU_B = 0.044715f;

// y of x; `a` is the coefficient, or the channel's learned slope.
template <int A>
INLINE Vector activate(Vector x, Vector a) {
  const Vector zero{};
  if constexpr (A == RELU) return x <= 0.f ? zero : x;
  if constexpr (A == LEAKY_RELU || A == PRELU) return x < 0.f ? a * x : x;
  if constexpr (A == ELU) return x <= 0.f ? a * exp_minus_one(x) : x;
  if constexpr (A == SELU) return SELU_SCALE * (x <= 0.f ? SELU_ALPHA * exp_minus_one(x) : x);
  if constexpr (A == GELU) return .5f * x * (1.f + tanh(GELU_A * fma(GELU_B * x * x, x, x)));
  if constexpr (A == SILU) return x * sigmoid(x);
  if constexpr (A == TANH) return tanh(x);
  if constexpr (A == SIGMOID) return sigmoid(x);
  if constexpr (A == SOFTPLUS) return softplus(x);
  if constexpr (A == HARD_SWISH) return x * at_least(at_most(x + 3.f, 6.f), 0.f) * (1.f / 6);
  if constexpr (A == MISH) {
    const Vector e = exp(at_most(x, 20.f)), q = e * (e + 2.f);
    return x * (q / (q + 2.f));
  }
  if constexpr (A == RELU6) return at_least(at_most(x, 6.f), 0.f);
  if constexpr (A == EXPONENTIAL) return exp(x);
  if constexpr (A == SQUAREPLUS) {  // on the left without cancellation
    const Vector root = square_root(fma(x, x, splat(4.f)));
    return x < 0.f ? 2.f / (root - x) : .5f * (x + root);
  }
  return x;
}

// dy / dx; at a kink the one of the reference.
template <int A>
INLINE Vector slope(Vector x, Vector a) {
  const Vector zero{}, one = splat(1.f);
  if constexpr (A == RELU) return x > 0.f ? one : zero;
  if constexpr (A == LEAKY_RELU || A == PRELU) return x < 0.f ? a : one;
  if constexpr (A == ELU) return x <= 0.f ? a * (exp_minus_one(x) + 1.f) : one;
  if constexpr (A == SELU) return SELU_SCALE * (x <= 0.f ? SELU_ALPHA * (exp_minus_one(x) + 1.f) : one);
  if constexpr (A == GELU) {
    const Vector t = tanh(GELU_A * fma(GELU_B * x * x, x, x));
    const Vector inner = GELU_A * fma(splat(3 * GELU_B), x * x, one);
    return .5f * (1.f + t) + .5f * x * (1.f - t * t) * inner;
  }
  if constexpr (A == SILU) {
    const Vector s = sigmoid(x);
    return s * fma(x, 1.f - s, one);
  }
  if constexpr (A == TANH) {
    const Vector t = tanh(x);
    return 1.f - t * t;
  }
  if constexpr (A == SIGMOID) {
    const Vector s = sigmoid(x);
    return s * (1.f - s);
  }
  if constexpr (A == SOFTPLUS) return sigmoid(x);
  if constexpr (A == HARD_SWISH) {
    const Vector inside = (x > -3.f) & (x < 3.f) ? one : zero;
    return (at_least(at_most(x + 3.f, 6.f), 0.f) + x * inside) * (1.f / 6);
  }
  if constexpr (A == MISH) {
    const Vector e = exp(at_most(x, 20.f)), q = e * (e + 2.f), t = q / (q + 2.f);
    return fma(x * (e / (e + 1.f)), 1.f - t * t, t);
  }
  if constexpr (A == RELU6) return (x > 0.f) & (x < 6.f) ? one : zero;
  if constexpr (A == EXPONENTIAL) return exp(x);
  if constexpr (A == SQUAREPLUS) return .5f * (1.f + x / square_root(fma(x, x, splat(4.f))));
  return one;
}

template <int A>
struct Chosen {
  static constexpr int value = A;
};

// Calls `work(Chosen<activation>{})`; returns whether there is such an activation.
template <class Work>
inline bool with_activation(int32_t activation, Work work) {
  switch (activation) {
#define CASE(A) \
  case A: work(Chosen<A>{}); return true;
    CASE(IDENTITY) CASE(RELU) CASE(LEAKY_RELU) CASE(ELU) CASE(SELU) CASE(GELU) CASE(SILU) CASE(TANH)
    CASE(SIGMOID) CASE(SOFTPLUS) CASE(HARD_SWISH) CASE(MISH) CASE(RELU6) CASE(EXPONENTIAL) CASE(SQUAREPLUS) CASE(PRELU)
#undef CASE
  }
  return false;
}

}  // namespace fishnet
