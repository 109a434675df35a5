// SPDX-License-Identifier: Apache-2.0
// XLA's way to the core, for JAX.
#pragma once

namespace backstride {

/// A target of XLA's foreign function interface: the functions for two of its stages, and the version of the interface
/// that they are built for.
struct XlaTarget {
    void *instantiate, *execute;
    int major, minor;
};
XlaTarget xla_target();

} // namespace backstride
