// SPDX-License-Identifier: Apache-2.0
// The three operations by Winograd's algorithm on the phases of the stride.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "epilogue.h"
#include "points.h"

namespace backstride {

/// How such a layer is computed in so many points along each axis of more than one tap, if it can be.
std::optional<Scheme> make_scheme(const Plan &plan, int points);

/// What there is to do in a call: multiply-adds, and elements of points.
struct Work {
    double tiles;    // of the result
    double products; // also beyond the edges, but not where points vanish
    double source, target, filter;
    double columns, parts; // of one product, and of them for each tile
    double places;         // of a tile's points of all planes, which are far apart in memory
};
Work work_of(const Plan &plan, const Scheme &scheme);

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
