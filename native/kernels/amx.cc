// SPDX-License-Identifier: Apache-2.0
// AMX (TILE, BF16): eight registers of 16 rows of 64 bytes. A product of two takes 16 cycles and makes 16 x 16 sums of
// 32 terms each, sixteen times the rate of the vector units: four of the registers are sums, so that each of the
// factors that are loaded takes part in two products.
#include "avx512.h"

#include "moves.h"

namespace backstride {
namespace {

// Registers, by number, as the instructions want them: sums of line and half, two lines of A, two halves of B.
#define SUM_00 0
#define SUM_01 1
#define SUM_10 2
#define SUM_11 3
#define A_0 4
#define A_1 5
#define B_0 6
#define B_1 7

/// What a register holds, as ldtilecfg reads it.
struct alignas(64) Palette {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {}; // of a row
    std::uint8_t rows[16] = {};
};

/// The intrinsics that read memory do not tell the compiler that they do, which might leave out what is written there.
inline void written(const void *data) { asm volatile("" : : "r"(data) : "memory"); }

void begin(int rows, Index chunk) {
    Palette palette;
    for (int i = 0; i < 8; ++i) {
        const bool a = i == A_0 || i == A_1, b = i == B_0 || i == B_1;
        palette.bytes[i] = static_cast<std::uint16_t>(a ? chunk * Index{sizeof(Bfloat)} : 64);
        palette.rows[i] = static_cast<std::uint8_t>(b ? chunk / 2 : rows);
    }
    written(&palette);
    _tile_loadconfig(&palette);
}

void end() { _tile_release(); }

/// Adds the products of a plane of A, in the registers, with one of B; loads what is `New`.
template <int Lines, int Halves, bool NewA, bool NewB>
[[gnu::always_inline]] inline void multiply_planes(const Bfloat *const (&a)[2], Index a_row, const Bfloat *b,
                                                   Index half) {
    constexpr Index kRow = 64;
    if constexpr (NewB)
        _tile_loadd(B_0, b, kRow);
    if constexpr (NewA)
        _tile_loadd(A_0, a[0], a_row);
    _tile_dpbf16ps(SUM_00, A_0, B_0);
    if constexpr (Halves == 2) {
        if constexpr (NewB)
            _tile_loadd(B_1, b + half, kRow);
        _tile_dpbf16ps(SUM_01, A_0, B_1);
    }
    if constexpr (Lines == 2) {
        if constexpr (NewA)
            _tile_loadd(A_1, a[1], a_row);
        _tile_dpbf16ps(SUM_10, A_1, B_0);
        if constexpr (Halves == 2)
            _tile_dpbf16ps(SUM_11, A_1, B_1);
    }
}

template <int Planes, bool Apart, int Lines, int Halves> void sum(const Pairs &pairs) {
    const Index c_row = pairs.c_row * Index{sizeof(float)};
    written(&pairs);
    if (pairs.continued) {
        _tile_loadd(SUM_00, pairs.c[0], c_row);
        if constexpr (Halves == 2)
            _tile_loadd(SUM_01, pairs.c[0] + kMatrixHalf, c_row);
        if constexpr (Lines == 2)
            _tile_loadd(SUM_10, pairs.c[1], c_row);
        if constexpr (Lines == 2 && Halves == 2)
            _tile_loadd(SUM_11, pairs.c[1] + kMatrixHalf, c_row);
    } else {
        _tile_zero(SUM_00);
        _tile_zero(SUM_01);
        _tile_zero(SUM_10);
        _tile_zero(SUM_11);
    }
    const Index a_row = pairs.a_row * Index{sizeof(Bfloat)}, a_plane = pairs.a_plane, a_chunk = pairs.a_chunk,
                chunk = pairs.chunk, half = chunk * 16;
    // Adds some products of all chunks: with `Least` those of planes that are not both the first, with `Largest` that.
    const auto add = [&]<bool Least, bool Largest>() {
        for (Index s = 0; s < pairs.count; ++s) {
            const Bfloat *a[2] = {pairs.a[0] + pairs.segments[s].a, pairs.a[Lines - 1] + pairs.segments[s].a};
            const Bfloat *b = pairs.b + pairs.segments[s].b * pairs.b_segment;
            for (Index c = 0; c < pairs.chunks; ++c) {
                if constexpr (Least) {
                    // The least products first; from each to the next one of the factors stays.
                    const Bfloat *const middle[2] = {a[0] + a_plane, a[1] + a_plane};
                    const Bfloat *const low[2] = {middle[0] + a_plane, middle[1] + a_plane};
                    const Bfloat *const b_middle = b + Halves * half, *const b_low = b_middle + Halves * half;
                    multiply_planes<Lines, Halves, true, true>(low, a_row, b, half);
                    multiply_planes<Lines, Halves, true, false>(middle, a_row, b, half);
                    multiply_planes<Lines, Halves, false, true>(middle, a_row, b_middle, half);
                    multiply_planes<Lines, Halves, true, false>(a, a_row, b_middle, half);
                    multiply_planes<Lines, Halves, false, true>(a, a_row, b_low, half);
                }
                if constexpr (Largest)
                    multiply_planes<Lines, Halves, !Least, true>(a, a_row, b, half);
                b += Planes * Halves * half;
                a[0] += a_chunk;
                a[1] += a_chunk;
            }
        }
    };
    if constexpr (Planes == 1)
        add.template operator()<false, true>();
    else if constexpr (Apart) {
        add.template operator()<true, false>();
        add.template operator()<false, true>();
    } else
        add.template operator()<true, true>();
    _tile_stored(SUM_00, pairs.c[0], c_row);
    if constexpr (Halves == 2)
        _tile_stored(SUM_01, pairs.c[0] + kMatrixHalf, c_row);
    if constexpr (Lines == 2)
        _tile_stored(SUM_10, pairs.c[1], c_row);
    if constexpr (Lines == 2 && Halves == 2)
        _tile_stored(SUM_11, pairs.c[1] + kMatrixHalf, c_row);
}

template <int Planes, bool Apart> void multiply(const Pairs &pairs) {
    constexpr void (*kSum[2][2])(const Pairs &) = {{sum<Planes, Apart, 1, 1>, sum<Planes, Apart, 1, 2>},
                                                   {sum<Planes, Apart, 2, 1>, sum<Planes, Apart, 2, 2>}};
    kSum[pairs.lines - 1][pairs.halves - 1](pairs);
}

void multiply(const Pairs &pairs) {
    if (pairs.planes == 1)
        multiply<1, false>(pairs);
    else if (pairs.apart)
        multiply<kPlanes, true>(pairs);
    else
        multiply<kPlanes, false>(pairs);
}

bool finite(const float *c, int rows, int halves) {
    const __m512 zero = _mm512_setzero_ps();
    __m512 check[2] = {zero, zero}; // NaN if anything is not finite
    for (int row = 0; row < rows; ++row, c += kMatrixColumns)
        for (int half = 0; half < halves; ++half)
            check[half] = _mm512_fmadd_ps(_mm512_load_ps(c + half * 16), zero, check[half]);
    const __m512 both = check[0] + check[1];
    return _mm512_cmp_ps_mask(both, both, _CMP_UNORD_Q) == 0;
}

using Bits [[gnu::vector_size(64)]] = std::uint32_t;

/// 16 numbers of bfloat16 in the low halves of as many of 32 bits.
inline Bits widened(__m256i halves) { return reinterpret_cast<Bits>(_mm512_maskz_cvtepu16_epi32(0xffff, halves)); }

/// Takes 16 numbers of bfloat16 from as many of float32.
inline __m512 without(__m512 a, Bits low_halves) { return a - reinterpret_cast<__m512>(low_halves << 16); }

/// The first plane of 16 numbers, in low halves, which is taken from them.
inline Bits take_plane(__m512 &rest) {
    const Bits plane = widened(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(rest)));
    rest = without(rest, plane);
    return plane;
}

inline __mmask16 first(Index lanes) {
    return static_cast<__mmask16>(lanes >= 16 ? 0xffff : lanes <= 0 ? 0 : (1u << lanes) - 1);
}

// So many bytes ahead of what is split it is fetched: a core that computes does not look far enough ahead itself, and
// takes 2.5 times as long for a source in memory.
constexpr Index kAhead = 2048;

void split(const float *from, Index from_row, Index rows, Index channels, Index chunk, Bfloat *to, Index to_row,
           Index to_plane, Index next) {
    const Index rows_ahead = kAhead / Index{sizeof(float)} / channels + 1;
    for (Index row = 0; row < rows; ++row, from += from_row, to += to_row) {
        // From this row; by numbers, since there may be no such element.
        const Index ahead = row + rows_ahead < rows ? rows_ahead * from_row : next + (rows_ahead - rows) * from_row;
        const auto address =
            reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead * Index{sizeof(float)});
        for (Index bytes = 0; next != 0 && bytes < channels * Index{sizeof(float)}; bytes += 64)
            __builtin_prefetch(reinterpret_cast<const void *>(address + static_cast<std::uintptr_t>(bytes)));
        Bfloat *place = to;
        for (Index begin = 0; begin < channels; begin += chunk, place += kPlanes * to_plane) {
            const Index count = channels - begin < chunk ? channels - begin : chunk;
            __m512 low = _mm512_maskz_loadu_ps(first(count), from + begin),
                   high = _mm512_maskz_loadu_ps(first(count - 16), from + begin + 16);
            const auto lanes = static_cast<__mmask32>((std::uint64_t{1} << chunk) - 1);
            for (int plane = 0; plane < kPlanes; ++plane) {
                const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
                _mm512_mask_storeu_epi16(place + plane * to_plane, lanes, both);
                low = without(low, widened(_mm512_maskz_extracti64x4_epi64(0xff, both, 0)));
                high = without(high, widened(_mm512_maskz_extracti64x4_epi64(0xff, both, 1)));
            }
        }
    }
}

