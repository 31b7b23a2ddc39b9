// The convolution kernels without Python or XLA, on arrays of exactly their size, against plain loops.
//
// Each case runs in two new threads at once, one of which others help: their scratch memory is new too, of exactly the
// size asked for and, under AddressSanitizer, full of NaN; so a read beside it or of what nobody wrote shows, as do
// threads that share something. With -DBLOCKS also the fused blocks, which take the sanitizers a minute to compile;
// what they compute is compared with plain functions by tests in Python.
// Prints a hash of all results, which is the same for all instruction sets, and returns the number of failures.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "checks.h"
#include "kernels.h"
#ifdef BLOCKS
#include "fused.h"
#endif

#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __asan_default_options() { return "malloc_fill_byte=255:max_malloc_fill_size=2147483647"; }
#endif

// The last thread that holds an exception frees it. They count in libstdc++, which ThreadSanitizer does not see.
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n";
}

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

// New threads that help, however little there is to do.
class Helpers {
 public:
  ~Helpers() {
    for (std::thread& thread : threads_) thread.join();
  }
  fishnet::Workers workers() {
    return {4, [this](std::function<void()> task) { threads_.emplace_back(std::move(task)); }, 0};
  }

 private:
  std::vector<std::thread> threads_;
};

void add_to_hash(Array& results) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(results.data());
  for (size_t i = 0; i < sizeof(float) * results.size(); i++) hash = (hash ^ bytes[i]) * 1099511628211u;
}

bool same(Array& a, Array& b) { return std::memcmp(a.data(), b.data(), sizeof(float) * a.size()) == 0; }

// Calls work(0, workers) and work(1, workers) in two new threads at once, of which the second is helped.
template <class Work>
void in_new_threads(Work work) {
  const auto with_helpers = [&](int which) {
    Helpers helpers;
    work(which, which ? helpers.workers() : fishnet::Workers{});
  };
  std::thread first(with_helpers, 0), second(with_helpers, 1);
  first.join(), second.join();
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
  in_new_threads([&](int i, const fishnet::Workers& workers) {
    fishnet::convolve(c, x.data(), k.data(), results[i].y.data(), least, workers);
    fishnet::convolve_transposed(c, dy.data(), k.data(), results[i].dx.data(), least, workers);
    fishnet::convolve_kernel_gradient(c, x.data(), dy.data(), results[i].dk.data(), least, workers);
  });
  compare(c, least, "forward", results[0].y, y_sums);
  compare(c, least, "input gradient", results[0].dx, dx_sums);
  compare(c, least, "kernel gradient", results[0].dk, dk_sums);
  for (Array Results::*part : {&Results::y, &Results::dx, &Results::dk}) {
    if (!same(results[0].*part, results[1].*part)) failures++, std::puts("two threads differ");
    add_to_hash(results[0].*part);
  }
}

#ifdef BLOCKS
// Arrays of exactly these sizes, all of which work(results, workers) is to write; two threads write the same.
template <class Work>
void try_results(const char* name, std::initializer_list<int64_t> sizes, bool shift, Work work) {
  std::vector<std::unique_ptr<Array>> results[2];
  for (auto& each : results)
    for (int64_t size : sizes) each.push_back(std::make_unique<Array>(size, shift));
  in_new_threads([&](int i, const fishnet::Workers& workers) { work(results[i], workers); });
  for (size_t part = 0; part < sizes.size(); part++) {
    Array& a = *results[0][part];
    bool whole = true;
    for (int64_t i = 0; i < a.size(); i++) whole = whole && std::isfinite(a.data()[i]);
    if (!whole) failures++, std::printf("%s: result %zu is not whole\n", name, part);
    if (!same(a, *results[1][part])) failures++, std::printf("%s: two threads differ\n", name);
    add_to_hash(a);
  }
}

