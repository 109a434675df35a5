// SPDX-License-Identifier: Apache-2.0
// Memory: results, packed filters, native copies, partial sums.
#pragma once

#include <limits>
#include <memory>

#include "element.h"

namespace backstride {

/// Bytes of memory that this machine has.
Index physical_memory();

/// Uninitialized memory, aligned to a cache line. Throws std::bad_alloc, at once if the machine has not that much: an
/// operating system that overcommits would grant it and kill the process later.
///
/// The pages of fresh memory cost more than many a layer, so large memory that was given back is kept for the next of
/// about that size: at most 256 MB, the least recently used going first.
class Memory {
  public:
    explicit Memory(Index bytes);
    ~Memory();
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
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
    explicit Buffer(Index count)
        : memory_(
              std::make_unique<Memory>(count > kMost ? std::numeric_limits<Index>::max() : count * Index{sizeof(T)})) {}
    T *get() const { return static_cast<T *>(memory_->data()); }

  private:
    static constexpr Index kMost = std::numeric_limits<Index>::max() / Index{sizeof(T)};
    std::unique_ptr<Memory> memory_;
};

} // namespace backstride