void pair(const float *even, const float *odd, int count, int planes, Bfloat *to, Index to_plane) {
    __m512 low = _mm512_maskz_loadu_ps(first(count), even), high = _mm512_maskz_loadu_ps(first(count), odd);
    for (int plane = 0; plane < planes; ++plane, to += to_plane) {
        const Bits both = take_plane(low) | take_plane(high) << 16;
        _mm512_storeu_si512(to, reinterpret_cast<__m512i>(both));
    }
}

bool add(const float *sums, Index rows, Index columns, float *to, Index to_row, bool first_sums) {
    const __m512 zero = _mm512_setzero_ps();
    __m512 check = zero; // NaN if anything is not finite
    for (Index row = 0; row < rows; ++row, sums += kMatrixColumns, to += to_row)
        for (Index c = 0; c < columns; c += 16) {
            const __mmask16 lanes = first(columns - c);
            __m512 sum = _mm512_maskz_loadu_ps(lanes, sums + c);
            if (!first_sums)
                sum += _mm512_maskz_loadu_ps(lanes, to + c);
            check = _mm512_fmadd_ps(sum, zero, check);
            _mm512_mask_storeu_ps(to + c, lanes, sum);
        }
    return _mm512_cmp_ps_mask(check, check, _CMP_UNORD_Q) == 0;
}

} // namespace

constinit const MatrixFunctions matrix_amx = {begin, end, multiply, finite, split, pair, add};

#define MOVE_amx(...) DEFINE_MOVE(amx, __VA_ARGS__)
#define MOVE_avx512(...)
#define MOVE_avx2(...)
#define MOVE_portable(...)
#include "kernels.inc"

} // namespace backstride
