// SPDX-License-Identifier: Apache-2.0
// XLA's way to the core, for JAX.
#pragma once

namespace backstride {

/// What XLA's foreign function interface registers: the type of the state that a compiled computation keeps for each
/// of its calls, and the functions that make the state and that compute.
struct XlaTarget {
    void *type_id, *type_info, *instantiate, *execute;
};
XlaTarget xla_target();

} // namespace backstride
