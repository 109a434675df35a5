// SPDX-License-Identifier: Apache-2.0
// The three operations by Winograd's algorithm on the phases of the stride.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "epilogue.h"
#include "memory.h"
#include "pack.h"
#include "plan.h"

namespace backstride {

/// How such a layer is computed in so many points along each axis of more than one tap, if it can be.
std::optional<Scheme> make_scheme(const Plan &plan, int points);

/// Whether a matrix unit multiplies the points, in three planes of bfloat16, rather than vectors.
bool by_unit(const Plan &plan);

/// What there is to do in a call: multiply-adds, and elements of points.
struct Work {
    double tiles;    // of the result
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

    /// The panels of a point, each with all of the depth: of T, kernel().columns wide but for the last; or for a matrix
    /// unit of Bfloat, kMatrixColumns wide, in the order of Pairs, with zeros after the columns of each stream.
    template <class Factor> const Factor *panels(Index group, const typename Part::Point &point) const {
        return reinterpret_cast<const Factor *>(data_->get()) + group * group_size_ + point.offset;
    }
    bool by_unit() const { return by_unit_; }
    const Kernel &kernel() const { return *kernel_; }
    const Scheme &scheme() const { return scheme_; }
    /// Whether all values are finite; if not, they can't be used.
    bool finite() const { return finite_; }
    Index bytes() const { return groups_ * group_size_ * (by_unit_ ? Index{sizeof(Bfloat)} : Index{sizeof(T)}); }

  private:
    Scheme scheme_;
    bool by_unit_;
    const Kernel *kernel_;
    Index groups_, group_size_ = 0;
    std::vector<Part> parts_;
    std::optional<Buffer<std::byte>> data_; // of T, or of Bfloat
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
