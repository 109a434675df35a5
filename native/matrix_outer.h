// SPDX-License-Identifier: Apache-2.0
// The filter gradient by a processor's matrix unit.
#pragma once

#include <optional>

#include "plan.h"

namespace backstride {

/// How much the unit does for it; nothing where the planes of a chain of additions outgrow the workspace.
struct OuterWork {
    double products; // multiply-adds, of whole tiles
    double planes;   // elements of both factors that are made planes
    double sums;     // that are added to the result
};
std::optional<OuterWork> outer_work(const Plan &plan);

/// As `outer`. False if the workspace does not admit it or something in the result is not finite: then it is to be
/// computed in another way, which has only the terms of the definition.
bool matrix_outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll);

} // namespace backstride
