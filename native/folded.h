// SPDX-License-Identifier: Apache-2.0
// Layers of few channels for a matrix unit, which multiplies 16 or 32 columns at a time whether there are as many or
// not: cells of the result become columns.
#pragma once

#include <optional>

#include "pack.h"
#include "plan.h"

namespace backstride {

/// How a layer is folded: along an axis all phases of `step` positions are a period. Period i of the result begins at
/// cell `target + i * period` and reads a window of the source that begins at cell `source + i * step`. Beyond the
/// edges of the source are zeros, and cells of the result are not stored.
struct Fold {
    struct Along {
        Index count, period, target; // of the result
        Index window, step, source;  // of the source
        Index first;                 // the filter cell of the first cells of both

        Index source_length() const { return (count - 1) * step + window; }
        /// The filter cell that connects the n-th cell of a window with a cell of a period; it may not exist.
        Index filter_cell(Index n, Index cell) const { return first + cell - n * (period / step); }
    };
    Along axes[3];

    Index cells() const { return axes[0].period * axes[1].period * axes[2].period; }
};

/// How a layer is folded if that pays. Windows, periods and steps depend on nothing but the layer.
std::optional<Fold> fold_of(const Plan &plan);

/// The folded layer is an input gradient, in which nothing is beyond an edge. Its channels are those of all cells of a
/// period.
Plan folded_layer(const Plan &plan, const Fold &fold);

/// Its filter, in `room` for all elements.
View folded_filter(const Plan &plan, const Fold &fold, const View &filter, void *room, Poll poll);
Index folded_filter_size(const Plan &plan, const Fold &fold);

/// The shapes of its source and result, which are not in memory as a whole.
View folded_source(const Fold &fold, const View &source);
View folded_target(const Fold &fold, const View &target);

/// As `store`, of cells of the folded result.
void store_folded(const Plan &plan, const Fold &fold, const Window<float> &from, const Box &box, const View &target);

/// The cells of the result that are those of the folded one.
Cells unfolded(const Fold &fold, const Cells &cells, const View &target);

} // namespace backstride
