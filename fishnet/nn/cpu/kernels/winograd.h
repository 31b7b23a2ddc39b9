// 3x3 convolutions of stride 1 by Winograd's F(2x2, 3x3): 16 products for 4 outputs where the plain form needs 36.
//
//     Y = A^T [ (G g G^T) * (B^T d B) ] A,   for each 4x4 tile d of the input, with products over channels
//
// Source: Lavin and Gray, arXiv:1509.09308.
#pragma once
#include "convolution.h"

namespace fishnet {

// A "VALID" convolution in up x across tiles of 2x2 outputs. There are oh, ow outputs, of which the last row and column
// of tiles may have one less; the input, h x w in blocks, has at least 2 up + 2 rows and 2 across + 2 columns.
struct Tiling {
  int64_t up, across, ci, co, oh, ow, h, w;
};

inline Tiling tiling_of(int64_t h, int64_t w, int64_t oh, int64_t ow, int64_t ci, int64_t co) {
  return {(oh + 1) / 2, (ow + 1) / 2, ci, co, oh, ow, h, w};
}

// Rows of tiles that are worked on at a time, so that what is between the transforms stays in the cache.
inline int64_t rows_at_a_time(const Tiling& g, int64_t tiles) {
  return std::min(g.up, std::max<int64_t>(1, tiles / g.across));
}

INLINE void input_transform(const Vector* d, Vector* out) {
  out[0] = d[0] - d[2], out[1] = d[1] + d[2], out[2] = d[2] - d[1], out[3] = d[1] - d[3];
}

// tiles[4 i + j][block of ci][tile][16] = (B^T d B)_ij of `rows` rows of tiles from `first` on.
inline void transform_input(const Tiling& g, const float* x, int64_t first, int64_t rows, float* tiles) {
  const int64_t row = g.w * BLOCK, plane = g.h * row, count = rows * g.across;
  const int64_t position = blocks_of(g.ci) * count * BLOCK;
  for (int64_t b = 0; b < blocks_of(g.ci); b++)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t t = 0; t < g.across; t++)
        for (int v = 0; v < BLOCK; v += VL) {
          const float* d = x + b * plane + 2 * (first + r) * row + 2 * t * BLOCK + v;
          float* out = tiles + (b * count + r * g.across + t) * BLOCK + v;
          Vector half[4][4];
          UNROLL for (int j = 0; j < 4; j++) {
            Vector column[4], transformed[4];
            UNROLL for (int i = 0; i < 4; i++) column[i] = load(d + i * row + j * BLOCK);
            input_transform(column, transformed);
            UNROLL for (int i = 0; i < 4; i++) half[i][j] = transformed[i];
          }
          UNROLL for (int i = 0; i < 4; i++) {
            Vector whole[4];
            input_transform(half[i], whole);
            UNROLL for (int j = 0; j < 4; j++) store(out + (4 * i + j) * position, whole[j]);
          }
        }
}

// y [oh, ow, co] = A^T m A of m = products[4 i + j][tile][padded(co)].
inline void transform_products(const Tiling& g, const float* products, int64_t first, int64_t rows, float* y) {
  const int64_t wide = padded(g.co), position = rows * g.across * wide;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t t = 0; t < g.across; t++)
      for (int64_t o = 0; o < g.co; o += VL) {
        const float* m = products + (r * g.across + t) * wide + o;
        const int64_t p = 2 * (first + r), q = 2 * t, count = std::min<int64_t>(VL, g.co - o);
        Vector half[2][4];
        UNROLL for (int j = 0; j < 4; j++) {
          const Vector a = load(m + j * position), b = load(m + (4 + j) * position);
          const Vector c = load(m + (8 + j) * position), d = load(m + (12 + j) * position);
          half[0][j] = a + b + c, half[1][j] = b - c - d;
        }
        UNROLL for (int i = 0; i < 2; i++) {
          const Vector pair[2] = {half[i][0] + half[i][1] + half[i][2], half[i][1] - half[i][2] - half[i][3]};
          UNROLL for (int j = 0; j < 2; j++) {
            if (p + i >= g.oh || q + j >= g.ow) continue;
            float* out = y + ((p + i) * g.ow + q + j) * g.co + o;
            if (count == VL) {
              store(out, pair[j]);
            } else {
              float edge[VL];
              store(edge, pair[j]);
              copy(out, edge, count);
            }
          }
        }
      }
}

// tiles[4 i + j][block of co][tile][16] = (A dY A^T)_ij of dy in blocks, with an even number of rows and columns.
inline void transform_gradient(const Tiling& g, const float* dy, int64_t dy_row, int64_t dy_block, int64_t first,
                               int64_t rows, float* tiles) {
  const int64_t count = rows * g.across, position = blocks_of(g.co) * count * BLOCK;
  for (int64_t b = 0; b < blocks_of(g.co); b++)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t t = 0; t < g.across; t++)
        for (int v = 0; v < BLOCK; v += VL) {
          const float* d = dy + b * dy_block + 2 * (first + r) * dy_row + 2 * t * BLOCK + v;
          float* out = tiles + (b * count + r * g.across + t) * BLOCK + v;
          const Vector a = load(d), e = load(d + BLOCK), c = load(d + dy_row), f = load(d + dy_row + BLOCK);
          const Vector half[4][2] = {{a, e}, {a + c, e + f}, {a - c, e - f}, {-c, -f}};
          UNROLL for (int i = 0; i < 4; i++) {
            store(out + 4 * i * position, half[i][0]);
            store(out + (4 * i + 1) * position, half[i][0] + half[i][1]);
            store(out + (4 * i + 2) * position, half[i][0] - half[i][1]);
            store(out + (4 * i + 3) * position, -half[i][1]);
          }
        }
}

