// SPDX-License-Identifier: Apache-2.0
#include "cpu.h"

#include <algorithm>

namespace backstride {
namespace {

Isa active = best_isa();

} // namespace

Isa active_isa() { return active; }

void lower_isa(Isa isa) { active = std::min(active, isa); }

Isa best_isa() {
#if defined(BACKSTRIDE_X86)
    // These ask the operating system too: registers that it does not save count as absent.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return Isa::avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return Isa::avx2;
#elif defined(BACKSTRIDE_AARCH64)
    return Isa::neon; // every such processor has it
#endif
    return Isa::portable;
}

} // namespace backstride
