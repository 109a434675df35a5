// SPDX-License-Identifier: Apache-2.0
// The transforms of Winograd's algorithm, once for all instruction sets; see Combine. Like tile.h, which it builds on,
// all of it is in an anonymous namespace.
#pragma once

#include "tile.h"

namespace backstride {
namespace {

/// A matrix, known to the compiler, so that multiplications by 0, 1 and -1 cost nothing.
template <int Rows, int Columns> struct Matrix {
    static constexpr int kRows = Rows, kColumns = Columns;
    double at[Rows][Columns];
};

/// Where the polynomials are evaluated: at these of the first n - 1 numbers, and at infinity. With 1/2 and -2 instead
/// of the usual 2 and -2, F(4, 3) has two thirds of the rounding error.
constexpr double kNumbers[] = {0, 1, -1, 0.5, -2};

/// The product of x - a over the first `count` numbers but `without`, by ascending powers of x, in a row.
template <int N> constexpr void expand(double (&row)[N], int count, int without) {
    row[0] = 1;
    for (int i = 0; i < count; ++i)
        if (i != without)
            for (int power = N - 1; power >= 0; --power)
                row[power] = (power ? row[power - 1] : 0) - kNumbers[i] * row[power];
}

/// B transposed: n source cells to n points.
template <int N> constexpr Matrix<N, N> source_matrix() {
    Matrix<N, N> matrix{};
    for (int i = 0; i < N; ++i)
        expand(matrix.at[i], N - 1, i);
    return matrix;
}

/// G: the taps of a filter to n points.
template <int N, int Taps> constexpr Matrix<N, Taps> filter_matrix() {
    Matrix<N, Taps> matrix{};
    for (int i = 0; i < N - 1; ++i) {
        double value = 1;
        for (int j = 0; j < N - 1; ++j)
            value /= j == i ? 1 : kNumbers[i] - kNumbers[j];
        for (int tap = 0; tap < Taps; ++tap, value *= kNumbers[i])
            matrix.at[i][tap] = value;
    }
    matrix.at[N - 1][Taps - 1] = 1;
    return matrix;
}

/// A transposed: n points to n - taps + 1 cells of the result.
template <int N, int Taps> constexpr Matrix<N - Taps + 1, N> target_matrix() {
    Matrix<N - Taps + 1, N> matrix{};
    for (int i = 0; i < N - 1; ++i) {
        double power = 1;
        for (int cell = 0; cell <= N - Taps; ++cell, power *= kNumbers[i])
            matrix.at[cell][i] = power;
    }
    matrix.at[N - Taps][N - 1] = 1;
    return matrix;
}

template <int N> struct SourceMatrix {
    static constexpr auto value = source_matrix<N>();
};
template <int N, int Taps> struct FilterMatrix {
    static constexpr auto value = filter_matrix<N, Taps>();
};
template <int N, int Taps> struct TargetMatrix {
    static constexpr auto value = target_matrix<N, Taps>();
};

template <class M> struct Transposed {
    static constexpr auto value = [] {
        Matrix<M::value.kColumns, M::value.kRows> matrix{};
        for (int row = 0; row < M::value.kRows; ++row)
            for (int column = 0; column < M::value.kColumns; ++column)
                matrix.at[column][row] = M::value.at[row][column];
        return matrix;
    }();
};

/// Down the columns by one matrix, along the rows by another.
template <class V, class Down, class Along> struct Combination {
    using T = typename V::Scalar;
    using Register = typename V::Register;
    static constexpr int kInRows = Down::value.kColumns, kInColumns = Along::value.kColumns;
    static constexpr int kOutRows = Down::value.kRows, kOutColumns = Along::value.kRows;

    static bool apply(const Combine<T> &combine) {
        Register check{};
        const typename V::First all = V::first(V::kWidth);
        Index i = 0;
        if (combine.streaming)
            for (; i + V::kWidth <= combine.count; i += V::kWidth)
                step<false, true>(combine, i, all, check);
        for (; i + V::kWidth <= combine.count; i += V::kWidth)
            step<false, false>(combine, i, all, check);
        if (i < combine.count)
            step<true, false>(combine, i, V::first(static_cast<int>(combine.count - i)), check);
        T lanes[V::kWidth];
        V::store(lanes, check);
        bool finite = true;
        for (int lane = 0; lane < V::kWidth; ++lane)
            finite = finite && lanes[lane] == 0;
        return finite;
    }

  private:
    template <bool Partial, bool Streaming>
    [[gnu::always_inline]] static inline void step(const Combine<T> &combine, Index at, typename V::First lanes,
                                                   Register &check) {
        Register middle[kOutRows][kInColumns];
#pragma GCC unroll 8
        for (int column = 0; column < kInColumns; ++column) {
            Register in[kInRows];
#pragma GCC unroll 8
            for (int row = 0; row < kInRows; ++row)
                in[row] = load<V, Partial>(combine.in[row * kInColumns + column] + at, lanes);
            Register out[kOutRows];
            multiply<Down>(in, out);
#pragma GCC unroll 8
            for (int row = 0; row < kOutRows; ++row)
                middle[row][column] = out[row];
        }
        const T zero = 0;
#pragma GCC unroll 8
        for (int row = 0; row < kOutRows; ++row) {
            Register out[kOutColumns];
            multiply<Along>(middle[row], out);
#pragma GCC unroll 8
            for (int column = 0; column < kOutColumns; ++column) {
                check = V::fma(out[column], V::broadcast(&zero), check); // NaN if it is not finite
                T *const to = combine.out[row * kOutColumns + column] + at;
                if (!Partial && Streaming)
                    V::stream(to, out[column]);
                else
                    store<V, Partial>(to, out[column], lanes);
            }
        }
    }

    template <class M>
    [[gnu::always_inline]] static inline void multiply(const Register (&in)[M::value.kColumns],
                                                       Register (&out)[M::value.kRows]) {
        multiply_rows<M>(in, out, std::make_integer_sequence<int, M::value.kRows>{});
    }

    template <class M, int... Row>
    [[gnu::always_inline]] static inline void multiply_rows(const Register (&in)[M::value.kColumns],
                                                            Register (&out)[M::value.kRows],
                                                            std::integer_sequence<int, Row...>) {
        ((out[Row] = sum<M, Row, 0, false>(in, Register{})), ...);
    }

    /// The sum from `Column` on; `so_far` is only read if it is `Begun`.
    template <class M, int Row, int Column, bool Begun>
    [[gnu::always_inline]] static inline Register sum(const Register (&in)[M::value.kColumns], Register so_far) {
        if constexpr (Column == M::value.kColumns)
            return so_far;
        else {
            constexpr double kFactor = M::value.at[Row][Column];
            if constexpr (kFactor == 0)
                return sum<M, Row, Column + 1, Begun>(in, so_far);
            else if constexpr (kFactor == 1)
                return sum<M, Row, Column + 1, true>(in, Begun ? so_far + in[Column] : in[Column]);
            else if constexpr (kFactor == -1)
                return sum<M, Row, Column + 1, true>(in, so_far - in[Column]);
            else {
                const T factor = static_cast<T>(kFactor);
                return sum<M, Row, Column + 1, true>(in, V::fma(V::broadcast(&factor), in[Column], so_far));
            }
        }
    }
};

template <class V, int Down, int Along> constexpr void add_forms(CombineFunctions<typename V::Scalar> &functions) {
    constexpr int kDown = kForms[Down].points, kAlong = kForms[Along].points;
    if constexpr (kDown == kAlong || kDown == 1 || kAlong == 1) {
        constexpr int kDownTaps = kForms[Down].taps, kAlongTaps = kForms[Along].taps;
        using DownFilter = FilterMatrix<kDown, kDownTaps>;
        using AlongFilter = FilterMatrix<kAlong, kAlongTaps>;
        using DownTarget = TargetMatrix<kDown, kDownTaps>;
        using AlongTarget = TargetMatrix<kAlong, kAlongTaps>;
        functions.source[Down][Along] = Combination<V, SourceMatrix<kDown>, SourceMatrix<kAlong>>::apply;
        functions.filter[Down][Along] = Combination<V, DownFilter, AlongFilter>::apply;
        functions.target[Down][Along] = Combination<V, DownTarget, AlongTarget>::apply;
        functions.cells[Down][Along] = Combination<V, Transposed<DownTarget>, Transposed<AlongTarget>>::apply;
        functions.taps[Down][Along] = Combination<V, Transposed<DownFilter>, Transposed<AlongFilter>>::apply;
    }
}

template <class V, int... Pair>
constexpr CombineFunctions<typename V::Scalar> all_forms(std::integer_sequence<int, Pair...>) {
    CombineFunctions<typename V::Scalar> functions{};
    (add_forms<V, Pair / kFormCount, Pair % kFormCount>(functions), ...);
    return functions;
}

} // namespace
} // namespace backstride

#define COMBINE(isa, ...) COMBINE_##isa(__VA_ARGS__)
#define DEFINE_COMBINE(isa, T, type)                                                                                   \
    constinit const CombineFunctions<T> type##_combine_##isa =                                                         \
        all_forms<Vector<T>>(std::make_integer_sequence<int, kFormCount * kFormCount>{});
