// Whole batches of norm + activation + convolution, with the moments of the result as a further result, and what comes
// behind a norm instead of a convolution: pooling, or a sum and an activation.
#pragma once
#include "norm_act.h"
#include "plans.h"

namespace fishnet {

// y, and the mean and variance [n, co] of each image's channels. load(n, border, out) brings image n into blocks.
template <class Load>
inline void convolve_with_moments(const Convolution& c, Load load, const float* k, float* y, float* mean, float* var,
                                  int64_t winograd_from, const Workers& workers) {
  const Forward forward(c, k, winograd_from);
  each_part(workers, c.n, c.products(), [&](int64_t n) {
    float* image = scratch(INPUT, forward.extent.floats(c.ci));
    load(n, forward.border, image);
    forward.product.image(image, y + n * c.output());
    image_moments(y + n * c.output(), c.oh * c.ow, c.co, mean + n * c.co, var + n * c.co);
  });
}

inline void convolve_measured(const Convolution& c, const float* x, const float* k, float* y, float* mean, float* var,
                              int64_t winograd_from, const Workers& workers) {
  const auto load = [&](int64_t n, const Border& border, float* out) {
    to_blocks(x + n * c.input(), c.h, c.w, c.ci, border, out);
  };
  convolve_with_moments(c, load, k, y, mean, var, winograd_from, workers);
}

inline void norm_act_convolve(const Convolution& c, const float* x, const Norm& norm, const float* k, float* y,
                              float* mean, float* var, int64_t winograd_from, const Workers& workers) {
  const auto load = [&](int64_t n, const Border& border, float* out) {
    norm_act_to_blocks(x + n * c.input(), c.h, c.w, c.ci, border, norm.of(n, c.ci), out);
  };
  convolve_with_moments(c, load, k, y, mean, var, winograd_from, workers);
}

// dx of convolve_measured, from dy and what the moments add to it.
inline void convolve_measured_transposed(const Convolution& c, const float* dy, const MomentGradient& moments,
                                         const float* k, float* dx, int64_t winograd_from, const Workers& workers) {
  const Transposed transposed(c, k, winograd_from);
  each_part(workers, c.n, c.products(), [&](int64_t n) {
    float* image = scratch(INPUT, transposed.extent.floats(c.co));
    gradient_to_blocks(dy + n * c.output(), c.oh, c.ow, c.co, transposed.border, transposed.step_h, transposed.step_w,
                       moments.of(n, c.oh * c.ow, c.co), image);
    transposed.image(image, dx + n * c.input());
  });
}

// dk of convolve_measured.
inline void convolve_measured_kernel_gradient(const Convolution& c, const float* x, const float* dy,
                                              const MomentGradient& moments, float* dk, int64_t winograd_from,
                                              const Workers& workers) {
  const KernelGradient gradient(c, winograd_from);
  const Border border = gradient.dy_border();
  const Extent extent = extent_of(c.oh, c.ow, border);
  gradient.each_image(workers, c.products(), [&](int64_t n, float* part) {
    float *image = scratch(INPUT, gradient.extent.floats(c.ci)), *slopes = scratch(OUTPUT, extent.floats(c.co));
    to_blocks(x + n * c.input(), c.h, c.w, c.ci, gradient.border, image);
    gradient_to_blocks(dy + n * c.output(), c.oh, c.ow, c.co, border, 1, 1, moments.of(n, c.oh * c.ow, c.co), slopes);
    gradient.add(image, slopes, extent, part);
  });
  gradient.finish(dk);
}

// dx, dk and the norm's sums of norm_act_convolve, from dy and what the moments add to it.
inline void norm_act_convolve_gradient(const Convolution& c, const float* dy, const MomentGradient& moments,
                                       const float* x, const Norm& norm, const float* k, float* dx, float* dk,
                                       const NormGradient& sums, int64_t winograd_from, const Workers& workers) {
  const Transposed transposed(c, k, winograd_from);
  const KernelGradient gradient(c, winograd_from);
  const Extent& extent = transposed.extent;
  // blocks of dy serve both products, unless one of them has zeros between its pixels
  const bool spread = transposed.step_h > 1 || transposed.step_w > 1;
  const Border border = spread ? gradient.dy_border() : transposed.border;
  const Extent of_dy = spread ? extent_of(c.oh, c.ow, border) : extent;
  gradient.each_image(workers, 2 * c.products(), [&](int64_t n, float* part) {
    float *image = scratch(INPUT, gradient.extent.floats(c.ci)), *slopes = scratch(OUTPUT, extent.floats(c.co));
    float *d_activated = scratch(ACTIVATED, c.input()), *own = spread ? scratch(SPREAD, of_dy.floats(c.co)) : slopes;
    const MomentGradient added = moments.of(n, c.oh * c.ow, c.co);
    const Norm of_image = norm.of(n, c.ci);
    const float* d = dy + n * c.output();
    gradient_to_blocks(d, c.oh, c.ow, c.co, transposed.border, transposed.step_h, transposed.step_w, added, slopes);
    if (spread) gradient_to_blocks(d, c.oh, c.ow, c.co, border, 1, 1, added, own);
    norm_act_to_blocks(x + n * c.input(), c.h, c.w, c.ci, gradient.border, of_image, image);
    gradient.add(image, own + border.top * of_dy.row() + border.left * BLOCK, of_dy, part);
    transposed.image(slopes, d_activated);
    norm_act_gradient(x + n * c.input(), d_activated, c.h * c.w, c.ci, of_image, dx + n * c.input(),
                      sums.of(n, c.ci));
  });
  gradient.finish(dk);
}

}  // namespace fishnet
