// SPDX-License-Identifier: Apache-2.0
// Scratch memory: packed filters, native copies, partial sums.
#pragma once

#include <cstdlib>
#include <memory>

#include "element.h"

namespace backstride {

/// Bytes of memory that this machine has.
Index physical_memory();

/// Uninitialized memory aligned to a cache line. Throws std::bad_alloc, at once if the machine has not that much:
/// an operating system that overcommits would grant it and kill the process later.
void *allocate(Index count, Index size);

/// An array of `count` uninitialized elements.
template <class T> class Buffer {
  public:
    explicit Buffer(Index count) : data_(static_cast<T *>(allocate(count, sizeof(T)))) {}
    T *get() const { return data_.get(); }

  private:
    struct Free {
        void operator()(T *data) const { std::free(data); }
    };
    std::unique_ptr<T, Free> data_;
};

} // namespace backstride
