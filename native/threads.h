// SPDX-License-Identifier: Apache-2.0
// The thread pool. It decides when and where work runs, never what a result's bits are.
#pragma once

#include <functional>
#include <limits>

#include "element.h"

namespace backstride {

/// Asked now and then on the calling thread while its work goes on; true stops the work.
using Poll = bool (*)();

/// How many threads one call may use, the calling one included: a process-wide setting, or fewer on a borrowed crew.
void set_threads(int count);
int threads();

/// GOMP_parallel, which runtimes of OpenMP have: calls body(data) on so many threads at once, the calling one among
/// them, and waits for them.
using Crew = void (*)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

/// Makes the crew known on which the library that calls under `Borrowed` runs its own work.
void lend(Crew crew);

/// While it lives, `threads` threads of the crew work on what its thread calls, and the pool does not: idle threads of
/// a crew spin for milliseconds, on the very cores. The pool does if `threads` is 0, before `lend`, and in a forked
/// child, where the crew has lost its threads.
class Borrowed {
  public:
    explicit Borrowed(int threads);
    ~Borrowed();
    Borrowed(const Borrowed &) = delete;
    Borrowed &operator=(const Borrowed &) = delete;

  private:
    int outer_;
};

/// Thrown where work was stopped because its Poll said so.
struct Stopped {};

/// Calls body(i) once for every 0 <= i < count, on the calling thread and its helpers, on `most` of them at most.
/// Many threads may call at once; each helps with its own work. If `poll` stops it, or a body throws, the rest is left
/// undone, and Stopped or the body's exception is thrown here.
void parallel_for(Index count, const std::function<void(Index)> &body, Poll poll,
                  Index most = std::numeric_limits<Index>::max());

/// Inside a body: has this work been stopped? Long bodies ask between their steps and return early.
bool interrupted();

} // namespace backstride
