// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <cstdio>
#include <new>

#include <unistd.h>

namespace backstride {
namespace {

/// A std::bad_alloc that says why.
class TooLarge : public std::bad_alloc {
  public:
    explicit TooLarge(double bytes) {
        std::snprintf(
            text_, sizeof text_,
            "a packed filter, a native copy of an array, or sums would take %.1f GiB; this machine has %.1f GiB "
            "of memory",
            bytes / kGiB, static_cast<double>(physical_memory()) / kGiB);
    }
    const char *what() const noexcept override { return text_; }

  private:
    static constexpr double kGiB = 1 << 30;
    char text_[160];
};

} // namespace

Index physical_memory() {
    static const Index bytes = Index{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
    return bytes;
}

void *allocate(Index count, Index size) {
    constexpr Index kLine = 64;
    if (count > physical_memory() / size)
        throw TooLarge(static_cast<double>(count) * static_cast<double>(size));
    const Index bytes = (count * size + kLine - 1) / kLine * kLine;
    void *data = std::aligned_alloc(kLine, static_cast<std::size_t>(bytes > 0 ? bytes : kLine));
    if (!data)
        throw TooLarge(static_cast<double>(bytes));
    return data;
}

} // namespace backstride
