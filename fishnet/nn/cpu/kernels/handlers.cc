// XLA's foreign-function interface to the kernels: shapes from the buffers, strides and padding from an attribute.
#include <exception>
#include <string>

#include "checks.h"
#include "fused.h"
#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Pool = ffi::ThreadPool;
using In = ffi::Buffer<ffi::F32, 4>;
using Out = ffi::ResultBuffer<ffi::F32, 4>;
using Window = ffi::Span<const int64_t>;  // stride [h, w], padding [top, bottom, left, right]

// Calls work(workers) with XLA's threads, and turns what it throws into an error of XLA's.
template <class Work>
ffi::Error guarded(Pool& pool, Work work) {
  try {
    work(fishnet::Workers{pool.num_threads(), [&](std::function<void()> task) { pool.Schedule(std::move(task)); }});
    return ffi::Error::Success();
  } catch (const std::string& problem) {
    return ffi::Error::InvalidArgument("fishnet's convolution: " + problem);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "fishnet's convolution: no memory for its scratch arrays");
  } catch (const std::exception& problem) {
    return ffi::Error::Internal(std::string("fishnet's convolution: ") + problem.what());
  }
}

template <class A, class B>
bool same_shape(const A& a, const B& b) {
  const auto x = a.dimensions(), y = b.dimensions();
  return std::equal(x.begin(), x.end(), y.begin(), y.end());
}

ffi::Error Convolve(Pool pool, In x, In k, Out y, Window window, bool depthwise, int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(x.dimensions(), k.dimensions(), y->dimensions(), window, depthwise);
    fishnet::convolve(c, x.typed_data(), k.typed_data(), y->typed_data(), winograd_from, workers);
  });
}

ffi::Error InputGradient(Pool pool, In dy, In k, Out dx, Window window, bool depthwise, int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(dx->dimensions(), k.dimensions(), dy.dimensions(), window, depthwise);
    fishnet::convolve_transposed(c, dy.typed_data(), k.typed_data(), dx->typed_data(), winograd_from, workers);
  });
}

ffi::Error KernelGradient(Pool pool, In x, In dy, Out dk, Window window, bool depthwise, int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(x.dimensions(), dk->dimensions(), dy.dimensions(), window, depthwise);
    fishnet::convolve_kernel_gradient(c, x.typed_data(), dy.typed_data(), dk->typed_data(), winograd_from, workers);
  });
}

using Numbers = ffi::Buffer<ffi::F32, 2>;  // of a norm or of moments, [n, c]
using NumbersOut = ffi::ResultBuffer<ffi::F32, 2>;
using Coefficient = ffi::Buffer<ffi::F32, 1>;  // of an activation, [c]
using Kind = ffi::Buffer<ffi::S32, 0>;         // an `Activation`

void check_numbers(int64_t n, int64_t c, std::initializer_list<ffi::Span<const int64_t>> all) {
  for (auto dimensions : all)
    if (dimensions[0] != n || dimensions[1] != c) throw std::string("numbers of a norm are [images, channels]");
}

fishnet::Norm norm_of(int64_t n, int64_t c, const Numbers& center, const Numbers& gain, const Numbers& shift,
                      const Coefficient& coefficient, const Kind& kind) {
  check_numbers(n, c, {center.dimensions(), gain.dimensions(), shift.dimensions()});
  if (coefficient.dimensions()[0] != c) throw std::string("a coefficient is [channels]");
  const int32_t activation = *kind.typed_data();
  if (activation < 0 || activation >= fishnet::ACTIVATIONS) throw std::string("there is no such activation");
  return {center.typed_data(), gain.typed_data(), shift.typed_data(), coefficient.typed_data(), activation};
}

fishnet::MomentGradient moments_of(const fishnet::Convolution& c, const In& dy, const In& y, const Numbers& mean,
                                   const Numbers& spread, const Numbers& level) {
  check_numbers(c.n, c.co, {mean.dimensions(), spread.dimensions(), level.dimensions()});
  if (!same_shape(dy, y)) throw std::string("a gradient has the shape of its array");
  return {y.typed_data(), mean.typed_data(), spread.typed_data(), level.typed_data()};
}

