// What the images of a batch share in each of the three products of a convolution: the kernel as the loops want it, and
// how wide a border an image in blocks must have.
#pragma once
#include "depthwise.h"
#include "winograd.h"
#include "workers.h"

namespace fishnet {

// Whether Winograd's form is taken: 3x3, stride 1, from `least` channels on either side on; 0: never.
inline bool takes_winograd(const Convolution& c, int64_t least) {
  return least > 0 && !c.depthwise && c.kh == 3 && c.kw == 3 && c.sh == 1 && c.sw == 1 && c.ci >= least &&
         c.co >= least;
}

// Rows and columns of an image in blocks, border included.
struct Extent {
  int64_t rows, columns;
  int64_t row() const { return columns * BLOCK; }
  int64_t plane() const { return rows * row(); }
  int64_t floats(int64_t channels) const { return plane() * blocks_of(channels); }
};

inline Border with_whole_tiles(Border border, int64_t oh, int64_t ow) {
  border.bottom += oh % 2, border.right += ow % 2;
  return border;
}

inline Extent extent_of(int64_t h, int64_t w, const Border& border, int64_t step_h = 1, int64_t step_w = 1) {
  return {border.top + (h - 1) * step_h + 1 + border.bottom, border.left + (w - 1) * step_w + 1 + border.right};
}

// "VALID" convolution of images in blocks with one kernel, in one of the three forms.
struct Product {
  bool depthwise;
  Tiling tiling;
  Valid valid;
  const float *packed, *transformed;  // the latter is null without Winograd

  // `packed` is in scratch memory, and stays there.
  Product(bool depthwise, bool winograd, const Extent& in, int64_t ci, int64_t kh, int64_t kw, int64_t co, int64_t oh,
          int64_t ow, int64_t sh, int64_t sw, const float* packed)
      : depthwise(depthwise), tiling(tiling_of(in.rows, in.columns, oh, ow, ci, co)),
        valid{in.rows, in.columns, ci, kh, kw, co, oh, ow, sh, sw}, packed(packed), transformed(nullptr) {
    if (winograd) {
      float* place = scratch(TRANSFORMED_KERNEL, 16 * padded(ci) * padded(co));
      transform_kernel(tiling, packed, place);
      transformed = place;
    }
  }

  void image(const float* x, float* y) const {
    if (depthwise)
      depthwise_image(valid, x, packed, y);
    else if (transformed)
      winograd_image(tiling, x, transformed, y);
    else
      convolve_image(valid, x, packed, y);
  }
};

// Floats of a packed kernel, with input and output channels in either order.
inline int64_t packed_floats(const Convolution& c) {
  return c.kh * c.kw * (c.depthwise ? 1 : padded(c.ci)) * padded(c.co);
}

// y of x.
struct Forward {
  Border border;
  Extent extent;
  Product product;

  Forward(const Convolution& c, const float* k, int64_t winograd_from)
      : border(takes_winograd(c, winograd_from) ? with_whole_tiles(c.border(), c.oh, c.ow) : c.border()),
        extent(extent_of(c.h, c.w, border)),
        product(c.depthwise, takes_winograd(c, winograd_from), extent, c.ci, c.kh, c.kw, c.co, c.oh, c.ow, c.sh, c.sw,
                pack(c, k)) {}

 private:
  static const float* pack(const Convolution& c, const float* k) {
    float* packed = scratch(KERNEL, packed_floats(c));
    if (c.depthwise)
      pack_depthwise(c.kh * c.kw, c.co, false, k, packed);
    else
      pack_kernel(c.kh * c.kw, c.ci, c.co, k, packed);
    return packed;
  }
};

// dx of dy. At stride 1 it is a convolution of dy, whose border is so wide that it is "VALID", with the kernel turned
// around; so it is for depthwise ones of any stride, with zeros between the pixels of dy.
struct Transposed {
  Convolution c;
  bool plain;
  int64_t step_h, step_w;
  Border border;
  Extent extent;
  Product product;

  Transposed(const Convolution& c, const float* k, int64_t winograd_from)
      : c(c), plain(c.depthwise || (c.sh == 1 && c.sw == 1)), step_h(c.depthwise ? c.sh : 1),
        step_w(c.depthwise ? c.sw : 1), border(border_of(c, plain, step_h, step_w, takes_winograd(c, winograd_from))),
        extent(extent_of(c.oh, c.ow, border, step_h, step_w)),
        product(c.depthwise, takes_winograd(c, winograd_from), extent, c.co, c.kh, c.kw, c.ci, c.h, c.w, 1, 1,
                pack(c, plain, k)) {}

