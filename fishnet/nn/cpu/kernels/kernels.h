// Whole batches: what the handlers and the test of bounds call.
#pragma once
#include "plans.h"

namespace fishnet {

// y [n, oh, ow, co] of x [n, h, w, ci] and k [kh, kw, ci, co].
inline void convolve(const Convolution& c, const float* x, const float* k, float* y, int64_t winograd_from,
                     const Workers& workers) {
  const Forward forward(c, k, winograd_from);
  each_part(workers, c.n, c.products(), [&](int64_t n) {
    float* image = scratch(INPUT, forward.extent.floats(c.ci));
    to_blocks(x + n * c.input(), c.h, c.w, c.ci, forward.border, image);
    forward.product.image(image, y + n * c.output());
  });
}

// dx [n, h, w, ci] of dy [n, oh, ow, co] and k [kh, kw, ci, co].
inline void convolve_transposed(const Convolution& c, const float* dy, const float* k, float* dx, int64_t winograd_from,
                                const Workers& workers) {
  const Transposed transposed(c, k, winograd_from);
  each_part(workers, c.n, c.products(), [&](int64_t n) {
    float* image = scratch(INPUT, transposed.extent.floats(c.co));
    to_blocks(dy + n * c.output(), c.oh, c.ow, c.co, transposed.border, image, transposed.step_h, transposed.step_w);
    transposed.image(image, dx + n * c.input());
  });
}

// dk [kh, kw, ci, co] of x [n, h, w, ci] and dy [n, oh, ow, co].
inline void convolve_kernel_gradient(const Convolution& c, const float* x, const float* dy, float* dk,
                                     int64_t winograd_from, const Workers& workers) {
  const KernelGradient gradient(c, winograd_from);
  const Border border = gradient.dy_border();
  const Extent extent = extent_of(c.oh, c.ow, border);
  gradient.each_image(workers, c.products(), [&](int64_t n, float* part) {
    float *image = scratch(INPUT, gradient.extent.floats(c.ci)), *slopes = scratch(OUTPUT, extent.floats(c.co));
    to_blocks(x + n * c.input(), c.h, c.w, c.ci, gradient.border, image);
    to_blocks(dy + n * c.output(), c.oh, c.ow, c.co, border, slopes);
    gradient.add(image, slopes, extent, part);
  });
  gradient.finish(dk);
}

}  // namespace fishnet
