// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <algorithm>

#include "cost.h"

namespace backstride {
namespace {

constexpr int kNumbersOfAxis = 6;

int rank_of(std::span<const Index> axes) {
    const auto rank = static_cast<int>(axes.size()) / kNumbersOfAxis;
    if (rank < 1 || rank > 3 || axes.size() % kNumbersOfAxis != 0)
        throw std::invalid_argument("the core has one to three spatial axes of six numbers");
    return rank;
}

/// The instruction set where none is named. With vectors of 512 bits a processor slows down for what it does
/// next, which after a tiny layer takes longer than the layer: of 4x4 pixels, kernel 4 and 8 channels a jitted call of
/// JAX took 8.4 us, with vectors of 256 bits 7.1; of 16 channels one from NumPy 10.3 and 9.3.
Isa isa_for(const Description &d, const Geometry &geometry) {
#if defined(BACKSTRIDE_X86)
    constexpr double kTiny = 1 << 16;
    if (!d.packed && d.algorithm.empty() && products(geometry) < kTiny)
        return std::min(active_isa(), Isa::avx2);
#endif
    return active_isa();
}

Plan plan_of(const Description &d) {
    Geometry geometry{d.batch, d.in_channels, d.out_channels, d.groups, {}};
    const int rank = rank_of(d.axes);
    for (int i = 0; i < 3; ++i)
        geometry.axes[i] = {1, 1, 1, 1, 1, 0};
    for (int i = 0; i < rank; ++i) {
        const auto axis = d.axes.subspan(static_cast<std::size_t>(i * kNumbersOfAxis), kNumbersOfAxis);
        geometry.axes[i + 3 - rank] = {axis[0], axis[1], axis[2], axis[3], axis[4], axis[5]};
    }
    const Isa isa = !d.kernel.empty() ? best_isa()
                    : d.isa.empty()   ? isa_for(d, geometry)
                                      : std::min(best_isa(), named<Isa>(kIsaNames, d.isa));
    return make_plan(named<Operand>(kOperandNames, d.wrt), named<Element>(kElementNames, d.element), geometry,
                     {isa, named<Precision>(kPrecisionNames, d.precision), d.packed, d.channels_first, d.algorithm,
                      d.kernel, d.workspace});
}

} // namespace

Call::Call(const Description &description)
    : plan_(plan_of(description)), rank_(rank_of(description.axes)), channels_first_(description.channels_first) {}

View Call::view(const Array &array, Operand operand) const {
    const bool filter = operand == Operand::filter;
    View view{array.data, {1, 1, 1, 1, 1}, {0, 0, 0, 0, 0}};
    if (static_cast<int>(array.shape.size()) != rank_ + 2 || array.item_size != size_of(plan_.element))
        throw std::invalid_argument("array does not match the plan's rank or element type");
    for (int i = 0; i < rank_ + 2; ++i) {
        const int to = filter                               ? i + 3 - rank_
                       : channels_first_ && i == 1          ? 4
                       : i == 0                             ? 0
                       : i == rank_ + 1 && !channels_first_ ? 4
                                                            : i - channels_first_ + 3 - rank_;
        view.shape[to] = array.shape[static_cast<std::size_t>(i)];
        view.stride[to] = array.stride[static_cast<std::size_t>(i)];
    }
    const Geometry &g = plan_.geometry;
    for (int i = 0; i < 3; ++i) {
        const Axis &axis = g.axes[i];
        const Index expected = filter ? axis.kernel : operand == Operand::input ? axis.input : axis.output;
        if (view.shape[filter ? i : i + 1] != expected)
            throw std::invalid_argument("array does not match the plan's lengths");
    }
    const bool fits = filter ? view.shape[3] == g.out_channels / g.groups && view.shape[4] == g.in_channels
                             : view.shape[0] == g.batch &&
                                   view.shape[4] == (operand == Operand::input ? g.in_channels : g.out_channels);
    if (!fits)
        throw std::invalid_argument("array does not match the plan's batch or channels");
    return view;
}

} // namespace backstride