// transformed[4 i + j][padded(ci)][padded(co)] = (G g G^T)_ij of a packed kernel.
inline void transform_kernel(const Tiling& g, const float* k, float* transformed) {
  const int64_t wide = padded(g.co), position = padded(g.ci) * wide;
  const Vector half = splat(.5f);
  for (int64_t c = 0; c < padded(g.ci); c++)
    for (int64_t o = 0; o < wide; o += VL) {
      Vector m[4][3];
      UNROLL for (int j = 0; j < 3; j++) {
        Vector row[3];
        UNROLL for (int i = 0; i < 3; i++)
          row[i] = load(k + ((c / BLOCK * 9 + i * 3 + j) * BLOCK + c % BLOCK) * wide + o);
        const Vector ends = (row[0] + row[2]) * half, middle = row[1] * half;
        m[0][j] = row[0], m[1][j] = ends + middle, m[2][j] = ends - middle, m[3][j] = row[2];
      }
      float* out = transformed + c * wide + o;
      UNROLL for (int i = 0; i < 4; i++) {
        const Vector ends = (m[i][0] + m[i][2]) * half, middle = m[i][1] * half;
        store(out + 4 * i * position, m[i][0]);
        store(out + (4 * i + 1) * position, ends + middle);
        store(out + (4 * i + 2) * position, ends - middle);
        store(out + (4 * i + 3) * position, m[i][2]);
      }
    }
}

// The packed gradient G^T dU G from that of the transformed kernel.
inline void transform_kernel_gradient(const Tiling& g, const float* transformed, float* k) {
  const int64_t wide = padded(g.co), position = padded(g.ci) * wide;
  const Vector half = splat(.5f);
  for (int64_t c = 0; c < padded(g.ci); c++)
    for (int64_t o = 0; o < wide; o += VL) {
      const float* u = transformed + c * wide + o;
      Vector m[3][4];
      UNROLL for (int j = 0; j < 4; j++) {
        const Vector a = load(u + j * position), b = load(u + (4 + j) * position);
        const Vector d = load(u + (8 + j) * position), e = load(u + (12 + j) * position);
        m[0][j] = a + (b + d) * half, m[1][j] = (b - d) * half, m[2][j] = e + (b + d) * half;
      }
      UNROLL for (int i = 0; i < 3; i++) {
        float* out = k + ((c / BLOCK * 9 + i * 3) * BLOCK + c % BLOCK) * wide + o;
        store(out, m[i][0] + (m[i][1] + m[i][2]) * half);
        store(out + BLOCK * wide, (m[i][1] - m[i][2]) * half);
        store(out + 2 * BLOCK * wide, m[i][3] + (m[i][1] + m[i][2]) * half);
      }
    }
}

// y [oh, ow, co] of an image in blocks and a transformed kernel.
inline void winograd_image(const Tiling& g, const float* x, const float* transformed, float* y) {
  const int64_t step = rows_at_a_time(g, 16), wide = padded(g.co), blocks = blocks_of(g.ci);
  float* tiles = scratch(TILES, 16 * blocks * step * g.across * BLOCK);
  float* products = scratch(PRODUCTS, 16 * step * g.across * wide);
  for (int64_t first = 0; first < g.up; first += step) {
    const int64_t rows = std::min(step, g.up - first), count = rows * g.across;
    transform_input(g, x, first, rows, tiles);
    for (int64_t position = 0; position < 16; position++) {
      std::vector<Tap>& taps = tap_list();
      for (int64_t b = 0; b < blocks; b++)
        taps.push_back({tiles + (position * blocks + b) * count * BLOCK,
                        transformed + (position * blocks + b) * BLOCK * wide,
                        std::min<int64_t>(BLOCK, g.ci - b * BLOCK)});
      pixel_row_of_channels<BLOCK>(count, taps.data(), blocks, wide, products + position * count * wide, wide);
    }
    transform_products(g, products, first, rows, y);
  }
}

// Adds an image's part to the gradient of the transformed kernel, from dy in blocks.
inline void add_winograd_gradient(const Tiling& g, const float* x, const float* dy, int64_t dy_row, int64_t dy_block,
                                  float* sums) {
  const int64_t step = rows_at_a_time(g, 64), wide = padded(g.co), blocks = blocks_of(g.ci);
  float* tiles = scratch(TILES, 16 * blocks * step * g.across * BLOCK);
  float* slopes = scratch(PRODUCTS, 16 * step * g.across * wide);
  for (int64_t first = 0; first < g.up; first += step) {
    const int64_t rows = std::min(step, g.up - first), count = rows * g.across;
    transform_input(g, x, first, rows, tiles);
    transform_gradient(g, dy, dy_row, dy_block, first, rows, slopes);
    for (int64_t position = 0; position < 16; position++)
      for (int64_t b = 0; b < blocks; b++)
        gradient_of_channels<BLOCK>(std::min<int64_t>(BLOCK, g.ci - b * BLOCK),
                                    tiles + (position * blocks + b) * count * BLOCK, 0,
                                    slopes + position * blocks_of(g.co) * count * BLOCK, 0, count * BLOCK, 1, count,
                                    g.co, sums + (position * blocks + b) * BLOCK * wide);
  }
}

}  // namespace fishnet
