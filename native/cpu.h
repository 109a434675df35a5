// SPDX-License-Identifier: Apache-2.0
// Instruction sets of the processor that this is built for, from the poorest to the richest.
#pragma once

#include <string_view>

namespace backstride {

#if defined(BACKSTRIDE_X86)
enum class Isa { portable, avx2, avx512, amx };
constexpr std::string_view kIsaNames[] = {"portable", "avx2", "avx512", "amx"};
#elif defined(BACKSTRIDE_AARCH64)
enum class Isa { portable, neon };
constexpr std::string_view kIsaNames[] = {"portable", "neon"};
#else
enum class Isa { portable };
constexpr std::string_view kIsaNames[] = {"portable"};
#endif

/// The richest instruction set for which both this machine and this build have kernels.
Isa best_isa();

/// The one for plans that name no kernel: the richest, or a poorer one that was asked for. It is lowered while the
/// package is imported, then left alone.
Isa active_isa();
void lower_isa(Isa isa);

/// Whether this process may use the matrix unit of the processor. The operating system is asked when the first layer
/// could make use of it, since a process that may has larger signal frames from then on.
bool matrix_unit_granted();

} // namespace backstride
