// SPDX-License-Identifier: Apache-2.0
// The transposed convolution and its input gradient by a processor's matrix unit.
#pragma once

#include <functional>
#include <vector>

#include "epilogue.h"
#include "pack.h"
#include "plan.h"

namespace backstride {

/// True if such a call can be computed by the unit, here or by matrix_outer.h: of bfloat16, or of float32 and float16
/// in three planes, without dilation.
bool matrix_fits(const Plan &plan);

/// Whether zeros beyond the edges of the source are multiplied, so that all cells of a phase have the same taps, rather
/// than the filter read again for those at the edges.
bool extends(const Plan &plan);

/// The filter as `matrix` reads it, packed already if the layer is folded.
PackedPairs pairs(const Plan &plan, const View &filter, Poll poll);

/// Whether a filter that is not packed yet is packed panel by panel, where it is used: by each of these all of the
/// source is read, which must not be far away.
bool packs_as_used(const Plan &plan);

/// As `gather`. Calls `again` with those cells of the result that are to be computed anew in another way: the unit
/// takes subnormal numbers for zeros, and planes of the largest are infinite, which an infinity or NaN shows.
void matrix(const Plan &plan, const View &source, const PackedPairs &filter, const Epilogue<float> &epilogue,
            const View &target, const std::function<void(const std::vector<Cells> &)> &again, Poll poll);

} // namespace backstride
