// Shapes that fit each other, checked before anything is computed with them.
#pragma once
#include <array>
#include <string>

#include "convolution.h"

namespace fishnet {

// The convolution of images with these dimensions; throws std::string where they do not fit each other. A window is
// stride [h, w], padding [top, bottom, left, right].
template <class Images, class Kernel, class Maps, class Window>
Convolution convolution_of(const Images& x, const Kernel& k, const Maps& y, const Window& window, bool depthwise) {
  constexpr int64_t MOST = int64_t{1} << 40;  // products of two sizes below it do not overflow
  if (window.size() != 6) throw std::string("a window has six numbers");
  const Convolution c{x[0],      x[1],      x[2],      x[3],      k[0],      k[1],      k[3],     y[1],
                      y[2],      window[0], window[1], window[2], window[3], window[4], window[5], depthwise};
  for (int64_t size : {c.n, c.h, c.w, c.ci, c.kh, c.kw, c.co, c.oh, c.ow}) {
    if (size < 1) throw std::string("a convolution of nothing");
    if (size >= MOST) throw std::string("an array is too large");
  }
  if (c.sh < 1 || c.sw < 1 || c.sh > 2 || c.sw > 2) throw std::string("strides are 1 or 2");
  for (auto [low, high, size] : {std::array<int64_t, 3>{c.top, c.bottom, c.kh}, {c.left, c.right, c.kw}})
    if (low < 0 || high < 0 || low >= size || high >= size) throw std::string("padding is narrower than the kernel");
  int64_t product = 1;
  for (int64_t size : {c.n, c.h + c.top + c.bottom, c.w + c.left + c.right, std::max(c.ci, c.co)}) {
    if (size >= MOST / product) throw std::string("an array is too large");
    product *= size;
  }
  if (c.h + c.top + c.bottom < c.kh || c.w + c.left + c.right < c.kw ||
      c.oh != (c.h + c.top + c.bottom - c.kh) / c.sh + 1 || c.ow != (c.w + c.left + c.right - c.kw) / c.sw + 1 ||
      y[0] != c.n || y[3] != c.co || k[2] != (depthwise ? 1 : c.ci) || (depthwise && c.ci != c.co))
    throw std::string("shapes do not fit each other");
  return c;
}

}  // namespace fishnet
