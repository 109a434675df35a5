// SPDX-License-Identifier: Apache-2.0
// The thread pool. It decides when and where work runs, never what a result's bits are.
#pragma once

#include <functional>

#include "element.h"

namespace backstride {

/// Asked now and then on the calling thread while its work goes on; true stops the work.
using Poll = bool (*)();

/// How many threads one call may use, the calling one included; a process-wide setting.
void set_threads(int count);
int threads();

/// Calls body(i) once for every 0 <= i < count, on the calling thread and on the pool's. Many threads may call at
/// once; each helps with its own work. Returns false if `poll` stopped it, and then the rest was not done.
/// An exception in a body stops the work and is thrown again here.
bool parallel_for(Index count, const std::function<void(Index)> &body, Poll poll);

/// Inside a body: has this work been stopped? Long bodies ask between their steps and return early.
bool interrupted();

} // namespace backstride
