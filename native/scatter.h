// SPDX-License-Identifier: Apache-2.0
// The transposed convolution of few pixels, whose filter is what takes time to read.
#pragma once

#include "epilogue.h"
#include "pack.h"
#include "plan.h"

namespace backstride {

/// True if such a call can be computed in this way: few pixels and few cells of the result.
bool scatter_fits(const Plan &plan);

/// Computes the output; reads each weight once. A filter that is not packed is packed tap by tap.
template <class T>
void scatter(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
             const View &target, Poll poll);

} // namespace backstride
