// SPDX-License-Identifier: Apache-2.0
#include "cpu.h"

#include <algorithm>

#if defined(BACKSTRIDE_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace backstride {
namespace {

#if defined(BACKSTRIDE_AMX)
// Requests of arch_prctl, and the number of the component of the processor's state, as Linux has them.
constexpr int kSupportedComponents = 0x1021, kRequestComponent = 0x1023, kMatrixData = 18;

/// Whether the processor multiplies matrices of bfloat16, and the operating system would save its state.
bool has_matrix_unit() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kBfloat = 1u << 22, kTiles = 1u << 24, kVectors = 1u << 5;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBfloat) || !(d & kTiles) ||
        !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & kVectors))
        return false;
    unsigned long long components = 0;
    return syscall(SYS_arch_prctl, kSupportedComponents, &components) == 0 && components >> kMatrixData & 1;
}
#endif

Isa active = best_isa();

} // namespace

Isa active_isa() { return active; }

void lower_isa(Isa isa) { active = std::min(active, isa); }

Isa best_isa() {
#if defined(BACKSTRIDE_X86)
    // These ask the operating system too: registers that it does not save count as absent.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
#if defined(BACKSTRIDE_AMX)
        if (has_matrix_unit())
            return Isa::amx;
#endif
        return Isa::avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return Isa::avx2;
#elif defined(BACKSTRIDE_AARCH64)
    return Isa::neon; // every such processor has it
#endif
    return Isa::portable;
}

bool matrix_unit_granted() {
#if defined(BACKSTRIDE_AMX)
    static const bool granted = syscall(SYS_arch_prctl, kRequestComponent, kMatrixData) == 0;
    return granted;
#else
    return false;
#endif
}

} // namespace backstride
