// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA: 16 registers of 32 bytes; masks are vectors, loaded from a window that slides over a table.
#include <immintrin.h>

#include "combine.h"
#include "stripe.h"

namespace backstride {
namespace {

alignas(64) constexpr std::int32_t kMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) constexpr std::int64_t kLongMasks[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

template <class T> struct Vector;

template <> struct Vector<float> {
    using Scalar = float;
    using Register = __m256;
    static constexpr int kWidth = 8;
    static constexpr int kRegisters = 16;
    using First = int; // masks would take registers that the sums need
    static First first(int n) { return n; }
    static __m256i mask(First n) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(kMasks + 8 - n)); }
    static Register broadcast(const float *p) { return _mm256_broadcast_ss(p); }
    static Register load(const float *p) { return _mm256_loadu_ps(p); }
    static Register load(const float *p, First n) { return _mm256_maskload_ps(p, mask(n)); }
    static void store(float *p, Register a) { _mm256_storeu_ps(p, a); }
    static void store(float *p, Register a, First n) { _mm256_maskstore_ps(p, mask(n), a); }
    static Register fma(Register a, Register b, Register sum) { return _mm256_fmadd_ps(a, b, sum); }
    static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
    static void hold(Register &a) { asm("" : "+x"(a)); }
};

template <> struct Vector<double> {
    using Scalar = double;
    using Register = __m256d;
    static constexpr int kWidth = 4;
    static constexpr int kRegisters = 16;
    using First = int; // masks would take registers that the sums need
    static First first(int n) { return n; }
    static __m256i mask(First n) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(kLongMasks + 4 - n)); }
    static Register broadcast(const double *p) { return _mm256_broadcast_sd(p); }
    static Register load(const double *p) { return _mm256_loadu_pd(p); }
    static Register load(const double *p, First n) { return _mm256_maskload_pd(p, mask(n)); }
    static void store(double *p, Register a) { _mm256_storeu_pd(p, a); }
    static void store(double *p, Register a, First n) { _mm256_maskstore_pd(p, mask(n), a); }
    static Register fma(Register a, Register b, Register sum) { return _mm256_fmadd_pd(a, b, sum); }
    static Register add(Register a, Register b) { return _mm256_add_pd(a, b); }
    static void hold(Register &a) { asm("" : "+x"(a)); }
};

} // namespace

#define KERNEL_avx512(...)
#define KERNEL_avx2(...) DEFINE_KERNEL(avx2, __VA_ARGS__)
#define KERNEL_portable(...)
#define STRIPE_avx512(...)
#define STRIPE_avx2(...) DEFINE_STRIPE(avx2, __VA_ARGS__)
#define STRIPE_portable(...)
#define COMBINE_avx512(...)
#define COMBINE_avx2(...) DEFINE_COMBINE(avx2, __VA_ARGS__)
#define COMBINE_portable(...)
#include "kernels.inc"

double fma_burst_avx2(Index steps) { return burst<Vector<float>>(steps); }

} // namespace backstride
