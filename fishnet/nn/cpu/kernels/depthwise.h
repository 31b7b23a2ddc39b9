// Depthwise convolutions of one image at a time: each channel with a kernel of its own, a vector of channels at a time.
#pragma once
#include "convolution.h"

namespace fishnet {

// out[p][v] = sum over i, j of x[i x_row + (p step + j) 16] k[i][j], for P pixels and one vector of channels.
template <int P>
INLINE void depthwise_tile(const float* x, int64_t x_row, int64_t step, const float* k, int64_t kh, int64_t kw,
                           Vector* sum) {
  UNROLL for (int p = 0; p < P; p++) sum[p] = Vector{};
  for (int64_t i = 0; i < kh; i++)
    for (int64_t j = 0; j < kw; j++, k += BLOCK) {
      const Vector weights = load(k);
      UNROLL for (int p = 0; p < P; p++) sum[p] = fma(load(x + i * x_row + (p * step + j) * BLOCK), weights, sum[p]);
    }
}

template <int P>
INLINE void store_pixels(const Vector* sum, float* out, int64_t out_step, int64_t count) {
  UNROLL for (int p = 0; p < P; p++) {
    if (count >= VL) {
      store(out + p * out_step, sum[p]);
    } else {
      float edge[VL];
      store(edge, sum[p]);
      copy(out + p * out_step, edge, count);
    }
  }
}

// Kernel [pixels, c] to [block of c][pixels][16]; with `flip`, its pixels run backwards.
inline void pack_depthwise(int64_t pixels, int64_t c, bool flip, const float* k, float* out) {
  fill_zeros(out, pixels * padded(c));
  for (int64_t t = 0; t < pixels; t++)
    for (int64_t first = 0; first < c; first += BLOCK)
      copy(out + (first * pixels + (flip ? pixels - 1 - t : t) * BLOCK), k + t * c + first,
           std::min<int64_t>(BLOCK, c - first));
}

// "VALID" depthwise convolution of an image in blocks [c][h][w] with a packed kernel: y [oh, ow, c]; g.co is c.
inline void depthwise_image(const Valid& g, const float* x, const float* k, float* y) {
  constexpr int P = 8;
  const int64_t plane = g.h * g.w * BLOCK, x_row = g.w * BLOCK;
  for (int64_t first = 0; first < g.co; first += BLOCK)
    for (int64_t v = first; v < std::min(g.co, first + BLOCK); v += VL) {
      const float* image = x + first / BLOCK * plane + v % BLOCK;
      const float* weights = k + first * g.kh * g.kw + v % BLOCK;
      for (int64_t p = 0; p < g.oh; p++) {
        const float* row = image + p * g.sh * x_row;
        float* out = y + p * g.ow * g.co + v;
        Vector sum[P];
        int64_t q = 0;
        for (; q + P <= g.ow; q += P) {
          depthwise_tile<P>(row + q * g.sw * BLOCK, x_row, g.sw, weights, g.kh, g.kw, sum);
          store_pixels<P>(sum, out + q * g.co, g.co, g.co - v);
        }
        for (; q < g.ow; q++) {
          depthwise_tile<1>(row + q * g.sw * BLOCK, x_row, g.sw, weights, g.kh, g.kw, sum);
          store_pixels<1>(sum, out + q * g.co, g.co, g.co - v);
        }
      }
    }
}

// sums[t] += sum over pixels of x[pixel at t] dy[pixel], for T pixels of the kernel and one vector of channels.
template <int T>
INLINE void depthwise_gradient_tile(const Valid& g, const float* x, const int64_t* at, const float* dy, int64_t dy_row,
                                    float* sums) {
  Vector sum[T];
  UNROLL for (int t = 0; t < T; t++) sum[t] = Vector{};
  for (int64_t p = 0; p < g.oh; p++) {
    const float *row = x + p * g.sh * g.w * BLOCK, *slopes = dy + p * dy_row;
    for (int64_t q = 0; q < g.ow; q++, row += g.sw * BLOCK, slopes += BLOCK) {
      const Vector slope = load(slopes);
      UNROLL for (int t = 0; t < T; t++) sum[t] = fma(slope, load(row + at[t]), sum[t]);
    }
  }
  UNROLL for (int t = 0; t < T; t++) store(sums + t * BLOCK, load(sums + t * BLOCK) + sum[t]);
}

// Adds an image's part to a kernel's gradient, packed as by pack_depthwise.
inline void add_depthwise_gradient(const Valid& g, const float* x, const float* dy, int64_t dy_row, int64_t dy_block,
                                   float* sums) {
  constexpr int MOST = 9;
  const int64_t plane = g.h * g.w * BLOCK, pixels = g.kh * g.kw;
  for (int64_t b = 0; b < blocks_of(g.co); b++)
    for (int v = 0; v < BLOCK; v += VL)
      for (int64_t first = 0; first < pixels; first += MOST) {
        const int64_t count = std::min<int64_t>(MOST, pixels - first);
        int64_t at[MOST];
        for (int64_t t = 0; t < count; t++) at[t] = ((first + t) / g.kw * g.w + (first + t) % g.kw) * BLOCK;
        const float *image = x + b * plane + v, *slopes = dy + b * dy_block + v;
        float* to = sums + (b * pixels + first) * BLOCK + v;
        switch (count) {
#define CASE(T) \
  case T: depthwise_gradient_tile<T>(g, image, at, slopes, dy_row, to); break;
          CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9)
#undef CASE
        }
      }
}

// What pack_depthwise has packed, back to [pixels, c].
inline void unpack_depthwise(int64_t pixels, int64_t c, const float* packed, float* k) {
  for (int64_t t = 0; t < pixels; t++)
    for (int64_t first = 0; first < c; first += BLOCK)
      copy(k + t * c + first, packed + first * pixels + t * BLOCK, std::min<int64_t>(BLOCK, c - first));
}

}  // namespace fishnet
