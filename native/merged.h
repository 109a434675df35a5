// SPDX-License-Identifier: Apache-2.0
// Layers of large strides and few channels: the phases along the width as channels of tiles.
#pragma once

#include "epilogue.h"
#include "pack.h"
#include "plan.h"

namespace backstride {

/// True if the output can be computed in this way: one group, and as many taps in every phase of the width.
bool merged_fits(const Plan &plan);

/// The layer that computes it: of stride 1 along the width, with a channel for every phase of every output channel.
Plan merged_layer(const Plan &plan);

/// Whether the output can be written as that layer's: phases and channels evenly spaced in memory.
bool merges(const View &output);

/// The filter of that layer, packed.
template <class T> PackedFilter<T> merged_panels(const Plan &plan, const View &filter, Poll poll);

/// Computes the output, with the bits of Gather.
template <class T>
void merged(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
            const View &target, Poll poll);

} // namespace backstride
