// SPDX-License-Identifier: Apache-2.0
// One of the three operations at fixed sizes.
#pragma once

#include <string_view>
#include <vector>

#include "geometry.h"
#include "kernels/kernel.h"
#include "threads.h"
#include "view.h"

namespace backstride {

/// What a call needs to know besides its arrays: the derivative by `wrt` of F(input, filter, output), see Axis, and
/// how to compute it. Bits depend on the geometry, the element type and the instruction set; nothing else here.
struct Plan {
    Operand wrt;
    Element element;
    Geometry geometry;
    const Kernel *kernel;
    const Kernel *tail; // for the last panel of columns, which is narrower
    Isa isa;
    bool channelwise = false; // whether every channel has a filter of its own, so that channels are columns
    bool lanes = false;       // whether pixels take the lanes of vectors rather than columns
};

/// The element type of sums of `element`.
Element sum_of(Element element);

/// An empty `kernel` means the best one for `isa`; a name takes that kernel whatever the cost, as tests do.
Plan make_plan(Operand wrt, Element element, const Geometry &geometry, Isa isa, std::string_view kernel);

/// The name of the kernel that does the work.
std::string_view kernel_name(const Plan &plan);

/// Whether two plans differ in batch, lengths and what follows from them alone.
bool same_layer(const Plan &a, const Plan &b);

/// Computes `result` from the two other operands, in the order input, filter, output. No array may be empty.
/// Throws Stopped if `poll` stopped it, std::bad_alloc if memory is short; the result is then undefined.
void run(const Plan &plan, const View &first, const View &second, const View &result, Poll poll);

} // namespace backstride
