// SPDX-License-Identifier: Apache-2.0
// AVX-512 (F, DQ, BW, VL): 32 registers of 64 bytes; a mask register makes a partial vector as cheap as a whole one.
#include <immintrin.h>

#include "combine.h"
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
#define COMBINE_avx512(...) DEFINE_COMBINE(avx512, __VA_ARGS__)
#define COMBINE_avx2(...)
#define COMBINE_portable(...)
#include "kernels.inc"

double fma_burst_avx512(Index steps) { return burst<Vector<float>>(steps); }

} // namespace backstride
