// SPDX-License-Identifier: Apache-2.0
// The micro-kernel, once for all instruction sets. A kernel file defines its vectors and includes this; all of it
// is in an anonymous namespace, since a template shared by two files would be merged and the wrong code could win.
//
// A vector type V has: Scalar, Register, kWidth; zero(), broadcast(const Scalar*), load(const Scalar*),
// load(const Scalar*, n), store(Scalar*, Register), store(Scalar*, Register, n), fma(a, b, sum) and add(a, b).
#pragma once

#include "kernel.h"

namespace backstride {
namespace {

/// Register blocking: Rows x Vectors accumulators. Partial says that the vectors hold fewer columns than fit.
template <class V, int Rows, int Vectors, bool Partial> struct Block {
    using T = typename V::Scalar;
    using Register = typename V::Register;

    /// How many columns vector v of a row holds.
    static int lanes(int columns, int v) {
        const int n = columns - v * V::kWidth;
        return n < 0 ? 0 : n < V::kWidth ? n : V::kWidth;
    }

    static Register load(const T *row, int v, int columns) {
        if constexpr (Partial)
            return V::load(row + v * V::kWidth, lanes(columns, v));
        else
            return V::load(row + v * V::kWidth);
    }

    static void store(T *row, int v, int columns, Register value) {
        if constexpr (Partial)
            V::store(row + v * V::kWidth, value, lanes(columns, v));
        else
            V::store(row + v * V::kWidth, value);
    }

    static void dense(const Tile<T> &tile) {
        Register sum[Rows][Vectors];
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v)
                sum[row][v] = V::zero();

        // Fourteen row pointers would not fit the registers: keep every third, and reach the two after it by
        // one and two times the stride, which an address can hold.
        const Index stride = tile.a_row * Index{sizeof(T)};
        for (Index s = 0; s < tile.count; ++s) {
            const char *a[(Rows + 2) / 3];
#pragma GCC unroll 16
            for (int i = 0; i < (Rows + 2) / 3; ++i)
                a[i] = reinterpret_cast<const char *>(tile.a + tile.segments[s].a) + 3 * i * stride;
            const T *b = tile.b + tile.segments[s].b * tile.b_segment;
            for (Index k = 0; k < tile.depth; ++k) {
                Register vector[Vectors];
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v)
                    vector[v] = load(b, v, tile.columns);
#pragma GCC unroll 16
                for (int row = 0; row < Rows; ++row) {
                    const Register value = V::broadcast(reinterpret_cast<const T *>(a[row / 3] + row % 3 * stride));
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v)
                        sum[row][v] = V::fma(value, vector[v], sum[row][v]);
                }
#pragma GCC unroll 16
                for (int i = 0; i < (Rows + 2) / 3; ++i)
                    a[i] += sizeof(T);
                b += tile.b_step;
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v)
                store(tile.c + row * tile.c_row, v, tile.columns, sum[row][v]);
    }

    static void outer(const Tile<T> &tile) {
        Register sum[Rows][Vectors];
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v)
                sum[row][v] = V::zero();

        for (Index s = 0; s < tile.count; ++s) {
            const T *a = tile.a + tile.segments[s].a;
            const T *b = tile.b + tile.segments[s].b * tile.b_segment;
            for (Index k = 0; k < tile.depth; ++k) {
                Register vector[Vectors];
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v)
                    vector[v] = load(b, v, tile.columns);
#pragma GCC unroll 16
                for (int row = 0; row < Rows; ++row) {
                    const Register value = V::broadcast(a + row);
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v)
                        sum[row][v] = V::fma(value, vector[v], sum[row][v]);
                }
                a += tile.a_step;
                b += tile.b_step;
            }
        }
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                T *c = tile.c + row * tile.c_row;
                store(c, v, tile.columns, V::add(load(c, v, tile.columns), sum[row][v]));
            }
    }
};

template <class V, int Rows, int Vectors> constexpr void add_rows(Functions<typename V::Scalar> &functions) {
    if constexpr (Rows > 0) {
        functions.dense[false][Rows] = Block<V, Rows, Vectors, false>::dense;
        functions.dense[true][Rows] = Block<V, Rows, Vectors, true>::dense;
        functions.outer[false][Rows] = Block<V, Rows, Vectors, false>::outer;
        functions.outer[true][Rows] = Block<V, Rows, Vectors, true>::outer;
        add_rows<V, Rows - 1, Vectors>(functions);
    }
}

template <class V, int Rows, int Columns> constexpr Functions<typename V::Scalar> all_rows() {
    static_assert(Rows <= kMostRows && Rows * Columns <= kMostTileElements && Columns % V::kWidth == 0);
    Functions<typename V::Scalar> functions{};
    add_rows<V, Rows, Columns / V::kWidth>(functions);
    return functions;
}

template <class V> double burst(Index steps) {
    // Two units of four cycles' latency need eight chains to be busy. The chains start from values that the compiler
    // does not know, else it would see that all are equal and keep one. The loop is 12 vfmadd213 and a counter.
    constexpr int kChains = 12;
    volatile float starts[kChains] = {};
    const float half = 0.5f;
    const typename V::Register a = V::broadcast(&half);
    typename V::Register sum[kChains];
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
        const float start = starts[i];
        sum[i] = V::broadcast(&start);
    }
    for (Index step = 0; step < steps; ++step)
#pragma GCC unroll 16
        for (int i = 0; i < kChains; ++i)
            sum[i] = V::fma(sum[i], a, a);
    for (int i = 1; i < kChains; ++i)
        sum[0] = V::add(sum[0], sum[i]);
    float lanes[V::kWidth];
    V::store(lanes, sum[0]);
    // The lanes are equal, which the compiler does not know either: the difference keeps the loop and adds nothing.
    return 2.0 * kChains * V::kWidth * static_cast<double>(steps) + static_cast<double>(lanes[1] - lanes[0]);
}

} // namespace
} // namespace backstride

// The kernel files read the table with KERNEL_<their own instruction set> defined as this, the others as nothing.
#define KERNEL(isa, ...) KERNEL_##isa(__VA_ARGS__)
#define DEFINE_KERNEL(isa, T, type, rows, columns)                                                                     \
    constinit const Functions<T> type##_##rows##x##columns##_##isa = all_rows<Vector<T>, rows, columns>();
