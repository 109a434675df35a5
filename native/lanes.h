// SPDX-License-Identifier: Apache-2.0
// The transposed convolution of few output channels, with pixels in the lanes of vectors.
#pragma once

#include "plan.h"

namespace backstride {

/// True if such a call can be computed in this way.
bool lanes_fit(const Plan &plan);

/// True if it is the faster way, too.
bool lanes_suit(const Plan &plan);

/// Computes the output, or returns false, having written nothing, if the filter is not finite: pixels beyond the edges
/// are zeros here, whose products with infinity the definition does not have. T is the type of the sums.
template <class T> bool lanes(const Plan &plan, const View &source, const View &filter, const View &target, Poll poll);

} // namespace backstride