fishnet::NormGradient sums_of(int64_t n, int64_t c, NumbersOut gain, NumbersOut shift, NumbersOut coefficient) {
  check_numbers(n, c, {gain->dimensions(), shift->dimensions(), coefficient->dimensions()});
  return {gain->typed_data(), shift->typed_data(), coefficient->typed_data()};
}

ffi::Error ConvolveMeasured(Pool pool, In x, In k, Out y, NumbersOut mean, NumbersOut var, Window window,
                            bool depthwise, int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(x.dimensions(), k.dimensions(), y->dimensions(), window, depthwise);
    check_numbers(c.n, c.co, {mean->dimensions(), var->dimensions()});
    fishnet::convolve_measured(c, x.typed_data(), k.typed_data(), y->typed_data(), mean->typed_data(),
                               var->typed_data(), winograd_from, workers);
  });
}

ffi::Error MeasuredInputGradient(Pool pool, In dy, In y, Numbers mean, Numbers spread, Numbers level, In k, Out dx,
                                 Window window, bool depthwise, int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(dx->dimensions(), k.dimensions(), dy.dimensions(), window, depthwise);
    fishnet::convolve_measured_transposed(c, dy.typed_data(), moments_of(c, dy, y, mean, spread, level), k.typed_data(),
                                          dx->typed_data(), winograd_from, workers);
  });
}

ffi::Error MeasuredKernelGradient(Pool pool, In x, In dy, In y, Numbers mean, Numbers spread, Numbers level, Out dk,
                                  Window window, bool depthwise, int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(x.dimensions(), dk->dimensions(), dy.dimensions(), window, depthwise);
    fishnet::convolve_measured_kernel_gradient(c, x.typed_data(), dy.typed_data(),
                                               moments_of(c, dy, y, mean, spread, level), dk->typed_data(),
                                               winograd_from, workers);
  });
}

ffi::Error NormActConvolve(Pool pool, In x, Numbers center, Numbers gain, Numbers shift, Coefficient coefficient,
                           Kind kind, In k, Out y, NumbersOut mean, NumbersOut var, Window window, bool depthwise,
                           int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(x.dimensions(), k.dimensions(), y->dimensions(), window, depthwise);
    const auto norm = norm_of(c.n, c.ci, center, gain, shift, coefficient, kind);
    check_numbers(c.n, c.co, {mean->dimensions(), var->dimensions()});
    fishnet::norm_act_convolve(c, x.typed_data(), norm, k.typed_data(), y->typed_data(), mean->typed_data(),
                               var->typed_data(), winograd_from, workers);
  });
}

ffi::Error NormActConvolveGradient(Pool pool, In dy, In y, Numbers mean, Numbers spread, Numbers level, In x,
                                   Numbers center, Numbers gain, Numbers shift, Coefficient coefficient, Kind kind,
                                   In k, Out dx, Out dk, NumbersOut d_gain, NumbersOut d_shift,
                                   NumbersOut d_coefficient, Window window, bool depthwise, int64_t winograd_from) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const auto c = fishnet::convolution_of(x.dimensions(), k.dimensions(), dy.dimensions(), window, depthwise);
    const auto norm = norm_of(c.n, c.ci, center, gain, shift, coefficient, kind);
    const auto moments = moments_of(c, dy, y, mean, spread, level);
    const auto sums = sums_of(c.n, c.ci, d_gain, d_shift, d_coefficient);
    if (!same_shape(x, *dx) || !same_shape(k, *dk)) throw std::string("a gradient has the shape of its array");
    fishnet::norm_act_convolve_gradient(c, dy.typed_data(), moments, x.typed_data(), norm, k.typed_data(),
                                        dx->typed_data(), dk->typed_data(), sums, winograd_from, workers);
  });
}

// Sizes of maps with as many channels as a norm has numbers.
struct Maps {
  int64_t n, h, w, c;
  int64_t floats() const { return h * w * c; }
  int64_t work() const { return 32 * n * floats(); }  // an activation costs about as much as so many products
  int64_t pooled() const { return h / 2 * (w / 2) * c; }
};

