// SPDX-License-Identifier: Apache-2.0
#include "kernel.h"

#include <stdexcept>

namespace backstride {
namespace {

template <class T> constexpr Element element_of();
template <> constexpr Element element_of<Bfloat>() { return Element::bfloat16; }
template <> constexpr Element element_of<float>() { return Element::float32; }
template <> constexpr Element element_of<double>() { return Element::float64; }
template <> constexpr Element element_of<std::uint32_t>() { return Element::uint32; }
template <> constexpr Element element_of<std::uint64_t>() { return Element::uint64; }

constexpr Kernel kTable[] = {
#define KERNEL(isa, T, type, rows, columns)                                                                            \
    {#type "_" #rows "x" #columns "_" #isa, Isa::isa, element_of<T>(), rows, columns,                                  \
     &type##_##rows##x##columns##_##isa},
#include "kernels.inc"
#undef KERNEL
};

constexpr LayerKernel kLayerTable[] = {
#define LAYER(isa, T, type, algorithm) {#type "_" algorithm "_" #isa, Isa::isa, element_of<T>(), algorithm},
#define MATRIX(isa, S, type) LAYER(isa, S, type, "matrix")
#include "kernels.inc"
#undef MATRIX
#define STRIPE(isa, T, type) LAYER(isa, T, type, "lanes")
#include "kernels.inc"
#undef STRIPE
#define COMBINE(isa, T, type)                                                                                          \
    LAYER(isa, T, type, "winograd3") LAYER(isa, T, type, "winograd4") LAYER(isa, T, type, "winograd6")
#define POINTS COMBINE
#include "kernels.inc"
#undef POINTS
#undef COMBINE
#undef LAYER
};

} // namespace

std::span<const LayerKernel> layer_kernels() { return kLayerTable; }

std::span<const Kernel> kernels() { return kTable; }

const Kernel &choose_kernel(Isa isa, Element element, Index columns) {
    const Kernel *chosen = nullptr;
    for (const Kernel &kernel : kTable)
        if (kernel.element == element && kernel.isa <= isa) {
            if (!chosen)
                chosen = &kernel;
            else if (kernel.isa == chosen->isa && kernel.columns < chosen->columns && columns <= kernel.columns)
                chosen = &kernel;
        }
    if (!chosen)
        throw std::invalid_argument("there is no kernel for sums of this type");
    return *chosen;
}

#if defined(BACKSTRIDE_X86)
#define CHOOSE(table) isa >= Isa::avx512 ? table##_avx512 : isa == Isa::avx2 ? table##_avx2 : table##_portable
#elif defined(BACKSTRIDE_AARCH64)
#define CHOOSE(table) isa == Isa::neon ? table##_neon : table##_portable
#else
#define CHOOSE(table) static_cast<void>(isa), table##_portable
#endif
template <> const StripeFunctions<float> &stripe_functions(Isa isa) { return CHOOSE(f32_stripe); }
template <> const StripeFunctions<double> &stripe_functions(Isa isa) { return CHOOSE(f64_stripe); }
template <> const CombineFunctions<float> &combine_functions(Isa isa) { return CHOOSE(f32_combine); }
template <> const CombineFunctions<double> &combine_functions(Isa isa) { return CHOOSE(f64_combine); }
template <> const Moves<Half> &moves(Isa isa) { return CHOOSE(f16_moves); }
template <> const Moves<Bfloat> &moves(Isa isa) {
#if defined(BACKSTRIDE_AMX)
    if (isa == Isa::amx)
        return bf16_moves_amx;
#endif
    return CHOOSE(bf16_moves);
}
template <> const Moves<float> &moves(Isa isa) { return CHOOSE(f32_moves); }
template <> const Moves<double> &moves(Isa isa) { return CHOOSE(f64_moves); }
#undef CHOOSE

const MatrixFunctions *matrix_functions([[maybe_unused]] Isa isa) {
#if defined(BACKSTRIDE_AMX)
    if (isa == Isa::amx)
        return &matrix_amx;
#endif
    return nullptr;
}

double fma_burst(Isa isa, Index steps) {
    switch (isa) {
#if defined(BACKSTRIDE_X86)
    case Isa::amx:
    case Isa::avx512: return fma_burst_avx512(steps);
    case Isa::avx2: return fma_burst_avx2(steps);
#elif defined(BACKSTRIDE_AARCH64)
    case Isa::neon: return fma_burst_neon(steps);
#endif
    default: return fma_burst_portable(steps);
    }
}

} // namespace backstride
