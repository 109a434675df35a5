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

/// True if such a call can be computed by the processor's matrix unit, in bfloat16.
bool matrix_fits(const Plan &plan);

/// The filter as `gather_pairs` reads it, not packed yet.
PackedPairs pairs(const Plan &plan, const View &filter);

/// As `gather`, by the matrix unit. Calls `again` with those cells of the result that are to be computed anew in
/// another way: the unit takes subnormal numbers for zeros, which an infinity tells apart.
void gather_pairs(const Plan &plan, const View &source, const PackedPairs &filter, const Epilogue<float> &epilogue,
                  const View &target, const std::function<void(const std::vector<Cells> &)> &again, Poll poll);

} // namespace backstride
