// Whole batches: what the handlers and the test of bounds call.
#pragma once
#include "depthwise.h"
#include "winograd.h"

namespace fishnet {

// Whether Winograd's form is taken: 3x3, stride 1, from `least` channels on either side on; 0: never.
inline bool takes_winograd(const Convolution& c, int64_t least) {
  return least > 0 && c.kh == 3 && c.kw == 3 && c.sh == 1 && c.sw == 1 && c.ci >= least && c.co >= least;
}

// Kernel of a convolution, ready for images in blocks; in scratch memory.
struct Prepared {
  const float *packed, *transformed;  // the latter is null without Winograd
};

inline Prepared prepare(const Tiling& g, bool winograd, float* packed) {
  if (!winograd) return {packed, nullptr};
  float* transformed = scratch(TRANSFORMED_KERNEL, 16 * padded(g.ci) * padded(g.co));
  transform_kernel(g, packed, transformed);
  return {packed, transformed};
}

// y [n, oh, ow, co] of x [n, h, w, ci] and k [kh, kw, ci, co].
inline void convolve(const Convolution& c, const float* x, const float* k, float* y, int64_t winograd_from) {
  const bool winograd = takes_winograd(c, winograd_from);
  const Tiling tiling = tiling_of(c.oh, c.ow, c.ci, c.co);
  const int64_t pixels = c.kh * c.kw;
  float* packed = scratch(KERNEL, pixels * padded(c.ci) * padded(c.co));
  pack_kernel(pixels, c.ci, c.co, k, packed);
  const Prepared kernel = prepare(tiling, winograd, packed);
  Border border{c.top, c.bottom, c.left, c.right};
  if (winograd) border.bottom += c.oh % 2, border.right += c.ow % 2;
  const int64_t h = c.h + border.top + border.bottom, w = c.w + border.left + border.right;
  const Valid valid{h, w, c.ci, c.kh, c.kw, c.co, c.oh, c.ow, c.sh, c.sw};
  float* image = scratch(INPUT, h * w * padded(c.ci));
  for (int64_t n = 0; n < c.n; n++) {
    float* out = y + n * c.oh * c.ow * c.co;
    to_blocks(x + n * c.h * c.w * c.ci, c.h, c.w, c.ci, border, image);
    if (winograd)
      winograd_image(tiling, image, kernel.transformed, out);
    else
      convolve_image(valid, image, kernel.packed, out);
  }
}

// dx [n, h, w, ci] of dy [n, oh, ow, co] and k [kh, kw, ci, co].
inline void convolve_transposed(const Convolution& c, const float* dy, const float* k, float* dx,
                                int64_t winograd_from) {
  const bool plain = c.sh == 1 && c.sw == 1, winograd = takes_winograd(c, winograd_from);
  const Tiling tiling = tiling_of(c.h, c.w, c.co, c.ci);
  const int64_t pixels = c.kh * c.kw;
  float* packed = scratch(KERNEL, pixels * padded(c.ci) * padded(c.co));
  pack_transposed(pixels, c.ci, c.co, plain, k, packed);
  const Prepared kernel = prepare(tiling, winograd, packed);
  Border border{};
  if (plain) {  // a convolution of dy, which has so wide a border that it is "VALID"
    border.top = c.kh - 1 - c.top, border.left = c.kw - 1 - c.left;
    border.bottom = c.h + c.kh - 1 - c.oh - border.top, border.right = c.w + c.kw - 1 - c.ow - border.left;
    if (winograd) border.bottom += c.h % 2, border.right += c.w % 2;
  } else {
    border.top = (c.kh - 1) / c.sh, border.left = (c.kw - 1) / c.sw;
    border.bottom = std::max<int64_t>(0, (c.h - 1 + c.top) / c.sh - (c.oh - 1));
    border.right = std::max<int64_t>(0, (c.w - 1 + c.left) / c.sw - (c.ow - 1));
  }
  const int64_t h = c.oh + border.top + border.bottom, w = c.ow + border.left + border.right;
  const Valid valid{h, w, c.co, c.kh, c.kw, c.ci, c.h, c.w, 1, 1};
  float* image = scratch(INPUT, h * w * padded(c.co));
  for (int64_t n = 0; n < c.n; n++) {
    float* out = dx + n * c.h * c.w * c.ci;
    to_blocks(dy + n * c.oh * c.ow * c.co, c.oh, c.ow, c.co, border, image);
    if (winograd)
      winograd_image(tiling, image, kernel.transformed, out);
    else if (plain)
      convolve_image(valid, image, kernel.packed, out);
    else
      spread_image(c, h, w, border.top, border.left, image, kernel.packed, out);
  }
}

// dk [kh, kw, ci, co] of x [n, h, w, ci] and dy [n, oh, ow, co].
inline void convolve_kernel_gradient(const Convolution& c, const float* x, const float* dy, float* dk,
                                     int64_t winograd_from) {
  const bool winograd = takes_winograd(c, winograd_from);
  const Tiling tiling = tiling_of(c.oh, c.ow, c.ci, c.co);
  const int64_t pixels = c.kh * c.kw, size = padded(c.ci) * padded(c.co);
  Border border{c.top, c.bottom, c.left, c.right}, none{};
  if (winograd) {
    border.bottom += c.oh % 2, border.right += c.ow % 2;
    none.bottom = c.oh % 2, none.right = c.ow % 2;
  }
  const int64_t h = c.h + border.top + border.bottom, w = c.w + border.left + border.right;
  const int64_t dy_row = (c.ow + none.right) * BLOCK, dy_block = (c.oh + none.bottom) * dy_row;
  const Valid valid{h, w, c.ci, c.kh, c.kw, c.co, c.oh, c.ow, c.sh, c.sw};
  float* image = scratch(INPUT, h * w * padded(c.ci));
  float* slopes = scratch(OUTPUT, dy_block * blocks_of(c.co));
  float* sums = scratch(SUMS, (winograd ? 16 : pixels) * size);
  fill_zeros(sums, (winograd ? 16 : pixels) * size);
  for (int64_t n = 0; n < c.n; n++) {
    to_blocks(x + n * c.h * c.w * c.ci, c.h, c.w, c.ci, border, image);
    to_blocks(dy + n * c.oh * c.ow * c.co, c.oh, c.ow, c.co, none, slopes);
    if (winograd)
      add_winograd_gradient(tiling, image, slopes, dy_row, dy_block, sums);
    else
      add_kernel_gradient(valid, image, slopes, dy_row, dy_block, sums);
  }
  if (winograd) {
    float* packed = scratch(KERNEL, pixels * size);
    transform_kernel_gradient(tiling, sums, packed);
    sums = packed;
  }
  unpack_kernel(pixels, c.ci, c.co, sums, dk);
}

// y [n, oh, ow, c] of x [n, h, w, c] and k [kh, kw, 1, c]; ci and co are both c.
inline void convolve_depthwise(const Convolution& c, const float* x, const float* k, float* y) {
  const Border border{c.top, c.bottom, c.left, c.right};
  const int64_t h = c.h + c.top + c.bottom, w = c.w + c.left + c.right, pixels = c.kh * c.kw;
  const Valid valid{h, w, 1, c.kh, c.kw, c.co, c.oh, c.ow, c.sh, c.sw};
  float *packed = scratch(KERNEL, pixels * padded(c.co)), *image = scratch(INPUT, h * w * padded(c.co));
  pack_depthwise(pixels, c.co, false, k, packed);
  for (int64_t n = 0; n < c.n; n++) {
    to_blocks(x + n * c.h * c.w * c.co, c.h, c.w, c.co, border, image);
    depthwise_image(valid, image, packed, y + n * c.oh * c.ow * c.co);
  }
}

// dx [n, h, w, c] of dy [n, oh, ow, c] and k [kh, kw, 1, c]: a convolution of dy with zeros between its pixels.
inline void convolve_depthwise_transposed(const Convolution& c, const float* dy, const float* k, float* dx) {
  const int64_t pixels = c.kh * c.kw, top = c.kh - 1 - c.top, left = c.kw - 1 - c.left;
  const int64_t h = c.h + c.kh - 1, w = c.w + c.kw - 1;
  const Border border{top, h - top - ((c.oh - 1) * c.sh + 1), left, w - left - ((c.ow - 1) * c.sw + 1)};
  const Valid valid{h, w, 1, c.kh, c.kw, c.co, c.h, c.w, 1, 1};
  float *packed = scratch(KERNEL, pixels * padded(c.co)), *image = scratch(INPUT, h * w * padded(c.co));
  pack_depthwise(pixels, c.co, true, k, packed);
  for (int64_t n = 0; n < c.n; n++) {
    to_blocks(dy + n * c.oh * c.ow * c.co, c.oh, c.ow, c.co, border, image, c.sh, c.sw);
    depthwise_image(valid, image, packed, dx + n * c.h * c.w * c.co);
  }
}

// dk [kh, kw, 1, c] of x [n, h, w, c] and dy [n, oh, ow, c].
inline void convolve_depthwise_kernel_gradient(const Convolution& c, const float* x, const float* dy, float* dk) {
  const Border border{c.top, c.bottom, c.left, c.right}, none{};
  const int64_t h = c.h + c.top + c.bottom, w = c.w + c.left + c.right, pixels = c.kh * c.kw;
  const Valid valid{h, w, 1, c.kh, c.kw, c.co, c.oh, c.ow, c.sh, c.sw};
  float *image = scratch(INPUT, h * w * padded(c.co)), *slopes = scratch(OUTPUT, c.oh * c.ow * padded(c.co));
  float* sums = scratch(SUMS, pixels * padded(c.co));
  fill_zeros(sums, pixels * padded(c.co));
  for (int64_t n = 0; n < c.n; n++) {
    to_blocks(x + n * c.h * c.w * c.co, c.h, c.w, c.co, border, image);
    to_blocks(dy + n * c.oh * c.ow * c.co, c.oh, c.ow, c.co, none, slopes);
    add_depthwise_gradient(valid, image, slopes, c.ow * BLOCK, c.oh * c.ow * BLOCK, sums);
  }
  unpack_depthwise(pixels, c.co, sums, dk);
}

}  // namespace fishnet
