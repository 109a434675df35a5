// SPDX-License-Identifier: Apache-2.0
// A filter's values at the points of Winograd's algorithm.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "lines.h"
#include "memory.h"
#include "pack.h"

namespace backstride {

/// Whether a matrix unit multiplies the points, in three planes of bfloat16, rather than vectors.
bool by_unit(const Plan &plan);

// Columns that streams and cuts of their channels begin with.
constexpr Index kHalfPanel = kMatrixColumns / 2;
inline Index whole_halves(Index columns) { return ceil_div(columns, kHalfPanel) * kHalfPanel; }

/// How the columns of a group are divided: `together` of all streams that are columns make one part, if they have few
/// channels, or else the channels of each are cut into parts. By vectors a part's sums at all points are to stay in a
/// second-level cache; of a matrix unit's it is the tiles at one point, while as many columns as there are meet them.
struct Division {
    static constexpr Index kColumns = 64, kUnitColumns = 512, kMostColumns = 768;
    Division(const Plan &plan, const Lines &lines, const Channels &channels)
        : streams(plan.wrt == Operand::output ? lines.streams() : 1),
          together(std::clamp<Index>(
              by_unit(plan) ? kUnitColumns / whole_halves(channels.columns) : kColumns / channels.columns, 1, streams)),
          cuts(ceil_div(channels.columns, by_unit(plan) ? kMostColumns : kColumns)) {}
    Index streams, together, cuts;
};

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

} // namespace backstride
