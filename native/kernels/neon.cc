// SPDX-License-Identifier: Apache-2.0
// NEON of aarch64: 32 registers of 16 bytes. There are no masks: a partial vector is read and written by halves.
#include <arm_neon.h>

#include "combine.h"
#include "moves.h"
#include "stripe.h"

namespace backstride {
namespace {

template <class T> struct Vector;

template <> struct Vector<float> {
    using Scalar = float;
    using Register = float32x4_t;
    static constexpr int kWidth = 4;
    static constexpr int kRegisters = 32;
    using First = int;
    static First first(int n) { return n; }
    static Register broadcast(const float *p) { return vdupq_n_f32(*p); }
    static Register load(const float *p) { return vld1q_f32(p); }
    static Register load(const float *p, First n) {
        return n == kWidth ? vld1q_f32(p) : vcombine_f32(load_half(p, n), load_half(p + 2, n - 2));
    }
    static void store(float *p, Register a) { vst1q_f32(p, a); }
    static void store(float *p, Register a, First n) {
        store_half(p, vget_low_f32(a), n);
        store_half(p + 2, vget_high_f32(a), n - 2);
    }
    static Register fma(Register a, Register b, Register sum) { return vfmaq_f32(sum, a, b); }
    static Register add(Register a, Register b) { return vaddq_f32(a, b); }
    static void stream(float *p, Register a) { store(p, a); }
    static void hold(Register &a) { asm("" : "+w"(a)); }

    static Register load(const Half *p) { return load(p, kWidth); }
    static Register load(const Half *p, First n) { return vcvt_f32_f16(vreinterpret_f16_u16(halves(p, n))); }
    static Register load(const Bfloat *p) { return load(p, kWidth); }
    static Register load(const Bfloat *p, First n) { return vreinterpretq_f32_u32(vshll_n_u16(halves(p, n), 16)); }
    static void store(Half *p, Register a) { store(p, a, kWidth); }
    static void store(Half *p, Register a, First n) {
        const uint16x4_t all = vreinterpret_u16_f16(vcvt_f16_f32(a));
        __builtin_memcpy(p, &all, static_cast<std::size_t>(n) * sizeof *p);
    }
    static void store(Bfloat *p, Register a) { store(p, a, kWidth); }
    static void store(Bfloat *p, Register a, First n) {
        const uint32x4_t bits = vreinterpretq_u32_f32(a);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
        const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
        const uint16x4_t all = vshrn_n_u32(vbslq_u32(vceqq_f32(a, a), rounded, quiet), 16);
        __builtin_memcpy(p, &all, static_cast<std::size_t>(n) * sizeof *p);
    }

  private:
    static uint16x4_t halves(const void *p, First n) {
        uint16x4_t a{};
        __builtin_memcpy(&a, p, static_cast<std::size_t>(n) * 2);
        return a;
    }
    static float32x2_t load_half(const float *p, First n) {
        const float32x2_t none = vdup_n_f32(0);
        return n > 1 ? vld1_f32(p) : n == 1 ? vld1_lane_f32(p, none, 0) : none;
    }
    static void store_half(float *p, float32x2_t a, First n) {
        if (n > 1)
            vst1_f32(p, a);
        else if (n == 1)
            vst1_lane_f32(p, a, 0);
    }
};

template <> struct Vector<double> {
    using Scalar = double;
    using Register = float64x2_t;
    static constexpr int kWidth = 2;
    static constexpr int kRegisters = 32;
    using First = int;
    static First first(int n) { return n; }
    static Register broadcast(const double *p) { return vdupq_n_f64(*p); }
    static Register load(const double *p) { return vld1q_f64(p); }
    static Register load(const double *p, First n) {
        const Register none = vdupq_n_f64(0);
        return n > 1 ? vld1q_f64(p) : n == 1 ? vld1q_lane_f64(p, none, 0) : none;
    }
    static void store(double *p, Register a) { vst1q_f64(p, a); }
    static void store(double *p, Register a, First n) {
        if (n > 1)
            vst1q_f64(p, a);
        else if (n == 1)
            vst1q_lane_f64(p, a, 0);
    }
    static Register fma(Register a, Register b, Register sum) { return vfmaq_f64(sum, a, b); }
    static Register add(Register a, Register b) { return vaddq_f64(a, b); }
    static void stream(double *p, Register a) { store(p, a); }
    static void hold(Register &a) { asm("" : "+w"(a)); }
};

/// An instruction's sum is where its result goes, so a chain that runs through a factor would copy that each time.
struct Chain : Vector<float> {
    static Register fma(Register sum, Register a, Register b) { return Vector<float>::fma(a, b, sum); }
};

} // namespace

#define KERNEL_neon(...) DEFINE_KERNEL(neon, __VA_ARGS__)
#define KERNEL_portable(...)
#define STRIPE_neon(...) DEFINE_STRIPE(neon, __VA_ARGS__)
#define STRIPE_portable(...)
#define COMBINE_neon(...) DEFINE_COMBINE(neon, __VA_ARGS__)
#define COMBINE_portable(...)
#define MOVE_neon(...) DEFINE_MOVE(neon, __VA_ARGS__)
#define MOVE_portable(...)
#include "kernels.inc"

double fma_burst_neon(Index steps) { return burst<Chain>(steps); }

} // namespace backstride
