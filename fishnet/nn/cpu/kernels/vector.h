// Vectors of floats, of the width that the processor has, and memory for them.
//
// Channels are vectorized: lane i of a vector belongs to channel i, so that no sum ever runs across the lanes and its
// order is the same whatever the width. Every product is added by a fused multiply-add, asked for by name (and nothing
// else is contracted: -ffp-contract=off), so that all builds round alike.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#else
#error "needs AVX-512, AVX2 with FMA, or NEON of 64-bit ARM"
#endif

#define INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

namespace fishnet {

#if defined(__AVX512F__)
constexpr int VL = 16;                  // floats a vector
constexpr int PIXELS_1 = 16, PIXELS_2 = 12;  // of a tile with one and two vectors of channels: they fill the registers
constexpr int ROWS_1 = 16, ROWS_2 = 8;       // of a tile of a kernel's gradient
#elif defined(__AVX2__)
constexpr int VL = 8, PIXELS_1 = 8, PIXELS_2 = 6, ROWS_1 = 8, ROWS_2 = 4;
#else
constexpr int VL = 4, PIXELS_1 = 16, PIXELS_2 = 10, ROWS_1 = 16, ROWS_2 = 8;
#endif
constexpr int BLOCK = 16;  // channels that lie together in scratch memory: the widest vector, a cache line

typedef float Vector __attribute__((vector_size(VL * 4), aligned(4), may_alias));

INLINE Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
INLINE void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
INLINE Vector splat(float a) { return a - Vector{}; }

// a * b + c, rounded once.
INLINE Vector fma(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return (Vector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}

constexpr int64_t blocks_of(int64_t channels) { return (channels + BLOCK - 1) / BLOCK; }
constexpr int64_t padded(int64_t channels) { return blocks_of(channels) * BLOCK; }

// Memory that a thread keeps between calls, so that no call waits for the system's pages. One array a slot.
enum Slot { INPUT, OUTPUT, KERNEL, SUMS, TRANSFORMED_KERNEL, TILES, PRODUCTS, EDGE, ACTIVATED, SPREAD, SLOTS };

class Scratch {
 public:
  // At least `count` floats, aligned to a cache line; what is in them is undefined. Throws std::bad_alloc.
  float* get(Slot slot, int64_t count) {
    Array& a = arrays_[slot];
    if (a.count < count) {
      ::operator delete[](a.data, std::align_val_t(64));
      a = {};
      a.data = static_cast<float*>(::operator new[](sizeof(float) * static_cast<size_t>(count), std::align_val_t(64)));
      a.count = count;
    }
    return a.data;
  }
  ~Scratch() {
    for (Array& a : arrays_) ::operator delete[](a.data, std::align_val_t(64));
  }

 private:
  struct Array {
    float* data = nullptr;
    int64_t count = 0;
  };
  Array arrays_[SLOTS];
};

inline float* scratch(Slot slot, int64_t count) {
  static thread_local Scratch arrays;
  return arrays.get(slot, count);
}

}  // namespace fishnet
