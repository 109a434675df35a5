// SPDX-License-Identifier: Apache-2.0
// Matrices of elements to matrices of sums and back; see Moves. Like tile.h it is compiled once for each instruction
// set, all of it in an anonymous namespace.
//
// Besides what tile.h asks of it, Vector<float> loads from and stores to Half and Bfloat, whole vectors and first
// lanes, as `widen` and `narrow` do it. Those are for the portable kernels: compiled for another instruction set, they
// could end up in code that runs on any.
#pragma once

#include <cstdint>
#include <utility>

#include "kernel.h"

namespace backstride {
namespace {

/// Whether rows from `to` on can be streamed, by vectors that are whole cache lines or halves of them in order.
template <class V, class To> bool can_stream([[maybe_unused]] const To *to, [[maybe_unused]] Index to_row) {
    if constexpr (requires(To *p, typename V::Register a) { V::stream(p, a); }) {
        constexpr Index kBytes = V::kWidth * Index{sizeof(To)};
        return reinterpret_cast<std::uintptr_t>(to) % kBytes == 0 && to_row * Index{sizeof(To)} % kBytes == 0;
    }
    return false;
}

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

/// The same, around the caches if it is to and can be.
template <class V, class From, class To>
void put_rows(const From *from, Index from_row, Index rows, Index columns, To *to, Index to_row, bool streaming) {
    if (!streaming || columns % V::kWidth != 0 || !can_stream<V>(to, to_row))
        return move_rows<V>(from, from_row, rows, columns, to, to_row);
    if constexpr (requires(typename V::Register a) { V::stream(to, a); })
        for (Index r = 0; r < rows; ++r, from += from_row, to += to_row)
            for (Index c = 0; c < columns; c += V::kWidth)
                V::stream(to + c, V::load(from + c));
}

/// to[c * to_row + r] = from[r * from_row + c] for a square of as many rows and columns as a vector has lanes, or for
/// its first rows and columns. Each step exchanges blocks of half the size between pairs of rows.
template <class V, bool Partial, bool Streaming, class S, int... Lane>
[[gnu::always_inline]] inline void transpose_square(const S *from, Index from_row, int rows, int columns,
                                                    typename V::Scalar *to, Index to_row,
                                                    std::integer_sequence<int, Lane...>) {
    using Integer = std::conditional_t<sizeof(typename V::Scalar) == 8, std::int64_t, std::int32_t>;
    using Mask [[gnu::vector_size(sizeof(typename V::Register))]] = Integer;
    typename V::Register row[V::kWidth]{};
#pragma GCC unroll 16
    for (int r = 0; r < V::kWidth; ++r)
        if constexpr (!Partial)
            row[r] = V::load(from + r * from_row);
        else if (r < rows)
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
        if constexpr (Streaming)
            V::stream(to + c * to_row, row[c]);
        else if constexpr (!Partial)
            V::store(to + c * to_row, row[c]);
        else if (c < columns)
            V::store(to + c * to_row, row[c], V::first(rows));
}

/// The same for any matrix.
template <class V, bool Streaming, class S>
void transpose_squares(const S *from, Index from_row, Index rows, Index columns, typename V::Scalar *to, Index to_row) {
    constexpr std::make_integer_sequence<int, V::kWidth> kLanes;
    for (Index r = 0; r < rows; r += V::kWidth)
        for (Index c = 0; c < columns; c += V::kWidth) {
            const S *corner = from + r * from_row + c;
            typename V::Scalar *goal = to + c * to_row + r;
            const int height = static_cast<int>(rows - r < V::kWidth ? rows - r : V::kWidth);
            const int width = static_cast<int>(columns - c < V::kWidth ? columns - c : V::kWidth);
            if (height < V::kWidth || width < V::kWidth)
                transpose_square<V, true, false>(corner, from_row, height, width, goal, to_row, kLanes);
            else
                transpose_square<V, false, Streaming>(corner, from_row, height, width, goal, to_row, kLanes);
        }
}

/// The same, around the caches if it is to and whole lines can be.
template <class V, class S>
void transpose(const S *from, Index from_row, Index rows, Index columns, typename V::Scalar *to, Index to_row,
               bool streaming) {
    if constexpr (V::kWidth * sizeof(typename V::Scalar) == 64) {
        const Index beyond =
            static_cast<Index>(reinterpret_cast<std::uintptr_t>(to) / sizeof(typename V::Scalar)) % V::kWidth;
        const Index head = beyond == 0 ? 0 : V::kWidth - beyond; // up to the first whole line
        if (streaming && head < rows && can_stream<V>(to + head, to_row)) {
            transpose_squares<V, false>(from, from_row, head, columns, to, to_row);
            return transpose_squares<V, true>(from + head * from_row, from_row, rows - head, columns, to + head,
                                              to_row);
        }
    }
    transpose_squares<V, false>(from, from_row, rows, columns, to, to_row);
}

template <class V, class S> constexpr Moves<S> all_moves() {
    using T = typename V::Scalar;
    return {move_rows<V, S, T>, transpose<V, S>, put_rows<V, T, S>};
}

} // namespace
} // namespace backstride

#define MOVE(isa, ...) MOVE_##isa(__VA_ARGS__)
#define DEFINE_MOVE(isa, S, name) constinit const Moves<S> name##_moves_##isa = all_moves<Vector<Sum<S>::type>, S>();
