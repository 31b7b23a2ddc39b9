// The convolution kernels without Python or XLA, on arrays of exactly their size, against plain loops.
//
// Each case runs in two new threads at once: their scratch memory is new too, of exactly the size asked for and, under
// AddressSanitizer, full of NaN; so a read beside it or of what nobody wrote shows, as do threads that share something.
// Prints a hash of all results, which is the same for all instruction sets, and returns the number of failures.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "checks.h"
#include "kernels.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __asan_default_options() { return "malloc_fill_byte=255:max_malloc_fill_size=2147483647"; }
#endif

using fishnet::Convolution;

namespace {

int failures = 0;
uint64_t hash = 14695981039346656037u;  // FNV-1a

// Floats that end where the allocation ends; with `shift`, not aligned beyond a float.
class Array {
 public:
  Array(int64_t count, bool shift)
      : memory_(static_cast<float*>(std::malloc(sizeof(float) * (count + shift)))), shift_(shift), count_(count) {
    std::fill(data(), data() + count, std::numeric_limits<float>::quiet_NaN());
  }
  Array(const Array&) = delete;
  ~Array() { std::free(memory_); }
  float* data() { return memory_ + shift_; }
  int64_t size() const { return count_; }
  void draw(uint32_t seed) {
    for (int64_t i = 0; i < count_; i++) {
      seed = seed * 1664525u + 1013904223u;
      data()[i] = static_cast<float>(seed >> 8) / (1 << 23) - 1;
    }
  }

 private:
  float* memory_;
  bool shift_;
  int64_t count_;
};

// Sums in double precision, and sums of magnitudes, to which errors are compared.
struct Sums {
  std::vector<double> value, size;
  explicit Sums(int64_t count) : value(count), size(count) {}
  void add(int64_t at, double a, double b) { value[at] += a * b, size[at] += std::fabs(a * b); }
};

// Calls work(place in x, place in k, place in y) for each product of a convolution.
template <class Work>
void for_each_product(const Convolution& c, Work work) {
  const int64_t depth = c.depthwise ? 1 : c.ci;
  for (int64_t n = 0; n < c.n; n++)
    for (int64_t p = 0; p < c.oh; p++)
      for (int64_t q = 0; q < c.ow; q++)
        for (int64_t i = 0; i < c.kh; i++)
          for (int64_t j = 0; j < c.kw; j++) {
            const int64_t y = c.sh * p + i - c.top, x = c.sw * q + j - c.left;
            if (y < 0 || y >= c.h || x < 0 || x >= c.w) continue;
            for (int64_t m = 0; m < depth; m++)
              for (int64_t o = 0; o < c.co; o++)
                work(((n * c.h + y) * c.w + x) * c.ci + (c.depthwise ? o : m), ((i * c.kw + j) * depth + m) * c.co + o,
                     ((n * c.oh + p) * c.ow + q) * c.co + o);
          }
}

void compare(const Convolution& c, int64_t least, const char* name, Array& result, const Sums& exact) {
  double largest = 0, error = 0;
  for (int64_t i = 0; i < result.size(); i++) {
    const double off = std::fabs(result.data()[i] - exact.value[i]);
    largest = std::max(largest, exact.size[i]);
    error = off <= error ? error : off;  // NaN stays
  }
  if (error <= 2e-6 * largest) return;
  failures++;
  std::printf("%s: off by %g of %g: %ldx%ldx%ldx%ld, kernel %ldx%ld to %ld, stride %ld %ld, padding %ld %ld %ld %ld, "
              "depthwise %d, Winograd from %ld\n", name, error, largest, long(c.n), long(c.h), long(c.w), long(c.ci),
              long(c.kh), long(c.kw), long(c.co), long(c.sh), long(c.sw), long(c.top), long(c.bottom), long(c.left),
              long(c.right), c.depthwise, long(least));
}

void try_case(const Convolution& c, int64_t least, bool shift) {
  const int64_t inputs = c.n * c.input(), outputs = c.n * c.output();
  const int64_t weights = c.kh * c.kw * (c.depthwise ? 1 : c.ci) * c.co;
  Array x(inputs, shift), k(weights, shift), dy(outputs, shift);
  x.draw(1), k.draw(2), dy.draw(3);
  Sums y_sums(outputs), dx_sums(inputs), dk_sums(weights);
  for_each_product(c, [&](int64_t at_x, int64_t at_k, int64_t at_y) {
    y_sums.add(at_y, x.data()[at_x], k.data()[at_k]);
    dx_sums.add(at_x, dy.data()[at_y], k.data()[at_k]);
    dk_sums.add(at_k, dy.data()[at_y], x.data()[at_x]);
  });
  struct Results {
    Array y, dx, dk;
  } results[2] = {{{outputs, shift}, {inputs, shift}, {weights, shift}},
                  {{outputs, shift}, {inputs, shift}, {weights, shift}}};
  const auto in_new_threads = [&](auto work) {
    std::thread first([&] { work(results[0]); }), second([&] { work(results[1]); });
    first.join(), second.join();
  };
  in_new_threads([&](Results& r) { fishnet::convolve(c, x.data(), k.data(), r.y.data(), least); });
  in_new_threads([&](Results& r) { fishnet::convolve_transposed(c, dy.data(), k.data(), r.dx.data(), least); });
  in_new_threads([&](Results& r) { fishnet::convolve_kernel_gradient(c, x.data(), dy.data(), r.dk.data(), least); });
  compare(c, least, "forward", results[0].y, y_sums);
  compare(c, least, "input gradient", results[0].dx, dx_sums);
  compare(c, least, "kernel gradient", results[0].dk, dk_sums);
  for (Array Results::*part : {&Results::y, &Results::dx, &Results::dk}) {
    Array &a = results[0].*part, &b = results[1].*part;
    const auto* bytes = reinterpret_cast<const unsigned char*>(a.data());
    if (std::memcmp(bytes, b.data(), sizeof(float) * a.size()) != 0) failures++, std::puts("two threads differ");
    for (size_t i = 0; i < sizeof(float) * a.size(); i++) hash = (hash ^ bytes[i]) * 1099511628211u;
  }
}

using Sizes = std::array<int64_t, 4>;

// What is wrong with a convolution of these shapes; empty: nothing.
std::string problem(const Sizes& x, const Sizes& k, const Sizes& y, const std::vector<int64_t>& window,
                    bool depthwise) {
  try {
    fishnet::convolution_of(x, k, y, window, depthwise);
  } catch (const std::string& text) {
    return text;
  }
  return "";
}

void expect(const std::string& wanted, const std::string& found) {
  if (wanted == found) return;
  failures++;
  std::printf("expected '%s', not '%s'\n", wanted.c_str(), found.c_str());
}

// Sizes whose products or sums overflow are refused before anything is computed with them.
void try_checks() {
  const int64_t huge = std::numeric_limits<int64_t>::max(), half = int64_t{1} << 32;
  const std::vector<int64_t> plain{1, 1, 0, 0, 0, 0};
  expect("", problem({2, 5, 5, 3}, {3, 3, 3, 4}, {2, 3, 3, 4}, plain, false));
  expect("an array is too large", problem({huge, 5, 5, 3}, {3, 3, 3, 4}, {huge, 3, 3, 4}, plain, false));
  expect("an array is too large", problem({half, 5, half, 3}, {3, 3, 3, 4}, {half, 3, half - 2, 4}, plain, false));
  expect("an array is too large", problem({1, huge, 5, 3}, {3, 3, 3, 4}, {1, huge, 5, 4}, {1, 1, 1, 1, 1, 1}, false));
  expect("padding is narrower than the kernel",
         problem({2, 5, 5, 3}, {3, 3, 3, 4}, {2, 3, 3, 4}, {1, 1, huge, huge, 0, 0}, false));
  expect("padding is narrower than the kernel",
         problem({2, 5, 5, 3}, {3, 3, 3, 4}, {2, 3, 3, 4}, {1, 1, 0, 0, -huge - 1, -huge - 1}, false));
  expect("strides are 1 or 2", problem({2, 5, 5, 3}, {3, 3, 3, 4}, {2, 3, 3, 4}, {0, 1, 0, 0, 0, 0}, false));
  expect("a convolution of nothing", problem({0, 5, 5, 3}, {3, 3, 3, 4}, {0, 3, 3, 4}, plain, false));
  expect("a window has six numbers", problem({2, 5, 5, 3}, {3, 3, 3, 4}, {2, 3, 3, 4}, {1, 1}, false));
  expect("shapes do not fit each other", problem({2, 5, 5, 3}, {3, 3, 1, 4}, {2, 3, 3, 4}, plain, true));
  expect("shapes do not fit each other", problem({2, 5, 5, 3}, {3, 3, 3, 4}, {2, 3, 4, 4}, plain, false));
}

}  // namespace