  void image(const float* dy, float* dx) const {
    if (plain)
      product.image(dy, dx);
    else
      spread_image(c, extent.rows, extent.columns, border.top, border.left, dy, product.packed, dx);
  }

 private:
  static Border border_of(const Convolution& c, bool plain, int64_t step_h, int64_t step_w, bool winograd) {
    Border border{};
    if (!plain) {
      border.top = (c.kh - 1) / c.sh, border.left = (c.kw - 1) / c.sw;
      border.bottom = std::max<int64_t>(0, (c.h - 1 + c.top) / c.sh - (c.oh - 1));
      border.right = std::max<int64_t>(0, (c.w - 1 + c.left) / c.sw - (c.ow - 1));
      return border;
    }
    border.top = c.kh - 1 - c.top, border.left = c.kw - 1 - c.left;
    border.bottom = c.h + c.kh - 1 - border.top - ((c.oh - 1) * step_h + 1);
    border.right = c.w + c.kw - 1 - border.left - ((c.ow - 1) * step_w + 1);
    if (!winograd) return border;
    border = with_whole_tiles(border, c.h, c.w);
    // the kernel's gradient reads whole tiles of dy from the same blocks
    border.bottom = std::max(border.bottom, c.oh % 2), border.right = std::max(border.right, c.ow % 2);
    return border;
  }
  static const float* pack(const Convolution& c, bool plain, const float* k) {
    float* packed = scratch(KERNEL, packed_floats(c));
    if (c.depthwise)
      pack_depthwise(c.kh * c.kw, c.co, true, k, packed);
    else
      pack_transposed(c.kh * c.kw, c.ci, c.co, plain, k, packed);
    return packed;
  }
};

// dk, of all images: blocks of x with the border of `Forward`, and blocks of dy. Images are summed in parts, by
// whichever thread takes a part, and the parts in their order.
struct KernelGradient {
  Convolution c;
  bool winograd;
  Border border;
  Extent extent;
  Tiling tiling;
  Valid valid;
  int64_t parts;
  float* sums;  // [part]

  KernelGradient(const Convolution& c, int64_t winograd_from)
      : c(c), winograd(takes_winograd(c, winograd_from)),
        border(winograd ? with_whole_tiles(c.border(), c.oh, c.ow) : c.border()), extent(extent_of(c.h, c.w, border)),
        tiling(tiling_of(extent.rows, extent.columns, c.oh, c.ow, c.ci, c.co)),
        valid{extent.rows, extent.columns, c.ci, c.kh, c.kw, c.co, c.oh, c.ow, c.sh, c.sw}, parts(parts_of(c.n)),
        sums(scratch(SUMS, parts * floats())) {}

  // Least border of blocks of dy.
  Border dy_border() const { return winograd ? with_whole_tiles({}, c.oh, c.ow) : Border{}; }

  // Calls work(n, part) for each image n and the sums that it is to be added to.
  template <class Work>
  void each_image(const Workers& workers, int64_t products, Work work) const {
    each_part(workers, parts, products, [&](int64_t part) {
      fill_zeros(sums + part * floats(), floats());
      for (int64_t n = part * c.n / parts; n < (part + 1) * c.n / parts; n++) work(n, sums + part * floats());
    });
  }

  // `dy` is the first pixel behind the border, in blocks of this extent.
  void add(const float* x, const float* dy, const Extent& of_dy, float* part) const {
    if (c.depthwise)
      add_depthwise_gradient(valid, x, dy, of_dy.row(), of_dy.plane(), part);
    else if (winograd)
      add_winograd_gradient(tiling, x, dy, of_dy.row(), of_dy.plane(), part);
    else
      add_kernel_gradient(valid, x, dy, of_dy.row(), of_dy.plane(), part);
  }

  void finish(float* dk) const {
    for (int64_t part = 1; part < parts; part++)
      for (int64_t i = 0; i < floats(); i += VL)
        store(sums + i, load(sums + i) + load(sums + part * floats() + i));
    const int64_t pixels = c.kh * c.kw;
    if (c.depthwise) return unpack_depthwise(pixels, c.co, sums, dk);
    if (!winograd) return unpack_kernel(pixels, c.ci, c.co, sums, dk);
    float* packed = scratch(KERNEL, packed_floats(c));
    transform_kernel_gradient(tiling, sums, packed);
    unpack_kernel(pixels, c.ci, c.co, packed, dk);
  }

 private:
  // Few, for each costs as much memory traffic as the kernel has weights.
  static int64_t parts_of(int64_t images) { return std::clamp<int64_t>(images / 8, 1, 4); }
  int64_t floats() const { return winograd ? 16 * padded(c.ci) * padded(c.co) : packed_floats(c); }
};

}  // namespace fishnet
