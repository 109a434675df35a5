// SPDX-License-Identifier: Apache-2.0
// Vectors of AVX-512 (F, DQ, BW, VL): 32 registers of 64 bytes; a mask register makes a partial vector as cheap as a
// whole one. Like tile.h it is compiled in each file that includes it, in an anonymous namespace.
#pragma once

#include <immintrin.h>

#include "../element.h"

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
    static void stream(float *p, Register a) { _mm512_stream_ps(p, a); }
    static void hold(Register &a) { asm("" : "+v"(a)); }

    // Where an intrinsic would begin with a register that it does not set, of which compilers warn, there are masks of
    // all lanes or operators instead.
    static Register load(const Half *p) { return load(p, kAll); }
    static Register load(const Half *p, First n) { return _mm512_maskz_cvtph_ps(kAll, _mm256_maskz_loadu_epi16(n, p)); }
    static void store(Half *p, Register a) { store(p, a, kAll); }
    static void store(Half *p, Register a, First n) { _mm256_mask_storeu_epi16(p, n, halves(a)); }
    static Register load(const Bfloat *p) { return load(p, kAll); }
    static Register load(const Bfloat *p, First n) {
        const auto halves = reinterpret_cast<Halves>(_mm256_maskz_loadu_epi16(n, p));
        return reinterpret_cast<Register>(__builtin_convertvector(halves, Bits) << 16);
    }
    static void store(Bfloat *p, Register a) { store(p, a, kAll); }
    static void store(Bfloat *p, Register a, First n) { _mm256_mask_storeu_epi16(p, n, bfloats(a)); }
    static void stream(Half *p, Register a) { _mm256_stream_si256(reinterpret_cast<__m256i *>(p), halves(a)); }
    static void stream(Bfloat *p, Register a) { _mm256_stream_si256(reinterpret_cast<__m256i *>(p), bfloats(a)); }

  private:
    static constexpr First kAll = 0xffff;
    using Bits [[gnu::vector_size(64)]] = std::uint32_t;
    using Halves [[gnu::vector_size(32)]] = std::uint16_t;

    static __m256i halves(Register a) {
        return _mm512_maskz_cvtps_ph(kAll, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    /// As `narrow` does it: vcvtneps2bf16 takes subnormal numbers for zero.
    static __m256i bfloats(Register a) {
#if defined(__AVX512BF16__)
        constexpr int kSubnormal = 0x20;
        if (_mm512_fpclass_ps_mask(a, kSubnormal) == 0) [[likely]]
            return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a));
#endif
        const auto bits = reinterpret_cast<Bits>(a);
        const Bits rounded = bits + 0x7fff + (bits >> 16 & 1);
        const Bits high = (a == a ? rounded : bits | 0x400000) >> 16;
        return reinterpret_cast<__m256i>(__builtin_convertvector(high, Halves));
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
    static void stream(double *p, Register a) { _mm512_stream_pd(p, a); }
    static void hold(Register &a) { asm("" : "+v"(a)); }
};

} // namespace
} // namespace backstride
