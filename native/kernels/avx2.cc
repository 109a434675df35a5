// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C: 16 registers of 32 bytes; masks are vectors, loaded from a window that slides over a table.
#include <immintrin.h>

#include "combine.h"
#include "moves.h"
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
    static void stream(float *p, Register a) { _mm256_stream_ps(p, a); }
    static void hold(Register &a) { asm("" : "+x"(a)); }

    static Register load(const Half *p) { return _mm256_cvtph_ps(halves(p, kWidth)); }
    static Register load(const Half *p, First n) { return _mm256_cvtph_ps(halves(p, n)); }
    static Register load(const Bfloat *p) { return load(p, kWidth); }
    static Register load(const Bfloat *p, First n) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves(p, n)), 16));
    }
    static void store(Half *p, Register a) { store(p, a, kWidth); }
    static void store(Half *p, Register a, First n) {
        const __m128i all = _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        __builtin_memcpy(p, &all, static_cast<std::size_t>(n) * sizeof *p);
    }
    static void store(Bfloat *p, Register a) { store(p, a, kWidth); }
    static void store(Bfloat *p, Register a, First n) {
        const __m256i bits = _mm256_castps_si256(a);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
        const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
        const __m128i all = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
        __builtin_memcpy(p, &all, static_cast<std::size_t>(n) * sizeof *p);
    }

  private:
    static __m128i halves(const void *p, First n) {
        __m128i a{};
        __builtin_memcpy(&a, p, static_cast<std::size_t>(n) * 2);
        return a;
    }
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
    static void stream(double *p, Register a) { _mm256_stream_pd(p, a); }
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
#define MOVE_avx512(...)
#define MOVE_avx2(...) DEFINE_MOVE(avx2, __VA_ARGS__)
#define MOVE_amx(...)
#define MOVE_portable(...)
#include "kernels.inc"

double fma_burst_avx2(Index steps) { return burst<Vector<float>>(steps); }

} // namespace backstride
