// SPDX-License-Identifier: Apache-2.0
#include "packed.h"

#include "gather.h"
#include "matrix.h"
#include "merged.h"
#include "scatter.h"

namespace backstride {

template <class T>
Packed<T>::Packed(const Plan &plan, const View &filter, bool any_sizes, Poll poll) : filter_(filter) {
    const auto wanted = [&](Algorithm algorithm) {
        return any_sizes ? packs_for_any_sizes(plan, algorithm) : plan.algorithm == algorithm;
    };
    if constexpr (std::is_floating_point_v<T>) {
        // Where a filter is not finite, its products with the zeros beyond the edges would be terms that the
        // definition does not have.
        if (wanted(Algorithm::lanes)) {
            stripes_.emplace(plan, filter, poll);
            if (!stripes_->finite())
                stripes_.reset();
        }
        if (wanted(Algorithm::winograd)) {
            points_.emplace(plan, *plan.scheme, filter, poll);
            if (!points_->finite())
                points_.reset();
        }
    }
    if (wanted(Algorithm::merged))
        merged_.emplace(merged_panels<T>(plan, filter, poll));
    if (std::is_same_v<T, float> && wanted(Algorithm::matrix))
        pairs_.emplace(pairs(plan, filter, poll));
    if (pairs_ && !pairs_->packed() && (any_sizes || !packs_as_used(plan)))
        pairs_->pack(poll);
    if (any_sizes || (!stripes_ && !points_ && !merged_ && !pairs_))
        panels_.emplace(panels<T>(plan, filter));
    if (panels_ && (any_sizes || (plan.algorithm != Algorithm::scatter && !panels_are_used_once(plan))))
        panels_->pack(poll);
}

template <class T> Algorithm Packed<T>::algorithm(const Plan &plan) const {
    const bool able =
        (plan.algorithm == Algorithm::lanes && stripes_) || (plan.algorithm == Algorithm::scatter && panels_) ||
        (plan.algorithm == Algorithm::merged && merged_) || (plan.algorithm == Algorithm::matrix && pairs_) ||
        (plan.algorithm == Algorithm::winograd && points_);
    return able ? plan.algorithm : Algorithm::tiles;
}

template <class T> void Packed<T>::run(const Plan &plan, const View &source, const View &target, Poll poll) const {
    // Calls `use` with the panels, which are packed now if they are not yet.
    const auto with_panels = [&](auto use) {
        if (panels_)
            return use(*panels_);
        PackedFilter<T> late = panels<T>(plan, filter_);
        late.pack(poll);
        use(late);
    };
    // Computes some cells anew, by tiles.
    const std::function<void(const std::vector<Cells> &)> again = [&](const std::vector<Cells> &cells) {
        with_panels([&](const auto &filter) { gather_cells<T>(plan, source, filter, epilogue, target, cells, poll); });
    };
    const auto run_by = [&](Algorithm by) {
        if (by == Algorithm::scatter)
            scatter<T>(plan, source, *panels_, epilogue, target, poll);
        else if (by == Algorithm::merged && merges(target))
            merged<T>(plan, source, *merged_, epilogue, target, poll);
        else if (by == Algorithm::tiles || by == Algorithm::merged)
            with_panels([&](const auto &filter) { gather<T>(plan, source, filter, epilogue, target, poll); });
        else if constexpr (std::is_floating_point_v<T>) {
            if (by == Algorithm::lanes)
                lanes<T>(plan, source, *stripes_, epilogue, target, poll);
            else if (by == Algorithm::winograd)
                winograd<T>(plan, source, *points_, epilogue, target, again, poll);
            else if constexpr (std::is_same_v<T, float>)
                matrix(plan, source, *pairs_, epilogue, target, again, poll);
        }
    };
    const Memory::Unkept unkept(plan.workspace.binding);
    try {
        run_by(algorithm(plan));
    } catch (const WorkspaceTooSmall &) { // thrown before anything is computed
        if (algorithm(plan) == Algorithm::tiles)
            throw;
        run_by(Algorithm::tiles);
    }
}

template <class T> Index Packed<T>::bytes() const {
    return (stripes_ ? stripes_->bytes() : 0) + (points_ ? points_->bytes() : 0) + (merged_ ? merged_->bytes() : 0) +
           (pairs_ ? pairs_->bytes() : 0) + (panels_ ? panels_->bytes() : 0);
}

#define INSTANTIATE(T) template class Packed<T>;
BACKSTRIDE_EACH_SUM(INSTANTIATE)
#undef INSTANTIATE

} // namespace backstride
