// Dense convolutions of one image at a time, by one thread: sums over the kernel's pixels and the input channels of
// products of a pixel's value, the same for all lanes, with a vector of output channels.
#pragma once
#include <vector>

#include "blocks.h"

namespace fishnet {

// y[n, p, q, o] = sum over i, j, c of x[n, sh p + i - top, sw q + j - left, c] k[i, j, c, o]
// Depthwise ones have a kernel [kh, kw, 1, c]; their ci and co are both c.
struct Convolution {
  int64_t n, h, w, ci, kh, kw, co, oh, ow, sh, sw, top, bottom, left, right;
  bool depthwise;
  Border border() const { return {top, bottom, left, right}; }
  int64_t input() const { return h * w * ci; }  // floats an image
  int64_t output() const { return oh * ow * co; }
  int64_t products() const { return n * output() * kh * kw * (depthwise ? 1 : ci); }
};

// A run of `count` floats of an image, beside as many rows of a kernel.
struct Tap {
  const float *x, *k;
  int64_t count;
};

// out[p][v] = sum over taps and j of x[p STEP + j] k[j][v], for P pixels and NV vectors of channels.
template <int P, int NV, int STEP>
INLINE void pixel_tile(const Tap* taps, int64_t tap_count, int64_t x_at, int64_t k_at, int64_t k_row, float* out,
                       int64_t out_step) {
  Vector sum[P][NV];
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < NV; v++) sum[p][v] = Vector{};
  for (int64_t t = 0; t < tap_count; t++) {
    const float *x = taps[t].x + x_at, *k = taps[t].k + k_at;
    for (int64_t j = 0; j < taps[t].count; j++, k += k_row) {
      Vector weights[NV];
      UNROLL for (int v = 0; v < NV; v++) weights[v] = load(k + v * VL);
      UNROLL for (int p = 0; p < P; p++) {
        const Vector value = splat(x[p * STEP + j]);
        UNROLL for (int v = 0; v < NV; v++) sum[p][v] = fma(value, weights[v], sum[p][v]);
      }
    }
  }
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < NV; v++) store(out + p * out_step + v * VL, sum[p][v]);
}

// A row of `width` pixels, in tiles of equal size; the last one may begin inside the one before, which writes the same.
template <int NV, int STEP>
inline void pixel_row(int64_t width, const Tap* taps, int64_t tap_count, int64_t k_at, int64_t k_row, float* out,
                      int64_t out_step) {
  constexpr int MOST = NV == 1 ? PIXELS_1 : PIXELS_2;
  const int64_t tiles = (width + MOST - 1) / MOST, size = (width + tiles - 1) / tiles;
  for (int64_t tile = 0; tile < tiles; tile++) {
    const int64_t at = std::min(tile * size, width - size);
    switch (size) {
#define CASE(P)                                                                                           \
  case P:                                                                                                 \
    if constexpr (P <= MOST)                                                                              \
      pixel_tile<P, NV, STEP>(taps, tap_count, at * STEP, k_at, k_row, out + at * out_step, out_step);    \
    break;
      CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
      CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
#undef CASE
    }
  }
}

// The same for all `co` channels; rows of the kernel have padded(co) floats. A group of channels that is not whole goes
// through scratch memory.
template <int STEP>
inline void pixel_row_of_channels(int64_t width, const Tap* taps, int64_t tap_count, int64_t co, float* out,
                                  int64_t out_step) {
  const int64_t k_row = padded(co);
  for (int64_t o = 0; o < co;) {
    const bool two = k_row - o >= 2 * VL;
    const int64_t wide = two ? 2 * VL : VL, here = std::min(wide, co - o);
    float* to = here == wide ? out + o : scratch(EDGE, width * wide);
    const int64_t step = here == wide ? out_step : wide;
    if (two)
      pixel_row<2, STEP>(width, taps, tap_count, o, k_row, to, step);
    else
      pixel_row<1, STEP>(width, taps, tap_count, o, k_row, to, step);
    if (here < wide)
      for (int64_t p = 0; p < width; p++) copy(out + p * out_step + o, to + p * wide, here);
    o += wide;
  }
}

// Kernel [kh, kw, ci, co] to [block of ci][kh][kw][16][padded(co)].
inline void pack_kernel(int64_t pixels, int64_t ci, int64_t co, const float* k, float* out) {
  fill_zeros(out, padded(ci) * pixels * padded(co));
  for (int64_t t = 0; t < pixels; t++)
    for (int64_t i = 0; i < ci; i++)
      copy(out + ((i / BLOCK * pixels + t) * BLOCK + i % BLOCK) * padded(co), k + (t * ci + i) * co, co);
}

