// SPDX-License-Identifier: Apache-2.0
// Memory: results, packed filters, native copies, partial sums.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>

#include "element.h"

namespace backstride {

/// Bytes of memory that this machine has.
Index physical_memory();

/// Uninitialized memory, aligned to a cache line. Throws std::bad_alloc, at once if the machine has not that much: an
/// operating system that overcommits would grant it and kill the process later.
///
/// The pages of fresh memory cost more than many a layer, so memory that was given back is kept, the least recently
/// used going first: at most 256 MB of large blocks, for what uses three quarters of one, and, of others, 1.5 MB for
/// each thread while it works on a job, for what uses a tenth of one.
class Memory {
  public:
    explicit Memory(Index bytes);
    ~Memory();
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    void *data() const { return data_; }

    /// Bytes that memory of so many takes, in whole lines or pages; and the most that takes no more than so many.
    static Index rounded(Index bytes);
    static Index within(Index bytes);

    /// Gives all large memory that is kept back to the system.
    static void release();
    /// While it lives, its thread works on a job, and may keep memory for as long.
    class Work {
      public:
        explicit Work(bool keeps);
        ~Work();
        Work(const Work &) = delete;
        Work &operator=(const Work &) = delete;

      private:
        const bool keeps_;
    };
    /// While it lives, if it applies, jobs that this thread begins are to keep nothing: what they keep is beyond the
    /// workspace that they may take.
    class Unkept {
      public:
        explicit Unkept(bool applies);
        ~Unkept();
        Unkept(const Unkept &) = delete;
        Unkept &operator=(const Unkept &) = delete;

      private:
        const bool outer_;
    };
    /// Whether a job that this thread begins may keep memory.
    static bool keeps();

  private:
    Index bytes_;
    void *data_;
};

/// Where a call can't do with the workspace that it may take.
class WorkspaceTooSmall : public std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

/// Memory that a call may take at a time besides its arrays and the packed filter. It is what blocks and the number of
/// threads are chosen for; where it is `binding`, a call that takes more in any case is refused.
struct Workspace {
    Index bytes = 64 << 20;
    bool binding = false;

    /// Throws WorkspaceTooSmall if it is binding and less than that.
    void admit(Index least) const;
    /// How many threads may take `each`, when `taken` is taken already.
    Index threads(Index each, Index taken = 0) const {
        return std::max<Index>(1, (bytes - taken) / std::max<Index>(each, 1));
    }
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
