// SPDX-License-Identifier: Apache-2.0
// The transposed convolution and its input gradient: every cell of the result gathers the taps that reach it.
#pragma once

#include "plan.h"

namespace backstride {

/// `source` is the operand that is neither the filter nor the result. T is the type of the sums.
template <class T> void gather(const Plan &plan, const View &source, const View &filter, const View &target, Poll poll);

} // namespace backstride
