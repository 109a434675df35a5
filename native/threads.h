// SPDX-License-Identifier: Apache-2.0
// The thread pool. It decides when and where work runs, never what a result's bits are.
#pragma once

#include <functional>
#include <limits>

#include "element.h"

namespace backstride {

/// Asked now and then on the calling thread while its work goes on; true stops the work.
using Poll = bool (*)();

/// How many threads one call may use, the calling one included; a process-wide setting.
void set_threads(int count);
int threads();

/// Thrown where work was stopped because its Poll said so.
struct Stopped {};

/// Calls body(i) once for every 0 <= i < count, on the calling thread and on the pool's, on `most` of them at most.
/// Many threads may call at once; each helps with its own work. If `poll` stops it, or a body throws, the rest is left
/// undone, and Stopped or the body's exception is thrown here.
void parallel_for(Index count, const std::function<void(Index)> &body, Poll poll,
                  Index most = std::numeric_limits<Index>::max());

/// Inside a body: has this work been stopped? Long bodies ask between their steps and return early.
bool interrupted();

} // namespace backstride
