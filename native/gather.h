// SPDX-License-Identifier: Apache-2.0
// The transposed convolution and its input gradient: every cell of the result gathers the taps that reach it.
#pragma once

#include "epilogue.h"
#include "pack.h"
#include "plan.h"

namespace backstride {

/// The filter as `gather` reads it, not packed yet, for all plans that differ from this one in batch and lengths alone.
template <class T> PackedFilter<T> panels(const Plan &plan, const View &filter);

/// Whether each panel is used so little that a filter which is not packed is best packed in passing.
bool panels_are_used_once(const Plan &plan);

/// `source` is the operand that is neither the filter nor the result. T is the type of the sums.
template <class T>
void gather(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
            const View &target, Poll poll);

/// The same for some cells of the result, whose steps are 1 or the strides.
template <class T>
void gather_cells(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
                  const View &target, const std::vector<Cells> &cells, Poll poll);

} // namespace backstride
