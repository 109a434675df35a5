// SPDX-License-Identifier: Apache-2.0
// Instruction sets, from the poorest to the richest.
#pragma once

#include <string_view>

namespace backstride {

enum class Isa { portable, avx2, avx512 };

constexpr std::string_view kIsaNames[] = {"portable", "avx2", "avx512"};

/// The richest instruction set for which both this machine and this build have kernels.
Isa best_isa();

} // namespace backstride
