// SPDX-License-Identifier: Apache-2.0
// What is done to sums before they are rounded; see Activation. Like tile.h, which includes it, it is compiled once for
// each instruction set, all of it in an anonymous namespace.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernel.h"

namespace backstride {
namespace {

template <class T, int Lanes> struct Packet {
    using type [[gnu::vector_size(Lanes * sizeof(T))]] = T;
};

/// Functions of vectors of doubles, to about 1e-15. Float32 is computed in them too: rounded once it is all but exact,
/// and a wide vector costs less than a second set of coefficients.
template <class V> struct Real {
    using D = typename V::Register;
    using Bits [[gnu::vector_size(sizeof(D))]] = std::int64_t;
    static D all(double value) { return V::broadcast(&value); }

    /// c[0] + c[1] * x + c[2] * x^2 ...
    template <int Count> static D polynomial(D x, const double (&c)[Count]) {
        D sum = all(c[Count - 1]);
#pragma GCC unroll 32
        for (int k = Count - 2; k >= 0; --k)
            sum = V::fma(sum, x, all(c[k]));
        return sum;
    }

    static D abs(D x) { return x < 0.0 ? -x : x; }

    /// exp(x) = scale * (1 + rest) for x <= 0. With n the integer next to x / log(2), scale is 2^n and rest is
    /// exp(x - n * log(2)) - 1, from Taylor's series.
    static void split(D x, D &scale, D &rest) {
        constexpr double kInteger = 0x1.8p52; // added to a number, it rounds it and leaves it in the low bits
        // The high part has so few bits that its products with n are exact.
        constexpr double kLog2High = 0x1.62e42feep-1, kLog2Low = 0x1.a39ef35793c76p-33;
        constexpr double kSeries[] = {1. / 2,        1. / 6,         1. / 24,        1. / 120,
                                      1. / 720,      1. / 5040,      1. / 40320,     1. / 362880,
                                      1. / 3628800., 1. / 39916800., 1. / 479001600, 1. / 6227020800.};
        x = x < -746.0 ? all(-746) : x; // exp of which is 0
        const D shifted = V::fma(x, all(0x1.71547652b82fep0), all(kInteger));
        const D n = shifted - kInteger;
        const D r = V::fma(n, all(-kLog2Low), V::fma(n, all(-kLog2High), x));
        rest = V::fma(r * r, polynomial(r, kSeries), r);
        // In two steps, since 2^n may be subnormal.
        const Bits exponent = reinterpret_cast<Bits>(shifted) - reinterpret_cast<Bits>(all(kInteger)) + (1023 + 64);
        scale = reinterpret_cast<D>(exponent << 52) * 0x1p-64;
    }

    static D exp(D x) {
        D scale, rest;
        split(x, scale, rest);
        return V::fma(scale, rest, scale);
    }

    static D expm1(D x) {
        D scale, rest;
        split(x, scale, rest);
        return V::fma(scale, rest, scale - 1.0);
    }

    /// P(N < -x) for a standard normal N and x >= 0: half of erfc(z), z = x / sqrt(2). The polynomial is exp(z^2) *
    /// erfc(z) * (1 + 2 * z) interpolated at the Chebyshev nodes of q = (z - 4) / (z + 4), within 5e-16.
    static D normal_tail(D x) {
        constexpr double kSeries[] = {
            1.2329951186255526,      -0.1396211168405625,     0.015379652102610162,    0.0680970542546862,
            -0.10103906603585294,    0.09373283499865172,     -0.06633036582050367,    0.0371675155318432,
            -0.01619773397992426,    0.005031970032548695,    -0.0007577737141838885,  -0.00019925700412184815,
            0.0001506231178516207,   -2.439811794207995e-05,  -1.1225140354449658e-05, 5.707239573693257e-06,
            2.980596055322769e-07,   -8.218020654813044e-07,  7.111912428010423e-08,   1.0683442926744586e-07,
            -1.6357383982124768e-08, -1.2544825403855517e-08, 1.5712153638319064e-09,  9.65540822548286e-10};
        x = x > 64.0 ? all(64) : x; // the tail of which is 0
        const D z = x * 0x1.6a09e667f3bcdp-1;
        return exp(x * x * -0.5) * polynomial((z - 4.0) / (z + 4.0), kSeries) / (2.0 + 4.0 * z);
    }

    /// sin(x)^2, whose period is pi; 0 for arguments of which no bit says where in a period they are.
    static D squared_sine(D x) {
        constexpr double kInteger = 0x1.8p52;
        constexpr double kSeries[] = {1.,
                                      -1. / 6,
                                      1. / 120,
                                      -1. / 5040,
                                      1. / 362880,
                                      -1. / 39916800,
                                      1. / 6227020800,
                                      -1. / 1307674368000,
                                      1. / 355687428096000,
                                      -1. / 121645100408832000,
                                      1. / 51090942171709440000.};
        x = abs(x) < 0x1p50 ? x : all(0);
        const D n = V::fma(x, all(0x1.45f306dc9c883p-2), all(kInteger)) - kInteger;
        const D r = V::fma(n, all(-0x1.1a62633145c07p-53), V::fma(n, all(-0x1.921fb54442d18p1), x));
        const D sine = r * polynomial(r * r, kSeries);
        return sine * sine;
    }
};

struct None {
    template <class R> static R of(R x, double) { return x; }
};
struct Relu {
    template <class R> static R of(R x, double) { return x < R{} ? R{} : x; }
};
template <class T> struct IntegerRelu {
    template <class R> static R of(R x, double sign) { return (x & static_cast<T>(sign)) != R{} ? R{} : x; }
};
template <class T> struct LeakyRelu {
    template <class R> static R of(R x, double slope) { return x < R{} ? x * static_cast<T>(slope) : x; }
};

template <class V> struct Elu : Real<V> {
    using D = typename V::Register;
    static D of(D x, double alpha) { return x > 0.0 ? x : alpha * Elu::expm1(x); }
};
template <class V> struct Gelu : Real<V> {
    using D = typename V::Register;
    static D of(D x, double) {
        const D tail = Gelu::normal_tail(Gelu::abs(x));
        return x * (x < 0.0 ? tail : 1.0 - tail);
    }
};
template <class V> struct Sigmoid : Real<V> {
    using D = typename V::Register;
    static D of(D x, double) {
        const D power = Sigmoid::exp(-Sigmoid::abs(x));
        return (x < 0.0 ? power : Sigmoid::all(1)) / (1.0 + power);
    }
};
template <class V> struct Tanh : Real<V> {
    using D = typename V::Register;
    static D of(D x, double) {
        const D power = Tanh::expm1(-2.0 * Tanh::abs(x)), positive = -power / (power + 2.0);
        return x < 0.0 ? -positive : positive;
    }
};
template <class V> struct Snake : Real<V> {
    using D = typename V::Register;
    static D of(D x, double alpha) { return x + Snake::squared_sine(x * alpha) / alpha; }
};

/// The first `count` lanes of a vector.
template <class R, class T> R read(const T *from, Index count) {
    R value{};
    if (count * Index{sizeof(T)} == Index{sizeof value})
        __builtin_memcpy(&value, from, sizeof value);
    else
        __builtin_memcpy(&value, from, static_cast<std::size_t>(count) * sizeof(T));
    return value;
}

template <class R, class T> void write(T *to, R value, Index count) {
    if (count * Index{sizeof(T)} == Index{sizeof value})
        __builtin_memcpy(to, &value, sizeof value);
    else
        __builtin_memcpy(to, &value, static_cast<std::size_t>(count) * sizeof(T));
}

/// Function is of any vectors, or of vectors of as many doubles.
template <class T, int Lanes, class Function> void apply(const Sums<T> &sums) {
    using R = typename Packet<T, Lanes>::type;
    for (Index row = 0; row < sums.rows; ++row) {
        T *c = sums.c + row * sums.c_row;
        const T *bias = sums.bias + row * sums.bias_row;
        for (Index i = 0; i < sums.columns; i += Lanes) {
            const Index count = sums.columns - i < Lanes ? sums.columns - i : Lanes;
            R x = read<R>(c + i, count);
            x += sums.bias_column ? read<R>(bias + i, count) : *bias - R{};
            if constexpr (requires { typename Function::D; })
                x = __builtin_convertvector(
                    Function::of(__builtin_convertvector(x, typename Function::D), sums.parameter), R);
            else
                x = Function::of(x, sums.parameter);
            write(c + i, x, count);
        }
    }
}

/// V is of the type of the sums, Doubles of doubles.
template <class V, class Doubles> constexpr void add_epilogues(Functions<typename V::Scalar> &functions) {
    using T = typename V::Scalar;
    const auto add = [&](Activation activation, auto function) {
        functions.epilogue[static_cast<int>(activation)] = function;
    };
    add(Activation::none, apply<T, V::kWidth, None>);
    if constexpr (std::is_integral_v<T>) {
        add(Activation::relu, apply<T, V::kWidth, IntegerRelu<T>>);
    } else {
        add(Activation::relu, apply<T, V::kWidth, Relu>);
        add(Activation::leaky_relu, apply<T, V::kWidth, LeakyRelu<T>>);
        add(Activation::elu, apply<T, Doubles::kWidth, Elu<Doubles>>);
        add(Activation::gelu, apply<T, Doubles::kWidth, Gelu<Doubles>>);
        add(Activation::sigmoid, apply<T, Doubles::kWidth, Sigmoid<Doubles>>);
        add(Activation::tanh, apply<T, Doubles::kWidth, Tanh<Doubles>>);
        add(Activation::snake, apply<T, Doubles::kWidth, Snake<Doubles>>);
    }
}

} // namespace
} // namespace backstride
