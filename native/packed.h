// SPDX-License-Identifier: Apache-2.0
// A filter in the forms in which the algorithms read it, and what is done to the sums.
#pragma once

#include <optional>

#include "epilogue.h"
#include "lanes.h"
#include "pack.h"
#include "winograd.h"

namespace backstride {

/// A packed filter. It depends on the layer, the element type and the instruction set, never on batch or lengths, and
/// nothing changes it, so that many threads may use it at once. T is the type of the sums.
template <class T> class Packed {
  public:
    /// Packs for this plan; with `any_sizes` for all that differ from it in batch and lengths alone, too.
    Packed(const Plan &plan, const View &filter, bool any_sizes, Poll poll);

    /// Computes the result, from the source: the operand that is neither it nor the filter.
    void run(const Plan &plan, const View &source, const View &target, Poll poll) const;

    /// In which results end, if it is set.
    Epilogue<T> epilogue;

    Index bytes() const;
    /// The algorithm by which it computes a plan.
    Algorithm algorithm(const Plan &plan) const;

  private:
    std::optional<PackedStripes<T>> stripes_;
    std::optional<PackedPoints<T>> points_;
    std::optional<PackedFilter<T>> merged_;
    std::optional<PackedPairs> pairs_;
    std::optional<PackedFilter<T>> panels_;
    View filter_; // exists as long as this does, unless it is packed for any sizes
};

} // namespace backstride
