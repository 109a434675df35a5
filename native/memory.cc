// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <new>

#include <unistd.h>

namespace backstride {

Index physical_memory() {
    static const Index bytes = Index{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
    return bytes;
}

void *allocate(Index count, Index size) {
    constexpr Index kLine = 64;
    if (count > physical_memory() / size)
        throw std::bad_alloc();
    const Index bytes = (count * size + kLine - 1) / kLine * kLine;
    void *data = std::aligned_alloc(kLine, static_cast<std::size_t>(bytes > 0 ? bytes : kLine));
    if (!data)
        throw std::bad_alloc();
    return data;
}

} // namespace backstride
