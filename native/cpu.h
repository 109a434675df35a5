// SPDX-License-Identifier: Apache-2.0
// Instruction sets of the processor that this is built for, from the poorest to the richest.
#pragma once

#include <string_view>

namespace backstride {

#if defined(BACKSTRIDE_X86)
enum class Isa { portable, avx2, avx512 };
constexpr std::string_view kIsaNames[] = {"portable", "avx2", "avx512"};
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

} // namespace backstride
