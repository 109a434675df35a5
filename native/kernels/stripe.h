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
        for (Index s = 0; s < stripe.count; ++s) {
            const T *a = stripe.a + stripe.segments[s].a;
            const T *b = stripe.b + stripe.segments[s].b * stripe.b_segment;
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
                V::store(stripe.c + n * stripe.c_row + v * V::kWidth, V::add(Register{}, sums[n][v]));
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

/// to[c * to_row + r] = from[r * from_row + c] for a square of as many rows and columns as a vector has lanes. Each
/// step exchanges blocks of half the size between pairs of rows.
template <class V, int... Lane>
[[gnu::always_inline]] inline void transpose_square(const typename V::Scalar *from, Index from_row,
                                                    typename V::Scalar *to, Index to_row,
                                                    std::integer_sequence<int, Lane...>) {
    using Integer = std::conditional_t<sizeof(typename V::Scalar) == 8, std::int64_t, std::int32_t>;
    using Mask [[gnu::vector_size(sizeof(typename V::Register))]] = Integer;
    typename V::Register row[V::kWidth];
#pragma GCC unroll 16
    for (int r = 0; r < V::kWidth; ++r) {
        row[r] = V::load(from + r * from_row);
        __builtin_prefetch(from + (r + V::kWidth) * from_row); // of the next square, in an order no hardware expects
    }
    const auto exchange = [&]<int Half>(std::integral_constant<int, Half>) {
        constexpr int kWidth = V::kWidth;
        const Mask low = {(Lane & Half ? kWidth + Lane - Half : Lane)...};
        const Mask high = {(Lane & Half ? kWidth + Lane : Lane + Half)...};
#pragma GCC unroll 16
        for (int r = 0; r < kWidth; ++r)
            if (!(r & Half)) {
                const auto a = row[r], b = row[r + Half];
                row[r] = __builtin_shuffle(a, b, low);
                row[r + Half] = __builtin_shuffle(a, b, high);
            }
    };
    if constexpr (V::kWidth > 8)
        exchange(std::integral_constant<int, 8>{});
    if constexpr (V::kWidth > 4)
        exchange(std::integral_constant<int, 4>{});
    if constexpr (V::kWidth > 2)
        exchange(std::integral_constant<int, 2>{});
    exchange(std::integral_constant<int, 1>{});
#pragma GCC unroll 16
    for (int r = 0; r < V::kWidth; ++r)
        V::store(to + r * to_row, row[r]);
}

/// The same for any matrix.
template <class V>
void transpose(const typename V::Scalar *from, Index from_row, Index rows, Index columns, typename V::Scalar *to,
               Index to_row) {
    constexpr Index kWidth = V::kWidth;
    const Index whole_rows = rows / kWidth * kWidth, whole_columns = columns / kWidth * kWidth;
    for (Index r = 0; r < whole_rows; r += kWidth)
        for (Index c = 0; c < whole_columns; c += kWidth)
            transpose_square<V>(from + r * from_row + c, from_row, to + c * to_row + r, to_row,
                                std::make_integer_sequence<int, V::kWidth>{});
    for (Index r = 0; r < rows; ++r)
        for (Index c = r < whole_rows ? whole_columns : 0; c < columns; ++c)
            to[c * to_row + r] = from[r * from_row + c];
}

template <class V> constexpr StripeFunctions<typename V::Scalar> all_streams() {
    StripeFunctions<typename V::Scalar> functions{};
    functions.width = V::kWidth;
    functions.transpose = transpose<V>;
    add_streams<V>(functions, std::make_integer_sequence<int, kMostStreams>{});
    return functions;
}

} // namespace
} // namespace backstride

#define STRIPE(isa, ...) STRIPE_##isa(__VA_ARGS__)
#define DEFINE_STRIPE(isa, T, type) constinit const StripeFunctions<T> type##_stripe_##isa = all_streams<Vector<T>>();
