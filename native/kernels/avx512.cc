// SPDX-License-Identifier: Apache-2.0
// AVX-512 (F, DQ, BW, VL).
#include "avx512.h"

#include "combine.h"
#include "moves.h"
#include "stripe.h"

namespace backstride {

#define KERNEL_avx512(...) DEFINE_KERNEL(avx512, __VA_ARGS__)
#define KERNEL_avx2(...)
#define KERNEL_portable(...)
#define STRIPE_avx512(...) DEFINE_STRIPE(avx512, __VA_ARGS__)
#define STRIPE_avx2(...)
#define STRIPE_portable(...)
#define COMBINE_avx512(...) DEFINE_COMBINE(avx512, __VA_ARGS__)
#define COMBINE_avx2(...)
#define COMBINE_portable(...)
#define MOVE_avx512(...) DEFINE_MOVE(avx512, __VA_ARGS__)
#define MOVE_avx2(...)
#define MOVE_amx(...)
#define MOVE_portable(...)
#include "kernels.inc"

double fma_burst_avx512(Index steps) { return burst<Vector<float>>(steps); }

} // namespace backstride
