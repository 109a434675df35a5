// SPDX-License-Identifier: Apache-2.0
// Moving elements between the caller's arrays and what the kernels read and write.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <type_traits>

#include "cpu.h"
#include "element.h"
#include "geometry.h"
#include "kernels/kernel.h"
#include "memory.h"
#include "threads.h"
#include "view.h"

namespace backstride {

/// True if kernels for T can use the array where it is.
template <class T> bool in_place(const View &view, Element element) {
    return visit(element, [](auto value) { return std::is_same_v<decltype(value), T>; }) &&
           (view.stride[4] == 1 || view.shape[4] == 1);
}

/// True if the array is so large that the next reader of it won't find it in a cache.
inline bool outgrows_caches(const View &view, Element element) {
    constexpr Index kLarge = 16 << 20;
    Index size = size_of(element);
    for (const Index length : view.shape)
        size *= length;
    return size >= kLarge;
}

/// True if so is the array, and every `channels` channels of a pixel, which the kernels write where they are to be, are
/// whole cache lines.
template <class T> bool streamed(const View &view, Element element, Index channels) {
    constexpr Index kLine = 64 / Index{sizeof(T)};
    bool aligned = reinterpret_cast<std::uintptr_t>(view.data) % 64 == 0 && channels % kLine == 0;
    for (int i = 0; i < 4; ++i)
        aligned = aligned && view.stride[i] % kLine == 0;
    return aligned && outgrows_caches(view, element);
}

/// An array as the kernels read it: where it is, or else a contiguous native copy.
template <class T> class Readable {
  public:
    Readable(const View &view, Element element, Isa isa, Poll poll);
    const Rows<const T> &rows() const { return rows_; }

  private:
    std::unique_ptr<Buffer<T>> copy_;
    Rows<const T> rows_;
};

/// A matrix for each filter tap, cut into panels of `width` columns: depth index k and column n of tap t of group g
/// stand at `panel(g, n / width) + (t * depth + k) * columns + n % width`, where columns is the panel's own width,
/// less than `width` in the last. The packed filter has exactly as many elements as the filter.
template <class T> class PackedFilter {
  public:
    /// k runs along `depth_axis` and n along the other of the filter's last two axes (3 or 4); groups divide axis 4.
    PackedFilter(const View &filter, Element element, Index groups, int depth_axis, Index width, Isa isa);

    /// Packs all of it, in memory of its own.
    void pack(Poll poll);
    bool packed() const { return data_.has_value(); }

    /// A panel. One that is not packed is packed now, into `room` for as many elements as a panel has; the filter must
    /// still exist.
    const T *panel(Index group, Index index, T *room) const;
    /// One tap's matrix of a panel. One that is not packed is packed into `room` for depth * width elements.
    const T *tap(Index group, Index index, Index tap, T *room) const;
    Index panel_size() const { return width_ * taps_ * depth_; }
    Index panels_together() const { return 1; }
    Index bytes() const { return data_ ? groups_ * taps_ * depth_ * columns_ * Index{sizeof(T)} : 0; }

  private:
    void pack_tap(Index group, Index index, Index tap, T *to) const;
    Index columns(Index index) const { return std::min(width_, columns_ - index * width_); }

    View filter_;
    Element element_;
    int depth_axis_;
    Isa isa_;
    Index groups_, taps_, depth_, columns_, width_;
    std::optional<Buffer<T>> data_;
};

/// Bytes of a panel for a matrix unit that stays in a second-level cache while all cells of a block meet it.
constexpr Index kCachedPanel = 512 << 10;

/// How a depth is cut for a matrix unit, which multiplies so many numbers of it at a time: with zeros after the last.
struct Chunks {
    explicit Chunks(Index depth)
        : count(ceil_div(depth, kMatrixDepth)), each(count > 1 ? kMatrixDepth : ceil_div(depth, 2) * 2) {}
    Index depth() const { return count * each; }
    Index count, each;
};

/// Makes B of Pairs for one tap of a panel from a matrix of so many k, a multiple of two, each `row` elements after the
/// one before, and columns; in chunks of so many k, with zeros after the columns where a half ends beyond them.
void make_pairs(const MatrixFunctions &unit, const float *rows, Index row, Index depth, Index columns, Index chunk,
                int planes, Bfloat *to);

/// A filter packed for a matrix unit: bfloat16, or three planes of it for other floats, in the order of Pairs, with
/// zeros where a chunk or a half ends beyond the matrix.
class PackedPairs {
  public:
    PackedPairs(const View &filter, Element element, Index groups, int depth_axis, Isa isa);

    /// As of PackedFilter.
    void pack(Poll poll);
    bool packed() const { return data_.has_value(); }
    const Bfloat *panel(Index group, Index index, Bfloat *room) const;
    Index panel_size() const { return taps_ * most_halves() * half(); }
    /// So many that a tap of all of them stays in a second-level cache, if one does not with all its taps.
    Index panels_together() const;
    Index bytes() const { return data_ ? groups_ * group_size() * Index{sizeof(Bfloat)} : 0; }

    /// Of a tap; and how many elements of all of them a panel has.
    const Chunks &chunks() const { return chunks_; }
    int planes() const { return planes_; }
    /// Elements of all planes of a pixel of the other factor.
    Index pixel_size() const { return planes_ * chunks_.depth(); }
    int halves(Index index) const { return columns(index) > kMatrixHalf ? 2 : 1; }
    Index tap_size(Index index) const { return halves(index) * half(); }

