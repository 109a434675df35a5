// SPDX-License-Identifier: Apache-2.0
// The three operations by Winograd's algorithm on the phases of the stride.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "epilogue.h"
#include "memory.h"
#include "plan.h"

namespace backstride {

/// How such a layer is computed in so many points along each axis of more than one tap, if it can be.
std::optional<Scheme> make_scheme(const Plan &plan, int points);

/// What there is to do in a call: multiply-adds, and elements of points.
struct Work {
    double products; // also beyond the edges, but not where points vanish
    double source, target, filter;
    double columns, parts; // of one product, and of them for each tile
    double places;         // of a tile's points of all planes, which are far apart in memory
};
Work work_of(const Plan &plan, const Scheme &scheme);

/// A filter's values at the points, for all plans that differ from this one in batch and lengths alone.
template <class T> class PackedPoints {
  public:
    PackedPoints(const Plan &plan, const Scheme &scheme, const View &filter, Poll poll);

    /// What is computed at a time: some channels of the result in one stream, or all of them in some streams.
    struct Part {
        Index first_stream, streams, first_channel, channels, most_columns = 0;
        struct Point {
            Index offset, columns;           // of its panels
            std::vector<Index> first_column; // of each stream; -1 where a stream has no product at this point
            std::vector<Index> planes;       // of the source that are summed over, if any stream has a product
        };
        std::vector<Point> points;
    };
    const std::vector<Part> &parts() const { return parts_; }

    /// The panels of a point: kernel().columns wide but for the last, each with all of the depth.
    const T *panels(Index group, const typename Part::Point &point) const {
        return data_->get() + group * group_size_ + point.offset;
    }
    const Kernel &kernel() const { return *kernel_; }
    const Scheme &scheme() const { return scheme_; }
    /// Whether all values are finite; if not, they can't be used.
    bool finite() const { return finite_; }
    Index bytes() const { return groups_ * group_size_ * Index{sizeof(T)}; }

  private:
    Scheme scheme_;
    const Kernel *kernel_;
    Index groups_, group_size_ = 0;
    std::vector<Part> parts_;
    std::optional<Buffer<T>> data_;
    bool finite_ = true;
};

/// Computes the result, and calls `again` with those cells of it, some at a time, that are to be computed anew in
/// another way: the cells of tiles in which something is not finite, where NaN and Inf may have spread beyond the
/// definition's own terms.
template <class T>
void winograd(const Plan &plan, const View &source, const PackedPoints<T> &filter, const Epilogue<T> &epilogue,
              const View &target, const std::function<void(const std::vector<Cells> &)> &again, Poll poll);

/// Computes the filter gradient, and returns whether all of it is finite; if not, it is to be computed anew in another
/// way.
template <class T>
bool winograd_outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll);

} // namespace backstride