Maps maps_of(const In& x) {
  const auto d = x.dimensions();
  for (int64_t size : d)
    if (size < 1) throw std::string("maps of nothing");
  return {d[0], d[1], d[2], d[3]};
}

void check_pooled(const Maps& m, ffi::Span<const int64_t> pooled) {
  if (m.h < 2 || m.w < 2 || pooled[0] != m.n || pooled[1] != m.h / 2 || pooled[2] != m.w / 2 || pooled[3] != m.c)
    throw std::string("pooled maps have half the size");
}

ffi::Error NormActPool(Pool pool, In x, Numbers center, Numbers gain, Numbers shift, Coefficient coefficient, Kind kind,
                       Out y) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const Maps m = maps_of(x);
    const auto norm = norm_of(m.n, m.c, center, gain, shift, coefficient, kind);
    check_pooled(m, y->dimensions());
    fishnet::each_part(workers, m.n, m.work(), [&](int64_t n) {
      fishnet::norm_act_pool(x.typed_data() + n * m.floats(), m.h, m.w, m.c, norm.of(n, m.c),
                             y->typed_data() + n * m.pooled());
    });
  });
}

ffi::Error NormActPoolGradient(Pool pool, In dy, In x, Numbers center, Numbers gain, Numbers shift,
                               Coefficient coefficient, Kind kind, Out dx, NumbersOut d_gain, NumbersOut d_shift,
                               NumbersOut d_coefficient) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const Maps m = maps_of(x);
    const auto norm = norm_of(m.n, m.c, center, gain, shift, coefficient, kind);
    const auto sums = sums_of(m.n, m.c, d_gain, d_shift, d_coefficient);
    check_pooled(m, dy.dimensions());
    if (!same_shape(x, *dx)) throw std::string("a gradient has the shape of its array");
    fishnet::each_part(workers, m.n, m.work(), [&](int64_t n) {
      fishnet::norm_act_pool_gradient(x.typed_data() + n * m.floats(), dy.typed_data() + n * m.pooled(), m.h, m.w, m.c,
                                      norm.of(n, m.c), dx->typed_data() + n * m.floats(), sums.of(n, m.c));
    });
  });
}

ffi::Error NormAct(Pool pool, In x, Numbers center, Numbers gain, Numbers shift, Coefficient coefficient, Kind kind,
                   Out y) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const Maps m = maps_of(x);
    const auto norm = norm_of(m.n, m.c, center, gain, shift, coefficient, kind);
    if (!same_shape(x, *y)) throw std::string("an activation keeps the shape");
    fishnet::each_part(workers, m.n, m.work(), [&](int64_t n) {
      fishnet::norm_add_act(x.typed_data() + n * m.floats(), nullptr, m.h * m.w, m.c, norm.of(n, m.c),
                            y->typed_data() + n * m.floats());
    });
  });
}

ffi::Error NormActGradient(Pool pool, In dy, In x, Numbers center, Numbers gain, Numbers shift, Coefficient coefficient,
                           Kind kind, Out dx, NumbersOut d_gain, NumbersOut d_shift, NumbersOut d_coefficient) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const Maps m = maps_of(x);
    const auto norm = norm_of(m.n, m.c, center, gain, shift, coefficient, kind);
    const auto sums = sums_of(m.n, m.c, d_gain, d_shift, d_coefficient);
    if (!same_shape(x, dy) || !same_shape(x, *dx)) throw std::string("a gradient has the shape of its array");
    fishnet::each_part(workers, m.n, m.work(), [&](int64_t n) {
      fishnet::norm_act_gradient(x.typed_data() + n * m.floats(), dy.typed_data() + n * m.floats(), m.h * m.w, m.c,
                                 norm.of(n, m.c), dx->typed_data() + n * m.floats(), sums.of(n, m.c));
    });
  });
}

