// SPDX-License-Identifier: Apache-2.0
// The micro-kernel, once for all instruction sets. A kernel file defines its vectors and includes this; all of it
// is in an anonymous namespace, since a template shared by two files would be merged and the wrong code could win.
//
// A vector type V has: Scalar, Register, kWidth and kRegisters, how many the processor has;
// broadcast(const Scalar*); load(const Scalar*) and
// store(Scalar*, Register), both also with a last argument of type First that limits them to the first lanes;
// first(n), the First of n lanes; fma(a, b, sum) and add(a, b);
// hold(a), which makes the compiler keep `a` in its register; stream(Scalar*, Register), which stores a whole, aligned
// vector around the caches, if that can be done; other threads may read it once the work that did is over.
#pragma once

#include "epilogue.h"
#include "kernel.h"

namespace backstride {
namespace {

/// A column of A whose rows are apart and whose next column is the next element. Fourteen row pointers would not fit
/// the registers: it keeps every third and reaches the two after it by one and two strides, which an address can hold.
template <class T, int Rows> class RowsApart {
  public:
    RowsApart(const Tile<T> &tile, const T *first) : stride_(tile.a_row * Index{sizeof(T)}) {
#pragma GCC unroll 16
        for (int i = 0; i < kPointers; ++i)
            rows_[i] = reinterpret_cast<const char *>(first) + 3 * i * stride_;
    }
    const T *operator[](int row) const { return reinterpret_cast<const T *>(rows_[row / 3] + row % 3 * stride_); }
    void advance() {
#pragma GCC unroll 16
        for (int i = 0; i < kPointers; ++i)
            rows_[i] += sizeof(T);
    }

  private:
    static constexpr int kPointers = (Rows + 2) / 3;
    const Index stride_;
    const char *rows_[kPointers];
};

/// A column of A whose rows are neighbours.
template <class T, int Rows> class RowsTogether {
  public:
    RowsTogether(const Tile<T> &tile, const T *first) : step_(tile.a_step), first_(first) {}
    const T *operator[](int row) const { return first_ + row; }
    void advance() { first_ += step_; }

  private:
    const Index step_;
    const T *first_;
};

inline int between(int n, int least, int most) { return n < least ? least : n > most ? most : n; }

/// A vector of which, where it is `Partial`, only the first lanes are touched.
template <class V, bool Partial> typename V::Register load(const typename V::Scalar *p, typename V::First lanes) {
    if constexpr (Partial)
        return V::load(p, lanes);
    else
        return V::load(p);
}

template <class V, bool Partial>
void store(typename V::Scalar *p, typename V::Register value, typename V::First lanes) {
    if constexpr (Partial)
        V::store(p, value, lanes);
    else
        V::store(p, value);
}

/// The tile with Rows x Vectors accumulators. Partial: the vectors hold fewer columns than fit; Add: C is added to.
template <class V, int Rows, int Vectors, bool Partial, class Column, bool Add> struct Block {
    using T = typename V::Scalar;
    using Register = typename V::Register;

    static void multiply(const Tile<T> &tile) {
        typename V::First lanes[Vectors];
        for (int v = 0; v < Vectors; ++v)
            lanes[v] = V::first(between(tile.columns - v * V::kWidth, 0, V::kWidth));

        // Lines that are to be written are fetched while the sums are made: a store waits for its line.
        if constexpr (!Add)
            if (!tile.streaming)
#pragma GCC unroll 16
                for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v)
                        __builtin_prefetch(tile.c + row * tile.c_row + v * V::kWidth, 1);

        Register sum[Rows][Vectors]{};
        if constexpr (!Add)
            if (tile.continued)
#pragma GCC unroll 16
                for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v)
                        sum[row][v] = load<V, Partial>(tile.c + row * tile.c_row + v * V::kWidth, lanes[v]);
        for (Index s = 0; s < tile.count; ++s)
            for (Index t = 0; t < tile.taps; ++t) {
                Column a(tile, tile.a + tile.segments[s].a + t * tile.a_tap);
                const T *b = tile.b + tile.segments[s].b * tile.b_segment + t * tile.b_tap, *next = b + tile.ahead;
                for (Index k = 0; k < tile.depth; ++k) {
                    Register vector[Vectors];
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v)
                        vector[v] = load<V, Partial>(b + v * V::kWidth, lanes[v]);
                    if constexpr (!Add) {
                        __builtin_prefetch(next, 0, 2);
                        next += tile.ahead_step;
                    }
#pragma GCC unroll 16
                    for (int row = 0; row < Rows; ++row) {
                        const Register value = V::broadcast(a[row]);
#pragma GCC unroll 4
                        for (int v = 0; v < Vectors; ++v)
                            sum[row][v] = V::fma(value, vector[v], sum[row][v]);
                    }
                    a.advance();
                    b += tile.b_step;
                }
            }
        if constexpr (!Add && !Partial)
            if (tile.streaming) {
#pragma GCC unroll 16
                for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v)
                        V::stream(tile.c + row * tile.c_row + v * V::kWidth, V::add(Register{}, sum[row][v]));
                return;
            }
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v) {
                T *c = tile.c + row * tile.c_row + v * V::kWidth;
                // Adding +0 makes that of a sum that underflowed to -0, as zeros beyond the edges do in lanes.
                const Register before = Add ? load<V, Partial>(c, lanes[v]) : Register{};
                store<V, Partial>(c, V::add(before, sum[row][v]), lanes[v]);
            }
    }
};

