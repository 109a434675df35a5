// SPDX-License-Identifier: Apache-2.0
// The micro-kernel for few columns, where pixels take the lanes; see Stripe. Like tile.h, which it builds on, it is
// compiled once for each instruction set, all of it in an anonymous namespace.
#pragma once

#include <utility>

#include "tile.h"

namespace backstride {
namespace {

/// Streams x Vectors accumulators.
template <class V, int Streams, int Vectors> struct Lanes {
    using T = typename V::Scalar;
    using Register = typename V::Register;
    using Sums = Register[Streams][Vectors];

    static void sum(const Stripe<T> &stripe) {
        Sums sums{};
        if (stripe.continued)
#pragma GCC unroll 16
            for (int n = 0; n < Streams; ++n)
#pragma GCC unroll 8
                for (int v = 0; v < Vectors; ++v)
                    sums[n][v] = V::load(stripe.c[n] + v * V::kWidth);
        for (Index s = 0; s < stripe.count; ++s) {
            const T *a = stripe.a + stripe.segments[s].a;
            const T *b = stripe.b + stripe.segments[s].b;
            const Index whole = stripe.last == Streams ? stripe.taps : stripe.taps - 1;
            if (whole > 0)
                b = add<Streams, true>(sums, a, stripe.a_step, b, stripe.depth);
            for (Index t = 1; t < whole; ++t)
                b = add<Streams>(sums, a - t, stripe.a_step, b, stripe.depth);
            if (whole < stripe.taps)
                add_last<Streams - 1>(sums, a - whole, stripe.a_step, b, stripe.depth, stripe.last);
        }
#pragma GCC unroll 16
        for (int n = 0; n < Streams; ++n)
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v)
                V::store(stripe.c[n] + v * V::kWidth, V::add(Register{}, sums[n][v]));
    }

  private:
    static constexpr Index kAhead = 16; // channels

    /// One tap: the first `Used` streams have it. Returns where the next tap's weights are. The first tap also fetches
    /// pixels of channels to come from the second-level cache.
    template <int Used, bool Fetch = false>
    [[gnu::always_inline]] static inline const T *add(Sums &sums, const T *a, Index a_step, const T *b, Index depth) {
        for (Index k = 0; k < depth; ++k) {
            Register pixels[Vectors];
#pragma GCC unroll 8
            for (int v = 0; v < Vectors; ++v) {
                pixels[v] = V::load(a + v * V::kWidth);
                V::hold(pixels[v]); // else it may be loaded anew for each stream, and most loads cross cache lines
            }
            if constexpr (Fetch)
#pragma GCC unroll 8
                for (int v = 0; v < Vectors; ++v)
                    __builtin_prefetch(a + kAhead * a_step + v * V::kWidth);
#pragma GCC unroll 16
            for (int n = 0; n < Used; ++n) {
                const Register weight = V::broadcast(b + n);
#pragma GCC unroll 8
                for (int v = 0; v < Vectors; ++v)
                    sums[n][v] = V::fma(weight, pixels[v], sums[n][v]);
            }
            a += a_step;
            b += Used;
        }
        return b;
    }

    template <int Used>
    [[gnu::always_inline]] static inline void add_last(Sums &sums, const T *a, Index a_step, const T *b, Index depth,
                                                       int used) {
        if constexpr (Used > 0) {
            if (used < Used)
                add_last<Used - 1>(sums, a, a_step, b, depth, used);
            else
                add<Used>(sums, a, a_step, b, depth);
        }
    }
};

/// As many vectors as leave a register for the weight, when the accumulators and the pixels have theirs.
template <class V> constexpr int most_vectors(int streams) {
    const int fit = (V::kRegisters - 1) / (streams + 1);
    return fit < 1 ? 1 : fit < kMostVectors ? fit : kMostVectors;
}

template <class V, int Streams, int Vectors>
constexpr void add_vectors(StripeFunctions<typename V::Scalar> &functions) {
    if constexpr (Vectors > 0) {
        functions.sum[Streams][Vectors] = Lanes<V, Streams, Vectors>::sum;
        add_vectors<V, Streams, Vectors - 1>(functions);
    }
}

template <class V, int... Streams>
constexpr void add_streams(StripeFunctions<typename V::Scalar> &functions, std::integer_sequence<int, Streams...>) {
    ((functions.vectors[Streams + 1] = most_vectors<V>(Streams + 1),
      add_vectors<V, Streams + 1, most_vectors<V>(Streams + 1)>(functions)),
     ...);
}

template <class V> constexpr StripeFunctions<typename V::Scalar> all_streams() {
    StripeFunctions<typename V::Scalar> functions{};
    functions.width = V::kWidth;
    add_streams<V>(functions, std::make_integer_sequence<int, kMostStreams>{});
    return functions;
}

} // namespace
} // namespace backstride

#define STRIPE(isa, ...) STRIPE_##isa(__VA_ARGS__)
#define DEFINE_STRIPE(isa, T, type) constinit const StripeFunctions<T> type##_stripe_##isa = all_streams<Vector<T>>();
