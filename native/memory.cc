// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

namespace backstride {
namespace {

constexpr Index kLine = 64;
// From this size on, memory is kept, in whole huge pages.
constexpr Index kLarge = 1 << 20;
constexpr Index kHugePage = 2 << 20;
constexpr Index kMostKept = 256 << 20;
// From this size on, a thread that works on a job keeps the memory of one block for the next: allocators may give such
// sizes back to the system each time, whose fresh pages took a third of PaddleOCR's first layer with channels first.
// Beyond the job it would be in the way of other sizes: streams of 1,500 lengths grew by 7 MB instead of 3.
constexpr Index kOwn = 64 << 10, kMostOwn = 3 << 19;
// A kept block serves what uses at least so much of it.
constexpr double kLeastUse = 0.75, kLeastOwnUse = 0.1;

/// In what memory comes.
Index unit_of(Index bytes) { return bytes > kLarge - kLine ? kHugePage : kLine; }

/// A std::bad_alloc that says why.
class TooLarge : public std::bad_alloc {
  public:
    explicit TooLarge(Index bytes) {
        std::snprintf(text_, sizeof text_,
                      "a result, packed filter, native copy or sum would take %.1f GiB; this machine has %.1f GiB of "
                      "memory",
                      static_cast<double>(bytes) / kGiB, static_cast<double>(physical_memory()) / kGiB);
    }
    const char *what() const noexcept override { return text_; }

  private:
    static constexpr double kGiB = 1 << 30;
    char text_[160];
};

/// Gives memory back to the allocator, which may make small pieces of it next: these are not to take huge pages.
void give_back(void *data, [[maybe_unused]] Index bytes) {
#ifdef MADV_NOHUGEPAGE
    if (bytes >= kLarge)
        madvise(data, static_cast<std::size_t>(bytes), MADV_NOHUGEPAGE);
#endif
    std::free(data);
}

/// Memory that was given back, the least recently used first.
class Blocks {
  public:
    /// A block for `bytes`, which becomes the size it has, or null.
    void *take(Index &bytes, double least_use) {
        const auto fits = [&](const Block &block) {
            return block.bytes >= bytes && static_cast<double>(bytes) >= least_use * static_cast<double>(block.bytes);
        };
        // The most recently used one is the likeliest to be in a cache.
        const auto found = std::find_if(blocks_.rbegin(), blocks_.rend(), fits);
        if (found == blocks_.rend())
            return nullptr;
        const Block block = *found;
        blocks_.erase(std::next(found).base());
        bytes_ -= block.bytes;
        bytes = block.bytes;
        return block.data;
    }

    /// False if there is no memory to note it.
    bool give(void *data, Index bytes) {
        try {
            blocks_.push_back({bytes, data});
        } catch (const std::bad_alloc &) {
            return false;
        }
        bytes_ += bytes;
        return true;
    }

    void drop_to(Index most) {
        while (bytes_ > most) {
            const Block block = blocks_.front();
            give_back(block.data, block.bytes);
            bytes_ -= block.bytes;
            blocks_.erase(blocks_.begin());
        }
    }

  private:
    struct Block {
        Index bytes;
        void *data;
    };
    std::vector<Block> blocks_;
    Index bytes_ = 0;
};

/// Large memory, for all threads.
class Kept {
  public:
    void *take(Index &bytes) {
        const std::lock_guard lock(mutex_);
        return blocks_.take(bytes, kLeastUse);
    }

    void give(void *data, Index bytes) {
        if (bytes <= kMostKept) {
            const std::lock_guard lock(mutex_);
            blocks_.drop_to(kMostKept - bytes);
            if (blocks_.give(data, bytes))
                return;
        }
        give_back(data, bytes);
    }

    void release() {
        const std::lock_guard lock(mutex_);
        blocks_.drop_to(0);
    }

    std::mutex &mutex() { return mutex_; }

  private:
    std::mutex mutex_;
    Blocks blocks_;
};

/// Memory of medium size, of a thread that works on so many jobs that keep it, one within the other. It is empty
/// outside of them, so that nothing is left when the thread ends.
thread_local Blocks own;
thread_local int jobs = 0;
thread_local bool unkept = false;

bool is_own(Index bytes) { return jobs > 0 && bytes >= kOwn; }

/// Never destroyed, since threads may still run while the process exits. A fork waits until nobody is at it.
Kept &kept() {
    static Kept *const kept = [] {
        static Kept *const made = new Kept;
        pthread_atfork([] { made->mutex().lock(); }, [] { made->mutex().unlock(); }, [] { made->mutex().unlock(); });
        return made;
    }();
    return *kept;
}

} // namespace

Index physical_memory() {
    static const Index bytes = Index{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
    return bytes;
}

Index Memory::rounded(Index bytes) {
    const Index unit = unit_of(bytes);
    return std::max(unit, (bytes + unit - 1) / unit * unit);
}

Index Memory::within(Index bytes) {
    return bytes < kHugePage ? std::min(bytes, kLarge - 1) / kLine * kLine : bytes / kHugePage * kHugePage;
}

Memory::Memory(Index bytes) : bytes_(bytes) {
    if (bytes > physical_memory())
        throw TooLarge(bytes);
    const Index unit = unit_of(bytes);
    bytes_ = rounded(bytes);
    const bool large = bytes_ >= kLarge;
    data_ = large ? kept().take(bytes_) : is_own(bytes_) ? own.take(bytes_, kLeastOwnUse) : nullptr;
    if (data_)
        return;
    const auto allocated = [&] {
        return std::aligned_alloc(static_cast<std::size_t>(unit), static_cast<std::size_t>(bytes_));
    };
    data_ = allocated();
    if (!data_) {
        own.drop_to(0);
        release();
        data_ = allocated();
    }
    if (!data_)
        throw TooLarge(bytes);
#ifdef MADV_HUGEPAGE
    if (large)
        madvise(data_, static_cast<std::size_t>(bytes_), MADV_HUGEPAGE); // where it is not granted, small pages do
#endif
}

Memory::~Memory() {
    if (bytes_ >= kLarge) {
        kept().give(data_, bytes_);
        return;
    }
    if (is_own(bytes_)) {
        own.drop_to(kMostOwn - bytes_);
        if (own.give(data_, bytes_))
            return;
    }
    std::free(data_);
}

void Memory::release() { kept().release(); }

Memory::Unkept::Unkept(bool applies) : outer_(std::exchange(unkept, unkept || applies)) {}

Memory::Unkept::~Unkept() { unkept = outer_; }

bool Memory::keeps() { return !unkept; }

Memory::Work::Work(bool keeps) : keeps_(keeps) { jobs += keeps_; }

Memory::Work::~Work() {
    jobs -= keeps_;
    if (jobs == 0)
        own.drop_to(0);
}

void Workspace::admit(Index least) const {
    if (binding && least > bytes)
        throw WorkspaceTooSmall("`workspace_bytes` must be at least " + std::to_string(least) +
                                " for this call; got workspace_bytes=" + std::to_string(bytes));
}

} // namespace backstride
