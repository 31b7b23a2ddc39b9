// Normalization and activation on the way from an array to the next: act((x - center) gain + shift), by image and
// channel, so that what is between a convolution's sums and the next one's input is never written to memory.
#pragma once
#include <type_traits>

#include "activations.h"
#include "blocks.h"

namespace fishnet {

// As many floats of a vector as there are channels left; the others are zeros, and stay unwritten.
INLINE Vector load_some(const float* p, int64_t count) {
  if (count >= VL) return load(p);
  float edge[VL] = {};
  copy(edge, p, count);
  return load(edge);
}
INLINE void store_some(float* p, Vector v, int64_t count) {
  if (count >= VL) {
    store(p, v);
  } else {
    float edge[VL];
    store(edge, v);
    copy(p, edge, count);
  }
}

// Numbers of one image, [c] each, and the activation behind it, whose coefficient [c] is the same for all images.
struct Norm {
  const float *center, *gain, *shift, *coefficient;
  int32_t activation;
  Norm of(int64_t image, int64_t c) const {
    return {center + image * c, gain + image * c, shift + image * c, coefficient, activation};
  }
};

// The same, of the vector of channels from `at` on.
struct Channels {
  Vector center, gain, shift, coefficient;
  static INLINE Channels at(const Norm& norm, int64_t at, int64_t count) {
    return {load_some(norm.center + at, count), load_some(norm.gain + at, count), load_some(norm.shift + at, count),
            load_some(norm.coefficient + at, count)};
  }
  INLINE Vector affine(Vector x) const { return fma(x - center, gain, shift); }
};

// Whole vectors, or what is left of the channels.
template <bool WHOLE>
INLINE Vector get(const float* p, int64_t count) {
  return WHOLE ? load(p) : load_some(p, count);
}
template <bool WHOLE>
INLINE void put(float* p, Vector v, int64_t count) {
  WHOLE ? store(p, v) : store_some(p, v, count);
}

// Image [h, w, c], normalized and activated, to blocks with a border of zeros.
template <int A>
inline void norm_act_to_blocks_by(const float* x, int64_t h, int64_t w, int64_t c, Border border, const Norm& norm,
                               float* out) {
  const int64_t columns = border.left + w + border.right, row = columns * BLOCK;
  for (int64_t first = 0; first < c; first += BLOCK, out += (border.top + h + border.bottom) * row) {
    fill_border(h, 1, columns, border, out);
    for (int v = 0; v < BLOCK; v += VL) {
      const int64_t count = std::max<int64_t>(0, std::min<int64_t>(VL, c - first - v)), at = count ? first + v : 0;
      const Channels here = Channels::at(norm, at, count);
      const auto write = [&](auto whole) {
        constexpr bool WHOLE = decltype(whole)::value;
        for (int64_t i = 0; i < h; i++) {
          const float* from = x + i * w * c + at;
          float* o = out + (border.top + i) * row + border.left * BLOCK + v;
          for (int64_t j = 0; j < w; j++, from += c, o += BLOCK)
            store(o, activate<A>(here.affine(get<WHOLE>(from, count)), here.coefficient));
        }
      };
      if (count == VL)
        write(std::true_type{});
      else
        write(std::false_type{});
    }
  }
}

// Sums that run over pixels: two of them side by side, which do not wait for each other, added up at the end.
struct Sum {
  Vector part[2] = {};
  INLINE Vector total() const { return part[0] + part[1]; }
};

// Calls work(pixel, part of the sums), the latter a constant once inlined.
template <class Work>
INLINE void each_pixel(int64_t pixels, Work work) {
  int64_t p = 0;
  for (; p + 2 <= pixels; p += 2) work(p, 0), work(p + 1, 1);
  if (p < pixels) work(p, 0);
}

// Calls work(first channel, channels, whether they are a whole vector) for each vector of channels.
template <class Work>
INLINE void each_vector(int64_t c, Work work) {
  int64_t at = 0;
  for (; at + VL <= c; at += VL) work(at, VL, std::true_type{});
  if (at < c) work(at, c - at, std::false_type{});
}

// Gradients of a normalization's numbers, of one image, [c] each.
struct NormGradient {
  float *gain, *shift, *coefficient;
  NormGradient of(int64_t image, int64_t c) const {
    return {gain + image * c, shift + image * c, coefficient + image * c};
  }
};

// Sums of one vector of channels, and the gradient that passes on.
template <int A>
struct Pullback {
  Channels here;
  Sum gain, shift, coefficient;
  // dx of x, with n = affine(x) (+ what was added) and dy that of act(n); `e` is the gradient of n.
  INLINE Vector operator()(int part, Vector x, Vector n, Vector dy, Vector* e) {
    *e = dy * slope<A>(n, here.coefficient);
    gain.part[part] = fma(*e, x - here.center, gain.part[part]);
    shift.part[part] += *e;
    if constexpr (A == PRELU) coefficient.part[part] += n < 0.f ? dy * n : Vector{};
    return *e * here.gain;
  }
  INLINE void write(const NormGradient& to, int64_t at, int64_t count) const {
    store_some(to.gain + at, gain.total(), count);
    store_some(to.shift + at, shift.total(), count);
    store_some(to.coefficient + at, coefficient.total(), count);
  }
};

// dx [pixels, c] of x and dy = that of act(norm(x)), and the sums.
template <int A>
inline void norm_act_gradient_by(const float* x, const float* dy, int64_t pixels, int64_t c, const Norm& norm,
                                 float* dx, const NormGradient& sums) {
  each_vector(c, [&](int64_t at, int64_t count, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    Pullback<A> pull{Channels::at(norm, at, count), {}, {}, {}};
    each_pixel(pixels, [&](int64_t p, int part) __attribute__((always_inline)) {
      const int64_t i = p * c + at;
      const Vector value = get<WHOLE>(x + i, count);
      Vector e;
      put<WHOLE>(dx + i, pull(part, value, pull.here.affine(value), get<WHOLE>(dy + i, count), &e), count);
    });
    pull.write(sums, at, count);
  });
}

// y [pixels, c] = act(norm(x) + added); null adds nothing.
template <int A>
inline void norm_add_act_by(const float* x, const float* added, int64_t pixels, int64_t c, const Norm& norm, float* y) {
  each_vector(c, [&](int64_t at, int64_t count, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    const Channels here = Channels::at(norm, at, count);
    for (int64_t i = at; i < pixels * c; i += c) {
      Vector n = here.affine(get<WHOLE>(x + i, count));
      if (added) n += get<WHOLE>(added + i, count);
      put<WHOLE>(y + i, activate<A>(n, here.coefficient), count);
    }
  });
}

// Gradients dx and d_added, and the sums.
template <int A>
inline void norm_add_act_gradient_by(const float* x, const float* added, const float* dy, int64_t pixels, int64_t c,
                                  const Norm& norm, float* dx, float* d_added, const NormGradient& sums) {
  each_vector(c, [&](int64_t at, int64_t count, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    Pullback<A> pull{Channels::at(norm, at, count), {}, {}, {}};
    each_pixel(pixels, [&](int64_t p, int part) __attribute__((always_inline)) {
      const int64_t i = p * c + at;
      const Vector value = get<WHOLE>(x + i, count), n = pull.here.affine(value) + get<WHOLE>(added + i, count);
      Vector e;
      put<WHOLE>(dx + i, pull(part, value, n, get<WHOLE>(dy + i, count), &e), count);
      put<WHOLE>(d_added + i, e, count);
    });
    pull.write(sums, at, count);
  });
}

// Normalized and activated pixels of a 2x2 window, and the largest of them: the first of equal ones; what is not a
// number is larger than any.
template <int A>
struct Window2 {
  Vector x[4], n[4], largest;
  Integers winner;
  template <bool WHOLE>
  INLINE Window2(const float* p, int64_t c, int64_t row, const Channels& here, int64_t count,
                 std::bool_constant<WHOLE>) {
    UNROLL for (int i = 0; i < 4; i++) {
      x[i] = get<WHOLE>(p + i % 2 * c + i / 2 * row, count);
      n[i] = here.affine(x[i]);
      const Vector y = activate<A>(n[i], here.coefficient);
      const Integers larger = i ? (y > largest) | ((y != y) & (largest == largest)) : Integers{} - 1;
      largest = larger ? y : largest;
      winner = larger ? Integers{} + i : winner;
    }
  }
};

// y [h / 2, w / 2, c]: the maximum of act(norm(x)) over windows of 2x2; a last odd row or column is left out.
template <int A>
inline void norm_act_pool_by(const float* x, int64_t h, int64_t w, int64_t c, const Norm& norm, float* y) {
  each_vector(c, [&](int64_t at, int64_t count, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    const Channels here = Channels::at(norm, at, count);
    for (int64_t p = 0; p < h / 2; p++)
      for (int64_t q = 0; q < w / 2; q++) {
        const Window2<A> window(x + (2 * p * w + 2 * q) * c + at, c, w * c, here, count, whole);
        put<WHOLE>(y + (p * (w / 2) + q) * c + at, window.largest, count);
      }
  });
}

// dx [h, w, c] of dy [h / 2, w / 2, c], and the sums.
template <int A>
inline void norm_act_pool_gradient_by(const float* x, const float* dy, int64_t h, int64_t w, int64_t c,
                                      const Norm& norm, float* dx, const NormGradient& sums) {
  if (w % 2)
    for (int64_t p = 0; p < h; p++) fill_zeros(dx + (p * w + w - 1) * c, c);
  if (h % 2) fill_zeros(dx + (h - 1) * w * c, w * c);
  each_vector(c, [&](int64_t at, int64_t count, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    Pullback<A> pull{Channels::at(norm, at, count), {}, {}, {}};
    const int64_t half = w / 2;
    for (int64_t p = 0; p < h / 2; p++)
      each_pixel(half, [&](int64_t q, int part) __attribute__((always_inline)) {
        const int64_t i = (2 * p * w + 2 * q) * c + at;
        const Window2<A> window(x + i, c, w * c, pull.here, count, whole);
        const Vector d = get<WHOLE>(dy + (p * half + q) * c + at, count);
        Vector value = window.x[0], n = window.n[0], e;
        UNROLL for (int k = 1; k < 4; k++) {
          const Integers here = window.winner == k;
          value = here ? window.x[k] : value, n = here ? window.n[k] : n;
        }
        const Vector passed = pull(part, value, n, d, &e);
        UNROLL for (int k = 0; k < 4; k++) {
          const Integers here = window.winner == k;
          put<WHOLE>(dx + i + k % 2 * c + k / 2 * w * c, here ? passed : Vector{}, count);
        }
      });
    pull.write(sums, at, count);
  });
}

// Mean and biased variance of each channel of an image [pixels, c].
inline void image_moments(const float* y, int64_t pixels, int64_t c, float* mean, float* var) {
  each_vector(c, [&](int64_t at, int64_t count, auto whole) {
    constexpr bool WHOLE = decltype(whole)::value;
    Sum sum, squares;
    each_pixel(pixels, [&](int64_t p, int part) __attribute__((always_inline)) {
      sum.part[part] += get<WHOLE>(y + p * c + at, count);
    });
    const Vector m = sum.total() / static_cast<float>(pixels);
    each_pixel(pixels, [&](int64_t p, int part) __attribute__((always_inline)) {
      const Vector d = get<WHOLE>(y + p * c + at, count) - m;
      squares.part[part] = fma(d, d, squares.part[part]);
    });
    store_some(mean + at, m, count);
    store_some(var + at, squares.total() / static_cast<float>(pixels), count);
  });
}

// What the moments of an image [pixels, c] add to its gradient: dy + (y - mean) spread + level, [c] each but y, dy.
struct MomentGradient {
  const float *y, *mean, *spread, *level;
  MomentGradient of(int64_t image, int64_t pixels, int64_t c) const {
    return {y + image * pixels * c, mean + image * c, spread + image * c, level + image * c};
  }
};

// dy of an image [h, w, c] with what its moments add, to blocks with a border of zeros, and zeros between pixels that
// are to be more than one step apart.
inline void gradient_to_blocks(const float* dy, int64_t h, int64_t w, int64_t c, Border border, int64_t step_h,
                               int64_t step_w, const MomentGradient& moments, float* out) {
  const int64_t rows = border.top + (h - 1) * step_h + 1 + border.bottom;
  const int64_t columns = border.left + (w - 1) * step_w + 1 + border.right, row = columns * BLOCK;
  if (step_h > 1 || step_w > 1) fill_zeros(out, blocks_of(c) * rows * row);
  for (int64_t first = 0; first < c; first += BLOCK, out += rows * row) {
    fill_border(h, step_h, columns, border, out);
    for (int v = 0; v < BLOCK; v += VL) {
      const int64_t count = std::max<int64_t>(0, std::min<int64_t>(VL, c - first - v)), at = count ? first + v : 0;
      const Vector mean = load_some(moments.mean + at, count), spread = load_some(moments.spread + at, count);
      const Vector level = load_some(moments.level + at, count);
      const auto write = [&](auto whole) {
        constexpr bool WHOLE = decltype(whole)::value;
        for (int64_t i = 0; i < h; i++) {
          const int64_t pixel = i * w * c + at;
          float* o = out + (border.top + i * step_h) * row + border.left * BLOCK + v;
          for (int64_t j = 0; j < w; j++, o += step_w * BLOCK) {
            const Vector d = get<WHOLE>(moments.y + pixel + j * c, count) - mean;
            store(o, fma(d, spread, get<WHOLE>(dy + pixel + j * c, count)) + level);
          }
        }
      };
      if (count == VL)
        write(std::true_type{});
      else
        write(std::false_type{});
    }
  }
}

// The same with the activation that the norm names.

#define BY_ACTIVATION(function, ...) \
  with_activation(norm.activation, [&](auto chosen) { function<decltype(chosen)::value>(__VA_ARGS__); })

inline void norm_act_to_blocks(const float* x, int64_t h, int64_t w, int64_t c, const Border& border, const Norm& norm,
                               float* out) {
  BY_ACTIVATION(norm_act_to_blocks_by, x, h, w, c, border, norm, out);
}

inline void norm_act_gradient(const float* x, const float* dy, int64_t pixels, int64_t c, const Norm& norm, float* dx,
                              const NormGradient& sums) {
  BY_ACTIVATION(norm_act_gradient_by, x, dy, pixels, c, norm, dx, sums);
}

inline void norm_add_act(const float* x, const float* added, int64_t pixels, int64_t c, const Norm& norm, float* y) {
  BY_ACTIVATION(norm_add_act_by, x, added, pixels, c, norm, y);
}

inline void norm_add_act_gradient(const float* x, const float* added, const float* dy, int64_t pixels, int64_t c,
                                  const Norm& norm, float* dx, float* d_added, const NormGradient& sums) {
  BY_ACTIVATION(norm_add_act_gradient_by, x, added, dy, pixels, c, norm, dx, d_added, sums);
}

inline void norm_act_pool(const float* x, int64_t h, int64_t w, int64_t c, const Norm& norm, float* y) {
  BY_ACTIVATION(norm_act_pool_by, x, h, w, c, norm, y);
}

inline void norm_act_pool_gradient(const float* x, const float* dy, int64_t h, int64_t w, int64_t c, const Norm& norm,
                                   float* dx, const NormGradient& sums) {
  BY_ACTIVATION(norm_act_pool_gradient_by, x, dy, h, w, c, norm, dx, sums);
}

#undef BY_ACTIVATION

}  // namespace fishnet
