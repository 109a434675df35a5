// SPDX-License-Identifier: Apache-2.0
// Element types: what arrays hold, and what sums are kept in.
#pragma once

#include <bit>
#include <cstdint>

namespace backstride {

using Index = std::int64_t;

/// Storage types. Signed integers arrive as unsigned ones: wrapping arithmetic has the same bits.
enum class Element { float16, bfloat16, float32, float64, uint8, uint16, uint32, uint64 };

struct Half {
    std::uint16_t bits;
};
struct Bfloat {
    std::uint16_t bits;
};

/// The type in which sums of S are kept; the kernels exist for these four only.
template <class S> struct Sum {
    using type = S;
};
template <> struct Sum<Half> {
    using type = float;
};
template <> struct Sum<Bfloat> {
    using type = float;
};
template <> struct Sum<std::uint8_t> {
    using type = std::uint32_t;
};
template <> struct Sum<std::uint16_t> {
    using type = std::uint32_t;
};

/// Calls body with a value of the storage type that `element` names.
template <class Body> decltype(auto) visit(Element element, Body &&body) {
    switch (element) {
    case Element::float16: return body(Half{});
    case Element::bfloat16: return body(Bfloat{});
    case Element::float32: return body(float{});
    case Element::float64: return body(double{});
    case Element::uint8: return body(std::uint8_t{});
    case Element::uint16: return body(std::uint16_t{});
    case Element::uint32: return body(std::uint32_t{});
    case Element::uint64: break;
    }
    return body(std::uint64_t{});
}

inline Index size_of(Element element) {
    return visit(element, [](auto value) { return Index{sizeof(value)}; });
}

template <class S> S widen(S value) { return value; }
inline std::uint32_t widen(std::uint8_t value) { return value; }
inline std::uint32_t widen(std::uint16_t value) { return value; }
inline float widen(Bfloat value) { return std::bit_cast<float>(std::uint32_t{value.bits} << 16); }
inline float widen(Half value) {
    const std::uint32_t sign = std::uint32_t{value.bits & 0x8000u} << 16;
    const std::uint32_t rest = std::uint32_t{value.bits & 0x7fffu} << 13;
    if (rest >= 0x7c00u << 13) // Inf and NaN: the exponent becomes all ones, the payload stays
        return std::bit_cast<float>(sign | rest | 0x7f800000u);
    // Read as a float, `rest` is too small by 2^(127 - 15); the product is exact, subnormals included.
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest) * 0x1p112f));
}

/// Rounds to nearest, ties to even; integers keep their low bits.
template <class S> S narrow(typename Sum<S>::type value) { return static_cast<S>(value); }
template <> inline Bfloat narrow<Bfloat>(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (value != value)
        return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
    return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
template <> inline Half narrow<Half>(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = bits >> 16 & 0x8000u;
    const std::uint32_t size = bits & 0x7fffffffu;
    std::uint32_t half;
    if (size > 0x7f800000u)
        half = 0x7e00u | (size >> 13 & 0x3ffu);
    else if (size >= 0x477ff000u) // 65520 and above round to infinity
        half = 0x7c00u;
    else if (size < 0x38800000u) // below 2^-14: adding 0.5 lets the hardware round at subnormal spacing, 2^-24
        half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(size) + 0.5f) - 0x3f000000u;
    else
        half = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    return {static_cast<std::uint16_t>(sign | half)};
}

} // namespace backstride

/// DO(T) for the types that sums have.
#define BACKSTRIDE_EACH_SUM(DO) DO(float) DO(double) DO(std::uint32_t) DO(std::uint64_t)
