// SPDX-License-Identifier: Apache-2.0
// AVX-512 (F, DQ, BW, VL): 32 registers of 64 bytes; a mask register makes a partial vector as cheap as a whole one.
#include <immintrin.h>

#include "moves.h"
#include "stripe.h"

namespace backstride {
namespace {

template <class T> struct Vector;

template <> struct Vector<float> {
    using Scalar = float;
    using Register = __m512;
    static constexpr int kWidth = 16;
    static constexpr int kRegisters = 32;
    using First = __mmask16;
    static First first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
    static Register broadcast(const float *p) { return _mm512_set1_ps(*p); }
    static Register load(const float *p) { return _mm512_loadu_ps(p); }
    static Register load(const float *p, First n) { return _mm512_maskz_loadu_ps(n, p); }
    static void store(float *p, Register a) { _mm512_storeu_ps(p, a); }
    static void store(float *p, Register a, First n) { _mm512_mask_storeu_ps(p, n, a); }
    static Register fma(Register a, Register b, Register sum) { return _mm512_fmadd_ps(a, b, sum); }
    static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
    static void hold(Register &a) { asm("" : "+v"(a)); }

    static Register load(const Half *p) { return _mm512_cvtph_ps(halves(p)); }
    static Register load(const Half *p, First n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(n, p)); }
    static Register load(const Bfloat *p) { return widen(halves(p)); }
    static Register load(const Bfloat *p, First n) { return widen(_mm256_maskz_loadu_epi16(n, p)); }
    static void store(Half *p, Register a) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), half(a)); }
    static void store(Half *p, Register a, First n) { _mm256_mask_storeu_epi16(p, n, half(a)); }
    static void store(Bfloat *p, Register a) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), bfloat(a)); }
    static void store(Bfloat *p, Register a, First n) { _mm256_mask_storeu_epi16(p, n, bfloat(a)); }

  private:
    static __m256i halves(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
    static Register widen(__m256i a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16)); }
    static __m256i half(Register a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    /// As `narrow` does it: vcvtneps2bf16 would take subnormal numbers for zero.
    static __m256i bfloat(Register a) {
        const __m512i bits = _mm512_castps_si512(a);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
        const __m512i all = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
        return _mm512_cvtepi32_epi16(_mm512_srli_epi32(all, 16));
    }
};

template <> struct Vector<double> {
    using Scalar = double;
    using Register = __m512d;
    static constexpr int kWidth = 8;
    static constexpr int kRegisters = 32;
    using First = __mmask8;
    static First first(int n) { return static_cast<__mmask8>((1u << n) - 1); }
    static Register broadcast(const double *p) { return _mm512_set1_pd(*p); }
    static Register load(const double *p) { return _mm512_loadu_pd(p); }
    static Register load(const double *p, First n) { return _mm512_maskz_loadu_pd(n, p); }
    static void store(double *p, Register a) { _mm512_storeu_pd(p, a); }
    static void store(double *p, Register a, First n) { _mm512_mask_storeu_pd(p, n, a); }
    static Register fma(Register a, Register b, Register sum) { return _mm512_fmadd_pd(a, b, sum); }
    static Register add(Register a, Register b) { return _mm512_add_pd(a, b); }
    static void hold(Register &a) { asm("" : "+v"(a)); }
};

} // namespace

#define KERNEL_avx512(...) DEFINE_KERNEL(avx512, __VA_ARGS__)
#define KERNEL_avx2(...)
#define KERNEL_portable(...)
#define STRIPE_avx512(...) DEFINE_STRIPE(avx512, __VA_ARGS__)
#define STRIPE_avx2(...)
#define STRIPE_portable(...)
#define MOVE_avx512(...) DEFINE_MOVE(avx512, __VA_ARGS__)
#define MOVE_avx2(...)
#define MOVE_portable(...)
#include "kernels.inc"

double fma_burst_avx512(Index steps) { return burst<Vector<float>>(steps); }

} // namespace backstride