ffi::Error NormAddAct(Pool pool, In x, Numbers center, Numbers gain, Numbers shift, In added, Coefficient coefficient,
                      Kind kind, Out y) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const Maps m = maps_of(x);
    const auto norm = norm_of(m.n, m.c, center, gain, shift, coefficient, kind);
    if (!same_shape(x, added) || !same_shape(x, *y)) throw std::string("what is added has the same shape");
    fishnet::each_part(workers, m.n, m.work(), [&](int64_t n) {
      fishnet::norm_add_act(x.typed_data() + n * m.floats(), added.typed_data() + n * m.floats(), m.h * m.w, m.c,
                            norm.of(n, m.c), y->typed_data() + n * m.floats());
    });
  });
}

ffi::Error NormAddActGradient(Pool pool, In dy, In x, Numbers center, Numbers gain, Numbers shift, In added,
                              Coefficient coefficient, Kind kind, Out dx, Out d_added, NumbersOut d_gain,
                              NumbersOut d_shift, NumbersOut d_coefficient) {
  return guarded(pool, [&](const fishnet::Workers& workers) {
    const Maps m = maps_of(x);
    const auto norm = norm_of(m.n, m.c, center, gain, shift, coefficient, kind);
    const auto sums = sums_of(m.n, m.c, d_gain, d_shift, d_coefficient);
    if (!same_shape(x, added) || !same_shape(x, dy) || !same_shape(x, *dx) || !same_shape(x, *d_added))
      throw std::string("what is added has the same shape");
    fishnet::each_part(workers, m.n, m.work(), [&](int64_t n) {
      fishnet::norm_add_act_gradient(x.typed_data() + n * m.floats(), added.typed_data() + n * m.floats(),
                                     dy.typed_data() + n * m.floats(), m.h * m.w, m.c, norm.of(n, m.c),
                                     dx->typed_data() + n * m.floats(), d_added->typed_data() + n * m.floats(),
                                     sums.of(n, m.c));
    });
  });
}

#define WINDOW Attr<Window>("window").Attr<bool>("depthwise").Attr<int64_t>("winograd_from")
#define PRODUCT BIND.Arg<In>().Arg<In>().Ret<In>().WINDOW
#define NORM Arg<In>().Arg<Numbers>().Arg<Numbers>().Arg<Numbers>()
#define ACTIVATION Arg<Coefficient>().Arg<Kind>()
#define MOMENTS Arg<In>().Arg<In>().Arg<Numbers>().Arg<Numbers>().Arg<Numbers>()
#define SUMS Ret<Numbers>().Ret<Numbers>().Ret<Numbers>()
#define BIND ffi::Ffi::Bind().Ctx<Pool>()

}  // namespace

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution, Convolve, PRODUCT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_input_gradient, InputGradient, PRODUCT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_kernel_gradient, KernelGradient, PRODUCT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(measured, ConvolveMeasured,
                              BIND.Arg<In>().Arg<In>().Ret<In>().Ret<Numbers>().Ret<Numbers>().WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(measured_input_gradient, MeasuredInputGradient, BIND.MOMENTS.Arg<In>().Ret<In>().WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(measured_kernel_gradient, MeasuredKernelGradient,
                              BIND.Arg<In>().MOMENTS.Ret<In>().WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_act_conv, NormActConvolve,
                              BIND.NORM.ACTIVATION.Arg<In>().Ret<In>().Ret<Numbers>().Ret<Numbers>().WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_act_conv_gradient, NormActConvolveGradient,
                              BIND.MOMENTS.NORM.ACTIVATION.Arg<In>().Ret<In>().Ret<In>().SUMS.WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_act_pool, NormActPool, BIND.NORM.ACTIVATION.Ret<In>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_act_pool_gradient, NormActPoolGradient,
                              BIND.Arg<In>().NORM.ACTIVATION.Ret<In>().SUMS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_act, NormAct, BIND.NORM.ACTIVATION.Ret<In>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_act_gradient, NormActGradient, BIND.Arg<In>().NORM.ACTIVATION.Ret<In>().SUMS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_add_act, NormAddAct, BIND.NORM.Arg<In>().ACTIVATION.Ret<In>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(norm_add_act_gradient, NormAddActGradient,
                              BIND.Arg<In>().NORM.Arg<In>().ACTIVATION.Ret<In>().Ret<In>().SUMS);
#pragma GCC visibility pop
