// SPDX-License-Identifier: Apache-2.0
// The contract of the micro-kernels and the table of them.
#pragma once

#include <span>
#include <string_view>

#include "../cpu.h"
#include "../element.h"

namespace backstride {

/// One stretch of a reduction: where it starts in either factor.
struct Segment {
    Index a, b;
};

/// A tile of a matrix product. With 0 <= t < taps and 0 <= k < depth in each segment s, in this order,
///
///     C[row, column] = sum over s, t and k of A[row, s, t, k] * B[s, t, k, column]
///     A[row, s, t, k]    at a[s.a + t * a_tap + row * a_row + k * a_step]
///     B[s, t, k, column] at b[s.b * b_segment + t * b_tap + k * b_step + column]
///     C[row, column]     at c[row * c_row + column]
///
/// A is read by broadcast, B and C by vectors along the columns. Exactly `columns` elements of a row are touched.
/// Every element of C is one chain of multiply-adds, fused where the instruction set can, whatever the tile: so
/// its bits do not depend on how a result was cut into tiles.
template <class T> struct Tile {
    const T *a;
    Index a_row, a_step, a_tap;
    const T *b;
    Index b_step, b_tap, b_segment;
    const Segment *segments;
    Index count, taps, depth;
    T *c;
    Index c_row;
    int columns;
    bool continued = false; // whether the chains go on from what is in C, for kernels that write C
    bool streaming = false; // whether C is whole, aligned cache lines that are not read soon: they go around the caches
    Index ahead = 0, ahead_step = 0; // from B of a tap to what is fetched into the second-level cache meanwhile, and on
                                     // from there for each k

    /// Has one of some tiles fetch its share of the panel that is so far from B's.
    void fetch(Index panel, Index tile, Index tiles) {
        ahead = tile < tiles ? panel + tile * depth * b_step / tiles : 0;
        ahead_step = tile < tiles ? (b_step - 1) / tiles + 1 : 0;
    }
};

// So many tiles share what they fetch. One alone asks for more than memory brings while it multiplies, and waits: few
// pixels with a filter from memory took 1.2 times as long (Sapphire Rapids, 8x8 pixels, 1024 to 512 channels).
constexpr Index kFetchingTiles = 4;

constexpr int kMostRows = 14, kMostTileElements = 14 * 32;

/// What is done to sums before they are rounded: f(x + bias). With p the parameter, relu is max(x, 0), leaky_relu p * x
/// where x < 0, elu p * (exp(x) - 1) where x < 0, gelu x * P(N < x) for a standard normal N, and snake
/// x + sin(p * x)^2 / p. Integers know relu alone, for which p is the sign bit of the type that they stand for.
enum class Activation { none, relu, leaky_relu, elu, gelu, sigmoid, tanh, snake };

constexpr int kActivations = 8;
constexpr std::string_view kActivationNames[kActivations] = {"none", "relu",    "leaky_relu", "elu",
                                                             "gelu", "sigmoid", "tanh",       "snake"};

/// A matrix of sums on which that is done in place: the bias of c[row * c_row + column] is at
/// bias[row * bias_row + column * bias_column], where bias_column is 0 or 1.
template <class T> struct Sums {
    T *c;
    Index c_row, rows, columns;
    const T *bias;
    Index bias_row, bias_column;
    double parameter;
};

/// A kernel: a function for every number of rows, and for whole and partial rows of columns.
template <class T> struct Functions {
    using Function = void (*)(const Tile<T> &);
    /// a_step is 1, and C is written. For gathered sums: a row of A is a pixel, k its channels.
    Function dense[2][kMostRows + 1];
    /// a_step is 1, depth 1, and C is written. For channels that each have a filter of their own: the columns of A are
    /// those of B and C, A[row, s, t, column] at a[s.a + t * a_tap + row * a_row + column].
    Function channelwise[2][kMostRows + 1];
    /// a_row is 1, and the sum is added to C. For sums of outer products: k is a pixel, a row of A a channel.
    Function outer[2][kMostRows + 1];
    /// By Activation; null where the type has none.
    void (*epilogue[kActivations])(const Sums<T> &);
    /// C is one row and added to; its columns are those of A and B, A[s, k, column] at a[s.a + k * a_step + column].
    Function channel_sums[2];
};

/// A stretch of pixels, for results of so few columns that pixels take the lanes. A stream is one phase and column of
/// the result. With 0 <= lane < vectors * width, sums over the segments g, channels k < depth and taps t < taps,
///
///     C[stream, lane] = sum over g, k and t of B[g, k, t, stream] * A[g, k, lane - t]
///     A[g, k, i]         at a[g.a + k * a_step + i]
///     C[stream, lane]    at c[stream][lane]
///
/// B of segment g begins at b[g.b] and is in the order of use: for each tap, each channel, the streams that have the
/// tap, which are all of them, or of the last tap the first `last`. So are the sums, which makes them the same chains
/// as those of Tile.
template <class T> struct Stripe {
    const T *a;
    Index a_step;
    const T *b;
    const Segment *segments;
    Index count, depth, taps;
    int last;
    T *const *c;
    bool continued; // whether the chains go on from what is in C
};

constexpr int kMostStreams = 12, kMostVectors = 8;

/// For one instruction set: a function for every number of streams and of vectors, of which `vectors` are best.
template <class T> struct StripeFunctions {
    void (*sum[kMostStreams + 1][kMostVectors + 1])(const Stripe<T> &);
    int vectors[kMostStreams + 1];
    int width;
};

/// For one instruction set: elements become sums, which is exact, and sums elements, which rounds as `narrow` does.
template <class S> struct Moves {
    using T = typename Sum<S>::type;
    /// to[r * to_row + c] = from[r * from_row + c]
    void (*load)(const S *from, Index from_row, Index rows, Index columns, T *to, Index to_row);
    /// to[c * to_row + r] = from[r * from_row + c]; around the caches if `streaming` says so and alignment admits it.
    void (*transpose)(const S *from, Index from_row, Index rows, Index columns, T *to, Index to_row, bool streaming);
    /// to[r * to_row + c] = from[r * from_row + c], likewise.
    void (*store)(const T *from, Index from_row, Index rows, Index columns, S *to, Index to_row, bool streaming);
};

/// One step of Winograd's algorithm, on many channels at once: with matrices D and A that the function stands for,
///
///     out[i, j] = sum over u and v of D[i, u] * A[j, v] * in[u, v]
///
/// where in[u, v] is the `count` numbers at in[u * columns + v], and the same for out. A function returns whether all
/// of the result is finite.
template <class T> struct Combine {
    const T *const *in;
    T *const *out;
    Index count;
    bool streaming = false; // as of Tile, of the result
};

/// How an axis is computed: n - taps + 1 cells of the result at a time from n cells of the source, by n products
/// rather than (n - taps + 1) * taps. The first is an axis of one tap, whose cells are left as they are.
struct Form {
    int points, taps;
    constexpr int cells() const { return points - taps + 1; }
    bool operator==(const Form &) const = default;
};
constexpr Form kForms[] = {{1, 1}, {3, 2}, {4, 2}, {4, 3}, {6, 3}};
constexpr int kFormCount = 5, kMostPoints = 6;

/// By the forms of the height and the width, which have the same number of points unless one of them has one tap; null
/// where they don't. Source cells to points, taps to points, points to cells of the result; for the filter gradient
/// cells of the result to points, and points to taps.
template <class T> struct CombineFunctions {
    using Function = bool (*)(const Combine<T> &);
    using ByForms = Function[kFormCount][kFormCount];
    ByForms source, filter, target, cells, taps;
};

/// Two tiles of a matrix product whose factors have 16 bits, as a matrix unit makes them: those of `lines` lines of
/// rows with the same columns. With the sums of a Tile of one tap, and depth cut into `chunks` of so many k,
///
///     A[line, row, s, c, k] at a[line][s.a + row * a_row + c * a_chunk + k]
///     B[s, c, k, column]    at b[s.b * b_segment + ((c * planes * halves + column / 16) * chunk + k / 2 * 2) * 16
///                              + column % 16 * 2 + k % 2]
///     C[line][row, column]  at c[line][row * c_row + column], in whole halves
///
/// B has zeros where the depth ends within a chunk or the columns within a half; A is read there, and must be finite.
/// Subnormal factors and sums count as zeros, and sums of even and of odd k of a chunk are made apart.
///
/// Factors of float32 are sums of three planes of bfloat16, each of which has the next eight bits: A has plane p of a
/// chunk p * a_plane elements after plane 0, B p * halves * chunk * 16. Of the nine products six are made; the others
/// are at most 2^-24 of a product.
struct Pairs {
    const Bfloat *a[2];
    Index a_row, a_plane, a_chunk;
    const Bfloat *b;
    Index b_segment;
    const Segment *segments;
    Index count, chunks, chunk;
    int planes, rows, lines, halves;
    bool apart;     // whether the largest product of all chunks comes last: then it alone is rounded with the sums
    bool continued; // whether sums go on from what is in C
    float *c[2];
    Index c_row;
};

constexpr int kMatrixRows = 16, kMatrixColumns = 32, kMatrixHalf = kMatrixColumns / 2, kMatrixDepth = 32, kPlanes = 3;

struct MatrixFunctions {
    /// Sets the unit of this thread up for so many rows and such chunks, and gives it up.
    void (*begin)(int rows, Index chunk);
    void (*end)();
    /// Writes C.
    void (*multiply)(const Pairs &);
    /// Whether so many rows of kMatrixColumns sums are finite, aligned to cache lines.
    bool (*finite)(const float *c, int rows, int halves);
    /// Makes rows of A, which begin `to_row` elements after each other: three planes of so many channels each. What is
    /// read after these rows begins about `next` elements after them; it may not exist. With 0 nothing is fetched
    /// ahead.
    void (*split)(const float *from, Index from_row, Index rows, Index channels, Index chunk, Bfloat *to, Index to_row,
                  Index to_plane, Index next);
    /// Makes two neighbours k of 16 columns of B, of which `count` are not zeros, of so many planes.
    void (*pair)(const float *even, const float *odd, int count, int planes, Bfloat *to, Index to_plane);
    /// Adds so many rows and columns of sums, with kMatrixColumns in a row, to others, or copies them if they are the
    /// first. False if one of those that it writes is not finite.
    bool (*add)(const float *sums, Index rows, Index columns, float *to, Index to_row, bool first);
};

struct Kernel {
    std::string_view name;
    Isa isa;
    Element element; // of the sums: one of the four types that kernels exist for
    int rows, columns;
    const void *functions;
};

template <class T> const Functions<T> &functions(const Kernel &kernel) {
    return *static_cast<const Functions<T> *>(kernel.functions);
}

/// All kernels of this build, richer instruction sets and larger tiles first.
std::span<const Kernel> kernels();

/// The kernel for sums of type `element` over `columns` columns: the widest that has no more vectors than it takes.
const Kernel &choose_kernel(Isa isa, Element element, Index columns);

/// What the table has for whole layers: with pixels in the lanes, and Winograd's algorithm in so many points.
struct LayerKernel {
    std::string_view name;
    Isa isa;
    Element element;
    std::string_view algorithm;
};
std::span<const LayerKernel> layer_kernels();

/// The kernels with pixels in the lanes; for float and double.
template <class T> const StripeFunctions<T> &stripe_functions(Isa isa);

/// The transforms; for float and double.
template <class T> const CombineFunctions<T> &combine_functions(Isa isa);
/// For Half, Bfloat, float and double.
template <class S> const Moves<S> &moves(Isa isa);
/// Null where the instruction set has no matrix unit.
const MatrixFunctions *matrix_functions(Isa isa);

/// Does nothing but `steps` rounds of independent float32 multiply-adds in registers and returns the number of
/// operations, two per multiply-add: what the peak is measured with.
double fma_burst(Isa isa, Index steps);

// What the kernel files define.
#define KERNEL(isa, T, type, rows, columns) extern const Functions<T> type##_##rows##x##columns##_##isa;
#include "kernels.inc"
#undef KERNEL
#define STRIPE(isa, T, type) extern const StripeFunctions<T> type##_stripe_##isa;
#include "kernels.inc"
#undef STRIPE
#define COMBINE(isa, T, type) extern const CombineFunctions<T> type##_combine_##isa;
#include "kernels.inc"
#undef COMBINE
#define MOVE(isa, S, name) extern const Moves<S> name##_moves_##isa;
#include "kernels.inc"
#undef MOVE
extern const MatrixFunctions matrix_amx;
double fma_burst_portable(Index steps);
double fma_burst_avx2(Index steps);
double fma_burst_avx512(Index steps);
double fma_burst_neon(Index steps);

} // namespace backstride
