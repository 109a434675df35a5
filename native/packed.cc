// SPDX-License-Identifier: Apache-2.0
#include "packed.h"

#include "gather.h"

namespace backstride {

template <class T> Packed<T>::Packed(const Plan &plan, const View &filter, bool any_sizes, Poll poll) {
    if constexpr (std::is_floating_point_v<T>)
        if (any_sizes ? lanes_suit_some(plan) : plan.lanes) {
            stripes_.emplace(plan, filter, poll);
            // Pixels beyond the edges are zeros there, whose products with infinity the definition does not have.
            if (!stripes_->finite())
                stripes_.reset();
        }
    if (any_sizes || !stripes_)
        panels_.emplace(pack_panels<T>(plan, filter, poll));
}

template <class T> void Packed<T>::run(const Plan &plan, const View &source, const View &target, Poll poll) const {
    if constexpr (std::is_floating_point_v<T>)
        if (plan.lanes && stripes_)
            return lanes<T>(plan, source, *stripes_, epilogue, target, poll);
    gather<T>(plan, source, *panels_, epilogue, target, poll);
}

template <class T> Index Packed<T>::bytes() const {
    return (stripes_ ? stripes_->bytes() : 0) + (panels_ ? panels_->bytes() : 0);
}

template class Packed<float>;
template class Packed<double>;
template class Packed<std::uint32_t>;
template class Packed<std::uint64_t>;

} // namespace backstride