/// The tile whose columns are channels, each with a filter of its own.
template <class V, int Rows, int Vectors, bool Partial> struct Channels {
    using T = typename V::Scalar;
    using Register = typename V::Register;

    static void multiply(const Tile<T> &tile) {
        typename V::First lanes[Vectors];
        for (int v = 0; v < Vectors; ++v)
            lanes[v] = V::first(between(tile.columns - v * V::kWidth, 0, V::kWidth));

        Register sum[Rows][Vectors]{};
        for (Index s = 0; s < tile.count; ++s)
            for (Index t = 0; t < tile.taps; ++t) {
                const T *a = tile.a + tile.segments[s].a + t * tile.a_tap;
                const T *b = tile.b + tile.segments[s].b * tile.b_segment + t * tile.b_tap;
                Register weight[Vectors];
#pragma GCC unroll 4
                for (int v = 0; v < Vectors; ++v)
                    weight[v] = load<V, Partial>(b + v * V::kWidth, lanes[v]);
#pragma GCC unroll 16
                for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
                    for (int v = 0; v < Vectors; ++v)
                        sum[row][v] = V::fma(load<V, Partial>(a + row * tile.a_row + v * V::kWidth, lanes[v]),
                                             weight[v], sum[row][v]);
            }
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row)
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v)
                store<V, Partial>(tile.c + row * tile.c_row + v * V::kWidth, V::add(Register{}, sum[row][v]), lanes[v]);
    }
};

/// The same for sums over pixels.
template <class V, int Vectors, bool Partial> void sum_channels(const Tile<typename V::Scalar> &tile) {
    typename V::First lanes[Vectors];
    for (int v = 0; v < Vectors; ++v)
        lanes[v] = V::first(between(tile.columns - v * V::kWidth, 0, V::kWidth));

    typename V::Register sum[Vectors]{};
    for (Index s = 0; s < tile.count; ++s) {
        const auto *a = tile.a + tile.segments[s].a;
        const auto *b = tile.b + tile.segments[s].b * tile.b_segment;
        for (Index k = 0; k < tile.depth; ++k)
#pragma GCC unroll 4
            for (int v = 0; v < Vectors; ++v)
                sum[v] = V::fma(load<V, Partial>(a + k * tile.a_step + v * V::kWidth, lanes[v]),
                                load<V, Partial>(b + k * tile.b_step + v * V::kWidth, lanes[v]), sum[v]);
    }
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
        auto *c = tile.c + v * V::kWidth;
        store<V, Partial>(c, V::add(load<V, Partial>(c, lanes[v]), sum[v]), lanes[v]);
    }
}

template <class V, int Rows, int Vectors> constexpr void add_rows(Functions<typename V::Scalar> &functions) {
    using T = typename V::Scalar;
    if constexpr (Rows > 0) {
        functions.dense[false][Rows] = Block<V, Rows, Vectors, false, RowsApart<T, Rows>, false>::multiply;
        functions.dense[true][Rows] = Block<V, Rows, Vectors, true, RowsApart<T, Rows>, false>::multiply;
        functions.channelwise[false][Rows] = Channels<V, Rows, Vectors, false>::multiply;
        functions.channelwise[true][Rows] = Channels<V, Rows, Vectors, true>::multiply;
        functions.outer[false][Rows] = Block<V, Rows, Vectors, false, RowsTogether<T, Rows>, true>::multiply;
        functions.outer[true][Rows] = Block<V, Rows, Vectors, true, RowsTogether<T, Rows>, true>::multiply;
        add_rows<V, Rows - 1, Vectors>(functions);
    }
}

template <class V, class Doubles, int Rows, int Columns> constexpr Functions<typename V::Scalar> all_rows() {
    static_assert(Rows <= kMostRows && Rows * Columns <= kMostTileElements && Columns % V::kWidth == 0);
    Functions<typename V::Scalar> functions{};
    add_rows<V, Rows, Columns / V::kWidth>(functions);
    add_epilogues<V, Doubles>(functions);
    functions.channel_sums[false] = sum_channels<V, Columns / V::kWidth, false>;
    functions.channel_sums[true] = sum_channels<V, Columns / V::kWidth, true>;
    return functions;
}

template <class V> double burst(Index steps) {
    // Two units of four cycles' latency need eight chains to be busy, four units 16. The chains start from values that
    // the compiler does not know, else it would see that all are equal and keep one. The loop is 12 or 24 fused
    // multiply-adds and a counter.
    constexpr int kChains = V::kRegisters * 3 / 4;
    volatile float starts[kChains] = {};
    const float half = 0.5f;
    const typename V::Register a = V::broadcast(&half);
    typename V::Register sum[kChains];
#pragma GCC unroll 32
    for (int i = 0; i < kChains; ++i) {
        const float start = starts[i];
        sum[i] = V::broadcast(&start);
    }
    for (Index step = 0; step < steps; ++step)
#pragma GCC unroll 32
        for (int i = 0; i < kChains; ++i)
            sum[i] = V::fma(sum[i], a, a);
#pragma GCC unroll 32
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
    constinit const Functions<T> type##_##rows##x##columns##_##isa =                                                   \
        all_rows<Vector<T>, Vector<double>, rows, columns>();
