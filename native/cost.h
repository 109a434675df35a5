// SPDX-License-Identifier: Apache-2.0
// What a call costs by each algorithm: the model by which one is chosen.
#pragma once

#include "plan.h"

namespace backstride {

/// Nanoseconds of one thread of the machines that the constants were measured on. A filter that is not `packed` yet is
/// packed. What the plan can't be computed by costs infinity.
double cost(const Plan &plan, Algorithm algorithm, bool packed);

/// Multiply-adds of the definition, but for those beyond the edges.
double products(const Geometry &geometry);

/// So many columns of a matrix unit's products take as long as this many where there are enough of them.
double matrix_columns(Index columns);

} // namespace backstride
