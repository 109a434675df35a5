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

/// Uninitialized memory for a result. The pages of fresh memory cost more than many a layer, so memory that was given
/// back is kept for the next results of about that size: at most kMostKept bytes, the least recently used going first.
/// These three are called by one thread at a time; in Python, by the one that holds the GIL.
class ResultMemory {
  public:
    explicit ResultMemory(Index bytes);
    ~ResultMemory();
    ResultMemory(const ResultMemory &) = delete;
    ResultMemory &operator=(const ResultMemory &) = delete;
    void *data() const { return data_; }

    /// Gives all that is kept back to the system.
    static void release();

  private:
    Index bytes_;
    void *data_;
};

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
