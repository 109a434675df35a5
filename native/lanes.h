// SPDX-License-Identifier: Apache-2.0
// The transposed convolution of few output channels, with pixels in the lanes of vectors.
#pragma once

#include "epilogue.h"
#include "memory.h"
#include "plan.h"

namespace backstride {

/// True if such a call can be computed in this way.
bool lanes_fit(const Plan &plan);

/// The share of the lanes that do useful work.
double lanes_filled(const Plan &plan);

/// The weights in the order in which stripes use them, for all plans that differ from this one in batch and lengths
/// alone: a segment for each group, depth and height.
template <class T> class PackedStripes {
  public:
    PackedStripes(const Plan &plan, const View &filter, Poll poll);

    bool finite() const;
    const T *group(Index index) const { return data_.get() + index * group_; }
    /// Where the weights of a tap along the depth and one along the height begin, of the streams from `stream` on.
    Index offset(Index depth, Index tap, Index stream) const { return (depth * height_ + tap * rows_ + stream) * row_; }
    Index bytes() const { return groups_ * group_ * Index{sizeof(T)}; }

  private:
    Index groups_, rows_, height_, row_, group_;
    Buffer<T> data_;
};

/// Computes the output with a filter that is finite. T is the type of the sums.
template <class T>
void lanes(const Plan &plan, const View &source, const PackedStripes<T> &filter, const Epilogue<T> &epilogue,
           const View &target, Poll poll);

} // namespace backstride