// The fused blocks on maps and a convolution of these shapes.
void try_blocks(const Convolution& c, int32_t activation, int64_t least, bool shift) {
  const int64_t inputs = c.n * c.input(), outputs = c.n * c.output(), maps = c.n * c.ci, sums = c.n * c.co;
  const int64_t weights = c.kh * c.kw * (c.depthwise ? 1 : c.ci) * c.co, pooled = c.n * (c.h / 2) * (c.w / 2) * c.ci;
  Array x(inputs, shift), added(inputs, shift), d(inputs, shift), d_pooled(pooled, shift), k(weights, shift);
  Array y(outputs, shift), dy(outputs, shift), center(maps, shift), gain(maps, shift), bias(maps, shift);
  Array coefficient(c.ci, shift), mean(sums, shift), spread(sums, shift), level(sums, shift);
  uint32_t seed = 1;
  for (Array* array : {&x, &added, &d, &d_pooled, &k, &y, &dy, &center, &gain, &bias, &coefficient, &mean, &spread,
                       &level})
    array->draw(seed++);
  const fishnet::Norm norm{center.data(), gain.data(), bias.data(), coefficient.data(), activation};
  const fishnet::MomentGradient moments{y.data(), mean.data(), spread.data(), level.data()};
  const auto sums_at = [](auto& r, int at) {
    return fishnet::NormGradient{r[at]->data(), r[at + 1]->data(), r[at + 2]->data()};
  };
  try_results("measured", {outputs, sums, sums, inputs, weights}, shift, [&](auto& r, const fishnet::Workers& workers) {
    fishnet::convolve_measured(c, x.data(), k.data(), r[0]->data(), r[1]->data(), r[2]->data(), least, workers);
    fishnet::convolve_measured_transposed(c, dy.data(), moments, k.data(), r[3]->data(), least, workers);
    fishnet::convolve_measured_kernel_gradient(c, x.data(), dy.data(), moments, r[4]->data(), least, workers);
  });
  try_results("norm_act_conv", {outputs, sums, sums, inputs, weights, maps, maps, maps}, shift,
              [&](auto& r, const fishnet::Workers& workers) {
    fishnet::norm_act_convolve(c, x.data(), norm, k.data(), r[0]->data(), r[1]->data(), r[2]->data(), least, workers);
    fishnet::norm_act_convolve_gradient(c, dy.data(), moments, x.data(), norm, k.data(), r[3]->data(), r[4]->data(),
                                        sums_at(r, 5), least, workers);
  });
  try_results("norm_add_act", {inputs, inputs, inputs, inputs, inputs, maps, maps, maps, maps, maps, maps}, shift,
              [&](auto& r, const fishnet::Workers&) {
    for (int64_t n = 0; n < c.n; n++) {
      const int64_t at = n * c.input(), pixels = c.h * c.w;
      const fishnet::Norm of = norm.of(n, c.ci);
      fishnet::norm_add_act(x.data() + at, nullptr, pixels, c.ci, of, r[0]->data() + at);
      fishnet::norm_add_act(x.data() + at, added.data() + at, pixels, c.ci, of, r[1]->data() + at);
      fishnet::norm_act_gradient(x.data() + at, d.data() + at, pixels, c.ci, of, r[2]->data() + at,
                                 sums_at(r, 5).of(n, c.ci));
      fishnet::norm_add_act_gradient(x.data() + at, added.data() + at, d.data() + at, pixels, c.ci, of,
                                     r[3]->data() + at, r[4]->data() + at, sums_at(r, 8).of(n, c.ci));
    }
  });
  if (c.h < 2 || c.w < 2) return;
  try_results("norm_act_pool", {pooled, inputs, maps, maps, maps}, shift, [&](auto& r, const fishnet::Workers&) {
    for (int64_t n = 0; n < c.n; n++) {
      const int64_t at = n * c.input(), to = n * (c.h / 2) * (c.w / 2) * c.ci;
      const fishnet::Norm of = norm.of(n, c.ci);
      fishnet::norm_act_pool(x.data() + at, c.h, c.w, c.ci, of, r[0]->data() + to);
      fishnet::norm_act_pool_gradient(x.data() + at, d_pooled.data() + to, c.h, c.w, c.ci, of, r[1]->data() + at,
                                      sums_at(r, 2).of(n, c.ci));
    }
  });
}

#endif

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

// Help that fails: what a part throws reaches the caller, after all parts have ended.
void try_helpers() {
  Helpers helpers;
  std::atomic<int64_t> ended{0};
  try {
    fishnet::each_part(helpers.workers(), 9, 0, [&](int64_t part) {
      ended++;
      if (part == 4) throw std::string("four");
    });
    expect("four", "");
  } catch (const std::string& problem) {
    expect("four", problem);
  }
  expect("9", std::to_string(ended));
}

}  // namespace

int main() {
  try_checks();
  try_helpers();
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
#ifdef BLOCKS
          if (turn % 3) continue;
          const int64_t block = turn / 3;  // any batch, activation and alignment with any pair of channels
          Convolution fused = dense, depthwise_fused = depthwise;
          fused.n = depthwise_fused.n = 1 + block % 3;
          const auto activation = static_cast<int32_t>(block % fishnet::ACTIVATIONS);
          try_blocks(fused, activation, winograd, block % 5 % 2), tried++;
          try_blocks(depthwise_fused, activation, 0, block % 5 % 2), tried++;
#endif
        }
  for (auto [ci, co] : channels)  // every pair of channels by Winograd, over several strips of tiles
    for (int64_t h : {9, 20})
      try_case({2, h, 21, ci, 3, 3, co, h, 21, 1, 1, 1, 1, 1, 1, false}, 1, co % 2), tried++;
  for (int64_t n : {8, 16, 33})  // batches whose kernel gradients are summed in parts
    for (int64_t least : {0, 1}) {
      try_case({n, 6, 5, 17, 3, 3, 20, 6, 5, 1, 1, 1, 1, 1, 1, false}, least, false), tried++;
#ifdef BLOCKS
      try_blocks({n, 6, 5, 17, 3, 3, 20, 6, 5, 1, 1, 1, 1, 1, 1, false}, 3, least, false), tried++;
      try_blocks({n, 6, 5, 17, 3, 3, 17, 3, 3, 2, 2, 1, 1, 1, 1, true}, 1, 0, false), tried++;
#endif
    }
  std::printf("%ld cases, hash %016lx\n", long(tried), static_cast<unsigned long>(hash));
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}