  private:
    void pack_tap(Index group, Index index, Index tap, Bfloat *to) const;

    Index columns(Index index) const { return std::min<Index>(kMatrixColumns, columns_ - index * kMatrixColumns); }
    Index half() const { return pixel_size() * kMatrixHalf; }
    Index most_halves() const { return columns_ > kMatrixHalf ? 2 : 1; }
    Index group_size() const { return ceil_div(columns_, kMatrixHalf) * taps_ * half(); }

    PackedFilter<float> filter_; // which brings taps into order
    const MatrixFunctions &unit_;
    int planes_;
    Index groups_, taps_, depth_, columns_;
    Chunks chunks_;
    std::optional<Buffer<Bfloat>> data_;
};

/// to[r * to_row + c] = from[r * row + c * column]. In blocks, so that a transposition uses each cache line it touches
/// while it is near.
template <class T, class S>
void copy_matrix(Isa isa, const S *from, Index row, Index column, Index rows, Index columns, T *to, Index to_row) {
    if constexpr (std::is_floating_point_v<T>) {
        if (column == 1 || columns == 1)
            return moves<S>(isa).load(from, row, rows, columns, to, to_row);
        if (row == 1 || rows == 1)
            return moves<S>(isa).transpose(from, column, columns, rows, to, to_row, false);
    }
    constexpr Index kBlock = 16;
    const Index width = column == 1 ? columns : kBlock;
    for (Index r0 = 0; r0 < rows; r0 += kBlock)
        for (Index c0 = 0; c0 < columns; c0 += width) {
            const Index r1 = std::min(r0 + kBlock, rows), c1 = std::min(c0 + width, columns);
            for (Index r = r0; r < r1; ++r)
                for (Index c = c0; c < c1; ++c)
                    to[r * to_row + c] = static_cast<T>(widen(from[r * row + c * column]));
        }
}

/// Where a matrix of elements stands, and how far apart its rows and its columns are.
struct Place {
    void *data;
    Index row, column;
};

/// Copies a matrix of elements from its place, as sums.
template <class T>
void load(Element element, Isa isa, const Place &place, Index rows, Index columns, T *to, Index to_row);

/// A box of an array, channels last, in a copy or where it is: cell i of an axis is at i - first.
template <class T> struct Window {
    T *data = nullptr;
    Index stride[5] = {}, first[5] = {};

    T *at(const Index (&cell)[5]) const {
        T *to = data;
        for (int i = 0; i < 5; ++i)
            to += (cell[i] - first[i]) * stride[i];
        return to;
    }
    operator Window<const T>() const {
        Window<const T> window{data, {}, {}};
        std::copy_n(stride, 5, window.stride);
        std::copy_n(first, 5, window.first);
        return window;
    }
};

/// Cells along batch, depth, height, width and channels.
using Box = std::array<Range, 5>;

inline Box whole_box(const View &view) {
    const Index *shape = view.shape;
    return {{{0, shape[0]}, {0, shape[1]}, {0, shape[2]}, {0, shape[3]}, {0, shape[4]}}};
}

inline Index cells_of(const Box &box) {
    Index cells = 1;
    for (const Range &range : box)
        cells *= range.count();
    return cells;
}

/// A window on all of an array that is in place, and on a contiguous copy of a box.
template <class T> Window<T> window(const View &view) {
    const Index *stride = view.stride;
    return {static_cast<T *>(view.data), {stride[0], stride[1], stride[2], stride[3], stride[4]}, {}};
}
template <class T> Window<T> window(T *data, const Box &box) {
    Window<T> window{data, {}, {}};
    Index step = 1;
    for (int i = 4; i >= 0; --i) {
        window.stride[i] = step;
        window.first[i] = box[static_cast<std::size_t>(i)].first;
        step *= box[static_cast<std::size_t>(i)].count();
    }
    return window;
}

/// Copies the cells `box` of an array to a window.
template <class T> void load(Element element, Isa isa, const View &view, const Box &box, const Window<T> &to);

/// Cells of which load_pairs may have a copy of float32, a chunk of channels at a time.
constexpr Index kPairCells = 64;

/// Copies the cells `box` of an array for a matrix unit: of bfloat16 as they are, of float32 and float16 in three
/// planes; in chunks of so many channels, with zeros after the last, and for cells beyond the array's edges.
void load_pairs(Element element, Isa isa, const View &view, const Box &box, Index chunk, const Window<Bfloat> &to);

/// Copies those cells `box` of a window that are a multiple of `step` from its first, along depth, height and width, to
/// an array, rounding each once.
template <class T>
void store(const Window<T> &from, const Box &box, const std::array<Index, 3> &step, Element element, Isa isa,
           const View &view);

/// Copies a matrix of sums to its place, rounding each once; around the caches if `streaming` and alignment admits it.
template <class T>
void store(const T *sums, Index sums_row, Index rows, Index columns, Element element, Isa isa, const Place &place,
           bool streaming = false);

/// The address of an element.
inline void *at(const View &view, Element element, Index offset) {
    return static_cast<char *>(view.data) + offset * size_of(element);
}

} // namespace backstride
