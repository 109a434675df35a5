// SPDX-License-Identifier: Apache-2.0
// NEON of aarch64: 32 registers of 16 bytes. There are no masks: a partial vector is read and written by halves.
#include <arm_neon.h>

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
    static void hold(Register &a) { asm("" : "+w"(a)); }

  private:
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
#include "kernels.inc"

double fma_burst_neon(Index steps) { return burst<Chain>(steps); }

} // namespace backstride
