// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <new>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace backstride {
namespace {

/// A std::bad_alloc that says why.
class TooLarge : public std::bad_alloc {
  public:
    TooLarge(const char *what, double bytes) {
        std::snprintf(text_, sizeof text_, "%s would take %.1f GiB; this machine has %.1f GiB of memory", what,
                      bytes / kGiB, static_cast<double>(physical_memory()) / kGiB);
    }
    const char *what() const noexcept override { return text_; }

  private:
    static constexpr double kGiB = 1 << 30;
    char text_[160];
};

constexpr const char *kScratch = "a packed filter, a native copy of an array, or sums";

/// Memory that results have given back, the least recently used first.
struct Kept {
    Index bytes;
    void *data;
};
std::vector<Kept> kept;
Index kept_bytes = 0;

constexpr Index kMostKept = 256 << 20;
constexpr Index kHugePage = 2 << 20;
// A kept block serves a result of at least so much of its size.
constexpr double kLeastUse = 0.75;

void drop_oldest() {
    std::free(kept.front().data);
    kept_bytes -= kept.front().bytes;
    kept.erase(kept.begin());
}

} // namespace

Index physical_memory() {
    static const Index bytes = Index{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
    return bytes;
}

void *allocate(Index count, Index size) {
    constexpr Index kLine = 64;
    if (count > physical_memory() / size)
        throw TooLarge(kScratch, static_cast<double>(count) * static_cast<double>(size));
    const Index bytes = (count * size + kLine - 1) / kLine * kLine;
    void *data = std::aligned_alloc(kLine, static_cast<std::size_t>(bytes > 0 ? bytes : kLine));
    if (!data)
        throw TooLarge(kScratch, static_cast<double>(bytes));
    return data;
}

ResultMemory::ResultMemory(Index bytes) : bytes_((bytes + kHugePage - 1) / kHugePage * kHugePage) {
    const auto fits = [&](const Kept &block) {
        return block.bytes >= bytes_ && static_cast<double>(bytes_) >= kLeastUse * static_cast<double>(block.bytes);
    };
    // The most recently used one is the likeliest to be in a cache.
    if (const auto found = std::find_if(kept.rbegin(), kept.rend(), fits); found != kept.rend()) {
        bytes_ = found->bytes;
        data_ = found->data;
        kept_bytes -= bytes_;
        kept.erase(std::next(found).base());
        return;
    }
    data_ = std::aligned_alloc(kHugePage, static_cast<std::size_t>(bytes_));
    if (!data_) {
        release();
        data_ = std::aligned_alloc(kHugePage, static_cast<std::size_t>(bytes_));
    }
    if (!data_)
        throw TooLarge("the result", static_cast<double>(bytes_));
#ifdef MADV_HUGEPAGE
    madvise(data_, static_cast<std::size_t>(bytes_), MADV_HUGEPAGE); // where it is not granted, small pages do
#endif
}

ResultMemory::~ResultMemory() {
    if (bytes_ > kMostKept) {
        std::free(data_);
        return;
    }
    while (kept_bytes + bytes_ > kMostKept)
        drop_oldest();
    try {
        kept.push_back({bytes_, data_});
        kept_bytes += bytes_;
    } catch (const std::bad_alloc &) {
        std::free(data_);
    }
}

void ResultMemory::release() {
    while (!kept.empty())
        drop_oldest();
}

} // namespace backstride
