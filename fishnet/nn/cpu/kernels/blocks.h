// Images in scratch memory: [block of channels][row][column][16 channels], with a border, so that the strides of all
// inner loops are constants and no loop asks where the image ends. Channels that a block lacks are zeros.
#pragma once
#include "vector.h"

namespace fishnet {

struct Border {
  int64_t top, bottom, left, right;
};


INLINE void fill_zeros(float* p, int64_t count) { std::memset(p, 0, sizeof(float) * static_cast<size_t>(count)); }
INLINE void copy(float* to, const float* from, int64_t count) {
  std::memcpy(to, from, sizeof(float) * static_cast<size_t>(count));
}

// Zeros around an image of h rows, in a block of channels of `columns` columns.
inline void fill_border(int64_t h, int64_t step_h, int64_t columns, const Border& border, float* out) {
  const int64_t row = columns * BLOCK;
  fill_zeros(out, border.top * row);
  for (int64_t i = 0; i < h; i++) {
    float* o = out + (border.top + i * step_h) * row;
    fill_zeros(o, border.left * BLOCK);
    fill_zeros(o + row - border.right * BLOCK, border.right * BLOCK);
  }
  fill_zeros(out + (border.top + (h - 1) * step_h + 1) * row, border.bottom * row);
}

// Image [h, w, c] to blocks, with a border of zeros, and zeros between pixels that are to be more than one step apart.
inline void to_blocks(const float* x, int64_t h, int64_t w, int64_t c, Border border, float* out, int64_t step_h = 1,
                      int64_t step_w = 1) {
  const int64_t rows = border.top + (h - 1) * step_h + 1 + border.bottom;
  const int64_t columns = border.left + (w - 1) * step_w + 1 + border.right;
  const int64_t row = columns * BLOCK;
  if (step_h > 1 || step_w > 1) fill_zeros(out, blocks_of(c) * rows * row);
  for (int64_t first = 0; first < c; first += BLOCK, out += rows * row) {
    const int64_t count = std::min<int64_t>(BLOCK, c - first);
    fill_border(h, step_h, columns, border, out);
    for (int64_t i = 0; i < h; i++) {
      float* o = out + (border.top + i * step_h) * row + border.left * BLOCK;
      const float* from = x + i * w * c + first;
      if (count == BLOCK) {
        for (int64_t j = 0; j < w; j++, from += c, o += step_w * BLOCK)
          for (int v = 0; v < BLOCK; v += VL) store(o + v, load(from + v));
      } else {
        for (int64_t j = 0; j < w; j++, from += c, o += step_w * BLOCK) {
          fill_zeros(o, BLOCK);
          copy(o, from, count);
        }
      }
    }
  }
}

}  // namespace fishnet
