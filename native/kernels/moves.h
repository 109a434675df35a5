// SPDX-License-Identifier: Apache-2.0
// Matrices of elements to matrices of sums and back; see Moves. Like tile.h it is compiled once for each instruction
// set, all of it in an anonymous namespace.
//
// Besides what tile.h asks of it, Vector<float> loads from and stores to Half and Bfloat, whole vectors and first
// lanes, as `widen` and `narrow` do it. Those are for the portable kernels: compiled for another instruction set, they
// could end up in code that runs on any.
#pragma once

#include <utility>

#include "kernel.h"

namespace backstride {
namespace {

/// to[r * to_row + c] = from[r * from_row + c]
template <class V, class From, class To>
void move_rows(const From *from, Index from_row, Index rows, Index columns, To *to, Index to_row) {
    if (from_row == columns && to_row == columns) {
        columns *= rows;
        rows = 1;
    }
    const Index whole = columns / V::kWidth * V::kWidth;
    const typename V::First rest = V::first(static_cast<int>(columns - whole));
    for (Index r = 0; r < rows; ++r, from += from_row, to += to_row) {
#pragma GCC unroll 4
        for (Index c = 0; c < whole; c += V::kWidth)
            V::store(to + c, V::load(from + c));
        if (whole < columns)
            V::store(to + whole, V::load(from + whole, rest), rest);
    }
}

/// to[c * to_row + r] = from[r * from_row + c] for a square of as many rows and columns as a vector has lanes, or for
/// its first rows and columns. Each step exchanges blocks of half the size between pairs of rows.
template <class V, bool Partial, class S, int... Lane>
[[gnu::always_inline]] inline void transpose_square(const S *from, Index from_row, int rows, int columns,
                                                    typename V::Scalar *to, Index to_row,
                                                    std::integer_sequence<int, Lane...>) {
    using Integer = std::conditional_t<sizeof(typename V::Scalar) == 8, std::int64_t, std::int32_t>;
    using Mask [[gnu::vector_size(sizeof(typename V::Register))]] = Integer;
    typename V::Register row[V::kWidth]{};
#pragma GCC unroll 16
    for (int r = 0; r < V::kWidth; ++r)
        if constexpr (!Partial) {
            row[r] = V::load(from + r * from_row);
            __builtin_prefetch(from +
                               (r + V::kWidth) * from_row); // of the next square, in an order no hardware expects
        } else if (r < rows)
            row[r] = V::load(from + r * from_row, V::first(columns));
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
    for (int c = 0; c < V::kWidth; ++c)
        if constexpr (!Partial)
            V::store(to + c * to_row, row[c]);
        else if (c < columns)
            V::store(to + c * to_row, row[c], V::first(rows));
}

/// The same for any matrix.
template <class V, class S>
void transpose(const S *from, Index from_row, Index rows, Index columns, typename V::Scalar *to, Index to_row) {
    constexpr std::make_integer_sequence<int, V::kWidth> kLanes;
    for (Index r = 0; r < rows; r += V::kWidth)
        for (Index c = 0; c < columns; c += V::kWidth) {
            const S *corner = from + r * from_row + c;
            typename V::Scalar *goal = to + c * to_row + r;
            const int height = static_cast<int>(rows - r < V::kWidth ? rows - r : V::kWidth);
            const int width = static_cast<int>(columns - c < V::kWidth ? columns - c : V::kWidth);
            if (height < V::kWidth || width < V::kWidth)
                transpose_square<V, true>(corner, from_row, height, width, goal, to_row, kLanes);
            else
                transpose_square<V, false>(corner, from_row, height, width, goal, to_row, kLanes);
        }
}

template <class V, class S> constexpr Moves<S> all_moves() {
    using T = typename V::Scalar;
    return {move_rows<V, S, T>, transpose<V, S>, move_rows<V, T, S>};
}

} // namespace
} // namespace backstride

#define MOVE(isa, ...) MOVE_##isa(__VA_ARGS__)
#define DEFINE_MOVE(isa, S, name) constinit const Moves<S> name##_moves_##isa = all_moves<Vector<Sum<S>::type>, S>();
