// SPDX-License-Identifier: Apache-2.0
// Any machine: vectors of 16 bytes in the compiler's own notation, which it maps to SSE2, NEON or plain registers.
// Products are rounded before they are added, since not every such machine can fuse.
#include <cstring>

#include "combine.h"
#include "moves.h"
#include "stripe.h"

namespace backstride {
namespace {

template <class T> struct Vector {
    using Scalar = T;
    using Register [[gnu::vector_size(16)]] = T;
    static constexpr int kWidth = 16 / sizeof(T);
    static constexpr int kRegisters = 16;
    using First = int;
    static First first(int n) { return n; }
    static Register broadcast(const T *p) { return *p - Register{}; }
    static Register load(const T *p) { return load(p, kWidth); }
    static Register load(const T *p, First n) {
        Register a{};
        std::memcpy(&a, p, static_cast<std::size_t>(n) * sizeof(T));
        return a;
    }
    static void store(T *p, Register a) { store(p, a, kWidth); }
    static void store(T *p, Register a, First n) { std::memcpy(p, &a, static_cast<std::size_t>(n) * sizeof(T)); }
    static Register fma(Register a, Register b, Register sum) { return a * b + sum; }
    static Register add(Register a, Register b) { return a + b; }
    static void stream(T *p, Register a) { store(p, a); }
    static void hold(Register &) {}

    template <class S> static Register load(const S *p) { return load(p, kWidth); }
    template <class S> static Register load(const S *p, First n) {
        Register a{};
        for (int i = 0; i < n; ++i)
            a[i] = widen(p[i]);
        return a;
    }
    template <class S> static void store(S *p, Register a) { store(p, a, kWidth); }
    template <class S> static void store(S *p, Register a, First n) {
        for (int i = 0; i < n; ++i)
            p[i] = narrow<S>(a[i]);
    }
};

} // namespace

#define KERNEL_avx512(...)
#define KERNEL_avx2(...)
#define KERNEL_neon(...)
#define KERNEL_portable(...) DEFINE_KERNEL(portable, __VA_ARGS__)
#define STRIPE_avx512(...)
#define STRIPE_avx2(...)
#define STRIPE_neon(...)
#define STRIPE_portable(...) DEFINE_STRIPE(portable, __VA_ARGS__)
#define COMBINE_avx512(...)
#define COMBINE_avx2(...)
#define COMBINE_neon(...)
#define COMBINE_portable(...) DEFINE_COMBINE(portable, __VA_ARGS__)
#define MOVE_avx512(...)
#define MOVE_amx(...)
#define MOVE_avx2(...)
#define MOVE_neon(...)
#define MOVE_portable(...) DEFINE_MOVE(portable, __VA_ARGS__)
#include "kernels.inc"

double fma_burst_portable(Index steps) { return burst<Vector<float>>(steps); }

} // namespace backstride
