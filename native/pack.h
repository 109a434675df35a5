// SPDX-License-Identifier: Apache-2.0
// Moving elements between the caller's arrays and what the kernels read and write.
#pragma once

#include <type_traits>

#include "element.h"
#include "memory.h"
#include "threads.h"
#include "view.h"

namespace backstride {

/// True if kernels for T can use the array where it is.
template <class T> bool in_place(const View &view, Element element) {
    return visit(element, [](auto value) { return std::is_same_v<decltype(value), T>; }) &&
           (view.stride[4] == 1 || view.shape[4] == 1);
}

/// An array as the kernels read it: where it is, or else a contiguous native copy.
template <class T> class Readable {
  public:
    Readable(const View &view, Element element, Poll poll);
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
    PackedFilter(const View &filter, Element element, Index groups, int depth_axis, Index width, Poll poll);

    const T *panel(Index group, Index index) const {
        return data_.get() + (group * columns_ + index * width_) * taps_ * depth_;
    }

  private:
    Index taps_, depth_, columns_, width_;
    Buffer<T> data_;
};

/// Where a matrix of elements stands, and how far apart its rows and its columns are.
struct Place {
    void *data;
    Index row, column;
};

/// Copies a matrix of sums to its place, rounding each once.
template <class T>
void store(const T *sums, Index sums_row, Index rows, Index columns, Element element, const Place &place);

/// Sets a matrix to zero.
void clear(Index rows, Index columns, Element element, const Place &place);

/// The address of an element.
inline void *at(const View &view, Element element, Index offset) {
    return static_cast<char *>(view.data) + offset * size_of(element);
}

} // namespace backstride