// The same with input and output channels exchanged; with `flip`, rows and columns run backwards.
inline void pack_transposed(int64_t pixels, int64_t ci, int64_t co, bool flip, const float* k, float* out) {
  fill_zeros(out, padded(co) * pixels * padded(ci));
  for (int64_t t = 0; t < pixels; t++)
    for (int64_t i = 0; i < ci; i++)
      for (int64_t o = 0; o < co; o++)
        out[((o / BLOCK * pixels + (flip ? pixels - 1 - t : t)) * BLOCK + o % BLOCK) * padded(ci) + i] =
            k[(t * ci + i) * co + o];
}

// What pack_kernel has packed, back to [kh, kw, ci, co].
inline void unpack_kernel(int64_t pixels, int64_t ci, int64_t co, const float* packed, float* k) {
  for (int64_t t = 0; t < pixels; t++)
    for (int64_t i = 0; i < ci; i++)
      copy(k + (t * ci + i) * co, packed + ((i / BLOCK * pixels + t) * BLOCK + i % BLOCK) * padded(co), co);
}

// "VALID" convolution of an image in blocks [ci][h][w] with a packed kernel: y [oh, ow, co].
struct Valid {
  int64_t h, w, ci, kh, kw, co, oh, ow, sh, sw;
};

inline std::vector<Tap>& tap_list() {
  static thread_local std::vector<Tap> taps;
  taps.clear();
  return taps;
}

inline void convolve_image(const Valid& g, const float* x, const float* k, float* y) {
  const int64_t plane = g.h * g.w * BLOCK, k_row = padded(g.co);
  for (int64_t p = 0; p < g.oh; p++) {
    std::vector<Tap>& taps = tap_list();
    for (int64_t b = 0; b < blocks_of(g.ci); b++) {
      const int64_t channels = std::min<int64_t>(BLOCK, g.ci - b * BLOCK);
      for (int64_t i = 0; i < g.kh; i++) {
        const float* row = x + b * plane + (p * g.sh + i) * g.w * BLOCK;
        const float* weights = k + (b * g.kh + i) * g.kw * BLOCK * k_row;
        if (channels == BLOCK)  // neighbors in a row follow each other in both
          taps.push_back({row, weights, g.kw * BLOCK});
        else
          for (int64_t j = 0; j < g.kw; j++)
            taps.push_back({row + j * BLOCK, weights + j * BLOCK * k_row, channels});
      }
    }
    float* out = y + p * g.ow * g.co;
    const int64_t count = static_cast<int64_t>(taps.size());
    if (g.sw == 1)
      pixel_row_of_channels<BLOCK>(g.ow, taps.data(), count, g.co, out, g.co);
    else
      pixel_row_of_channels<2 * BLOCK>(g.ow, taps.data(), count, g.co, out, g.co);
  }
}

// Gradient of an image for strides above 1, from dy in blocks with `low_h`, `low_w` more rows and columns ahead: every
// sh-th row and sw-th column sees the same pixels of the kernel.
inline void spread_image(const Convolution& c, int64_t rows, int64_t columns, int64_t low_h, int64_t low_w,
                         const float* dy, const float* k, float* dx) {
  const int64_t plane = rows * columns * BLOCK, k_row = padded(c.ci);
  for (int64_t y = 0; y < c.h; y++)
    for (int64_t phase = 0; phase < c.sw; phase++) {
      const int64_t width = (c.w - phase + c.sw - 1) / c.sw;
      if (width <= 0) continue;
      const int64_t p = (y + c.top) / c.sh + low_h, q = (phase + c.left) / c.sw + low_w;
      std::vector<Tap>& taps = tap_list();
      for (int64_t b = 0; b < blocks_of(c.co); b++)
        for (int64_t i = (y + c.top) % c.sh, up = 0; i < c.kh; i += c.sh, up++)
          for (int64_t j = (phase + c.left) % c.sw, back = 0; j < c.kw; j += c.sw, back++)
            taps.push_back({dy + b * plane + ((p - up) * columns + q - back) * BLOCK,
                            k + ((b * c.kh + i) * c.kw + j) * BLOCK * k_row,
                            std::min<int64_t>(BLOCK, c.co - b * BLOCK)});
      pixel_row_of_channels<BLOCK>(width, taps.data(), static_cast<int64_t>(taps.size()), c.ci,
                                   dx + (y * c.w + phase) * c.ci, c.sw * c.ci);
    }
}

