// XLA's foreign-function interface to the kernels: shapes from the buffers, strides and padding from an attribute.
#include <array>
#include <exception>
#include <string>

#include "kernels.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using In = ffi::Buffer<ffi::F32, 4>;
using Out = ffi::ResultBuffer<ffi::F32, 4>;
using Window = ffi::Span<const int64_t>;  // stride [h, w], padding [top, bottom, left, right]

// The convolution of images with these dimensions; throws std::string where they do not fit each other.
template <class Images, class Kernel, class Maps>
fishnet::Convolution convolution_of(const Images& x, const Kernel& k, const Maps& y, Window window, bool depthwise) {
  constexpr int64_t MOST = int64_t{1} << 40;  // products of four sizes below it do not overflow
  if (window.size() != 6) throw std::string("a window has six numbers");
  const fishnet::Convolution c{x[0],      x[1],      x[2],      x[3],      k[0],      k[1],      k[3],     y[1],
                               y[2],      window[0], window[1], window[2], window[3], window[4], window[5], depthwise};
  int64_t product = 1;
  for (int64_t size : {c.n, c.h + c.top + c.bottom, c.w + c.left + c.right, c.ci, c.kh, c.kw, c.co, c.oh, c.ow}) {
    if (size < 1) throw std::string("a convolution of nothing");
    if (size >= MOST) throw std::string("an array is too large");
  }
  for (int64_t size : {c.n, c.h + c.top + c.bottom, c.w + c.left + c.right, std::max(c.ci, c.co)})
    if ((product *= size) >= MOST) throw std::string("an array is too large");
  if (c.sh < 1 || c.sw < 1 || c.sh > 2 || c.sw > 2) throw std::string("strides are 1 or 2");
  for (auto [low, high, size] : {std::array<int64_t, 3>{c.top, c.bottom, c.kh}, {c.left, c.right, c.kw}})
    if (low < 0 || high < 0 || low >= size || high >= size) throw std::string("padding is narrower than the kernel");
  if (c.oh != (c.h + c.top + c.bottom - c.kh) / c.sh + 1 || c.ow != (c.w + c.left + c.right - c.kw) / c.sw + 1 ||
      y[0] != c.n || y[3] != c.co || k[2] != (depthwise ? 1 : c.ci) || (depthwise && c.ci != c.co))
    throw std::string("shapes do not fit each other");
  return c;
}

// Calls `work`, and turns what it throws into an error of XLA's.
template <class Work>
ffi::Error guarded(Work work) {
  try {
    work();
    return ffi::Error::Success();
  } catch (const std::string& problem) {
    return ffi::Error::InvalidArgument("fishnet's convolution: " + problem);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "fishnet's convolution: no memory for its scratch arrays");
  } catch (const std::exception& problem) {
    return ffi::Error::Internal(std::string("fishnet's convolution: ") + problem.what());
  }
}

ffi::Error Convolve(In x, In k, Out y, Window window, bool depthwise, int64_t winograd_from) {
  return guarded([&] {
    const auto c = convolution_of(x.dimensions(), k.dimensions(), y->dimensions(), window, depthwise);
    fishnet::convolve(c, x.typed_data(), k.typed_data(), y->typed_data(), winograd_from);
  });
}

ffi::Error InputGradient(In dy, In k, Out dx, Window window, bool depthwise, int64_t winograd_from) {
  return guarded([&] {
    const auto c = convolution_of(dx->dimensions(), k.dimensions(), dy.dimensions(), window, depthwise);
    fishnet::convolve_transposed(c, dy.typed_data(), k.typed_data(), dx->typed_data(), winograd_from);
  });
}

ffi::Error KernelGradient(In x, In dy, Out dk, Window window, bool depthwise, int64_t winograd_from) {
  return guarded([&] {
    const auto c = convolution_of(x.dimensions(), dk->dimensions(), dy.dimensions(), window, depthwise);
    fishnet::convolve_kernel_gradient(c, x.typed_data(), dy.typed_data(), dk->typed_data(), winograd_from);
  });
}

#define WINDOW Attr<Window>("window").Attr<bool>("depthwise").Attr<int64_t>("winograd_from")
#define PRODUCT ffi::Ffi::Bind().Arg<In>().Arg<In>().Ret<In>().WINDOW

}  // namespace

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution, Convolve, PRODUCT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_input_gradient, InputGradient, PRODUCT);
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_kernel_gradient, KernelGradient, PRODUCT);
#pragma GCC visibility pop
