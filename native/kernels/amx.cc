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

template <int Lines, int Halves> void sum(const Pairs &pairs) {
    written(&pairs);
    _tile_zero(SUM_00);
    _tile_zero(SUM_01);
    _tile_zero(SUM_10);
    _tile_zero(SUM_11);
    const Index a_row = pairs.a_row * Index{sizeof(Bfloat)}, half = pairs.chunk * 16;
    constexpr Index kRow = 64;
    for (Index s = 0; s < pairs.count; ++s)
        for (Index t = 0; t < pairs.taps; ++t) {
            const Index offset = pairs.segments[s].a + t * pairs.a_tap;
            const Bfloat *a[2] = {pairs.a[0] + offset, pairs.a[Lines - 1] + offset};
            const Bfloat *b = pairs.b + pairs.segments[s].b * pairs.b_tap + t * pairs.b_step;
            for (Index c = 0; c < pairs.chunks; ++c) {
                _tile_loadd(B_0, b, kRow);
                _tile_loadd(A_0, a[0], a_row);
                _tile_dpbf16ps(SUM_00, A_0, B_0);
                if constexpr (Halves == 2) {
                    _tile_loadd(B_1, b + half, kRow);
                    _tile_dpbf16ps(SUM_01, A_0, B_1);
                }
                if constexpr (Lines == 2) {
                    _tile_loadd(A_1, a[1], a_row);
                    _tile_dpbf16ps(SUM_10, A_1, B_0);
                    if constexpr (Halves == 2)
                        _tile_dpbf16ps(SUM_11, A_1, B_1);
                }
                b += Halves * half;
                a[0] += pairs.chunk;
                a[1] += pairs.chunk;
            }
        }
    constexpr Index kSums = kMatrixColumns * Index{sizeof(float)}, kLine = kMatrixRows * kMatrixColumns;
    _tile_stored(SUM_00, pairs.c, kSums);
    if constexpr (Halves == 2)
        _tile_stored(SUM_01, pairs.c + kMatrixColumns / 2, kSums);
    if constexpr (Lines == 2)
        _tile_stored(SUM_10, pairs.c + kLine, kSums);
    if constexpr (Lines == 2 && Halves == 2)
        _tile_stored(SUM_11, pairs.c + kLine + kMatrixColumns / 2, kSums);
}

void multiply(const Pairs &pairs) {
    constexpr void (*kSum[2][2])(const Pairs &) = {{sum<1, 1>, sum<1, 2>}, {sum<2, 1>, sum<2, 2>}};
    kSum[pairs.lines - 1][pairs.halves - 1](pairs);
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

} // namespace

constinit const MatrixFunctions bf16_matrix_amx = {begin, end, multiply, finite};

#define MOVE_amx(...) DEFINE_MOVE(amx, __VA_ARGS__)
#define MOVE_avx512(...)
#define MOVE_avx2(...)
#define MOVE_portable(...)
#include "kernels.inc"

} // namespace backstride