// sums[j][v] += sum over a window of pixels of x[pixel STEP + j] dy[pixel][v], for J rows and NV vectors.
template <int J, int NV, int STEP>
INLINE void gradient_tile(const float* x, int64_t x_row, const float* dy, int64_t dy_row, int64_t dy_block,
                          int64_t rows, int64_t columns, float* sums, int64_t sums_row) {
  Vector sum[J][NV];
  UNROLL for (int j = 0; j < J; j++) UNROLL for (int v = 0; v < NV; v++) sum[j][v] = Vector{};
  for (int64_t r = 0; r < rows; r++) {
    const float *a = x + r * x_row, *d = dy + r * dy_row;
    for (int64_t c = 0; c < columns; c++, a += STEP, d += BLOCK) {
      Vector slopes[NV];
      UNROLL for (int v = 0; v < NV; v++) slopes[v] = load(d + v * VL / BLOCK * dy_block + v * VL % BLOCK);
      UNROLL for (int j = 0; j < J; j++) {
        const Vector value = splat(a[j]);
        UNROLL for (int v = 0; v < NV; v++) sum[j][v] = fma(value, slopes[v], sum[j][v]);
      }
    }
  }
  UNROLL for (int j = 0; j < J; j++) UNROLL for (int v = 0; v < NV; v++) {
    float* s = sums + j * sums_row + v * VL;
    store(s, load(s) + sum[j][v]);
  }
}

template <int NV, int STEP>
inline void gradient_rows(int64_t count, const float* x, int64_t x_row, const float* dy, int64_t dy_row,
                          int64_t dy_block, int64_t rows, int64_t columns, float* sums, int64_t sums_row) {
  constexpr int MOST = NV == 1 ? ROWS_1 : ROWS_2;
  for (int64_t j = 0; j < count; j += MOST) {
    switch (std::min<int64_t>(MOST, count - j)) {
#define CASE(J)                                                                                              \
  case J:                                                                                                    \
    if constexpr (J <= MOST)                                                                                 \
      gradient_tile<J, NV, STEP>(x + j, x_row, dy, dy_row, dy_block, rows, columns, sums + j * sums_row, sums_row); \
    break;
      CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
      CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
#undef CASE
    }
  }
}

// The same for all output channels of dy in blocks: `count` rows of sums, padded(co) floats each.
template <int STEP>
inline void gradient_of_channels(int64_t count, const float* x, int64_t x_row, const float* dy, int64_t dy_row,
                                 int64_t dy_block, int64_t rows, int64_t columns, int64_t co, float* sums) {
  const int64_t sums_row = padded(co);
  for (int64_t o = 0; o < sums_row;) {
    const float* d = dy + o / BLOCK * dy_block + o % BLOCK;
    if (sums_row - o >= 2 * VL) {
      gradient_rows<2, STEP>(count, x, x_row, d, dy_row, dy_block, rows, columns, sums + o, sums_row);
      o += 2 * VL;
    } else {
      gradient_rows<1, STEP>(count, x, x_row, d, dy_row, dy_block, rows, columns, sums + o, sums_row);
      o += VL;
    }
  }
}

// Adds an image's part to a kernel's gradient, packed. Sums begin anew every few rows, which the cache holds: short
// sums also round less. How many depends on the shape alone.
inline void add_kernel_gradient(const Valid& g, const float* x, const float* dy, int64_t dy_row, int64_t dy_block,
                                float* sums) {
  constexpr int64_t CACHED = 20000;  // floats
  const int64_t plane = g.h * g.w * BLOCK, x_row = g.sh * g.w * BLOCK, k_row = padded(g.co);
  const int64_t size = std::max<int64_t>(1, CACHED / (dy_row * blocks_of(g.co) + x_row * blocks_of(g.ci)));
  for (int64_t r = 0; r < g.oh; r += size) {
    const int64_t rows = std::min(size, g.oh - r);
    const float* d = dy + r * dy_row;
    for (int64_t b = 0; b < blocks_of(g.ci); b++) {
      const int64_t channels = std::min<int64_t>(BLOCK, g.ci - b * BLOCK);
      for (int64_t i = 0; i < g.kh; i++) {
        const float* row = x + b * plane + (r * g.sh + i) * g.w * BLOCK;
        float* to = sums + (b * g.kh + i) * g.kw * BLOCK * k_row;
        const int64_t parts = channels == BLOCK ? 1 : g.kw, count = channels == BLOCK ? g.kw * BLOCK : channels;
        for (int64_t j = 0; j < parts; j++) {
          const float* from = row + j * BLOCK;
          float* s = to + j * BLOCK * k_row;
          if (g.sw == 1)
            gradient_of_channels<BLOCK>(count, from, x_row, d, dy_row, dy_block, rows, g.ow, g.co, s);
          else
            gradient_of_channels<2 * BLOCK>(count, from, x_row, d, dy_row, dy_block, rows, g.ow, g.co, s);
        }
      }
    }
  }
}

}  // namespace fishnet