int main() {
  try_checks();
  const std::array<int64_t, 2> sizes[] = {{1, 1}, {2, 5}, {7, 3}, {8, 17}, {13, 6}, {33, 2}};
  const std::array<int64_t, 2> kernels[] = {{1, 1}, {2, 2}, {3, 3}, {5, 3}, {1, 7}, {7, 7}};
  const std::array<int64_t, 2> strides[] = {{1, 1}, {2, 2}, {1, 2}, {2, 1}};
  const std::array<int64_t, 2> channels[] = {{1, 1},   {3, 17},  {16, 16}, {15, 7},
                                             {17, 33}, {33, 48}, {7, 130}, {130, 2}};
  int64_t tried = 0, turn = 0;
  for (auto [h, w] : sizes)
    for (auto [kh, kw] : kernels)
      for (auto [sh, sw] : strides)
        for (int64_t form = 0; form < 4; form++) {  // of padding
          const int64_t top = std::array<int64_t, 4>{0, kh - 1, kh / 2, 0}[form];
          const int64_t bottom = std::array<int64_t, 4>{0, kh - 1, (kh - 1) / 2, kh - 1}[form];
          const int64_t left = std::array<int64_t, 4>{0, kw - 1, (kw - 1) / 2, kw - 1}[form];
          const int64_t right = std::array<int64_t, 4>{0, kw - 1, kw / 2, 0}[form];
          if (h + top + bottom < kh || w + left + right < kw) continue;
          const int64_t oh = (h + top + bottom - kh) / sh + 1, ow = (w + left + right - kw) / sw + 1;
          const auto [ci, co] = channels[turn++ % std::size(channels)];
          const bool winograd = kh == 3 && kw == 3 && sh == 1 && sw == 1;
          const int64_t n = 1 + turn % 3;
          const Convolution dense{n, h, w, ci, kh, kw, co, oh, ow, sh, sw, top, bottom, left, right, false};
          const Convolution depthwise{n, h, w, co, kh, kw, co, oh, ow, sh, sw, top, bottom, left, right, true};
          try_case(dense, 0, turn % 2), tried++;
          if (winograd) try_case(dense, 1, turn % 2), tried++;
          try_case(depthwise, 0, turn % 2), tried++;
        }
  for (auto [ci, co] : channels)  // every pair of channels by Winograd, over several strips of tiles
    for (int64_t h : {9, 20})
      try_case({2, h, 21, ci, 3, 3, co, h, 21, 1, 1, 1, 1, 1, 1, false}, 1, co % 2), tried++;
  std::printf("%ld cases, hash %016lx\n", long(tried), static_cast<unsigned long>(hash));
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
