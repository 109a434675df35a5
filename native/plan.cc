// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>

#include "lanes.h"
#include "outer.h"
#include "packed.h"

namespace backstride {

Element sum_of(Element element) {
    switch (element) {
    case Element::float16:
    case Element::bfloat16: return Element::float32;
    case Element::uint8:
    case Element::uint16: return Element::uint32;
    default: return element;
    }
}

Plan make_plan(Operand wrt, Element element, const Geometry &geometry, Isa isa, std::string_view name) {
    const bool channelwise =
        geometry.groups > 1 && geometry.groups == geometry.in_channels && geometry.groups == geometry.out_channels;
    const Index groups = channelwise ? 1 : geometry.groups;
    const Index columns = (wrt == Operand::output ? geometry.out_channels : geometry.in_channels) / groups;
    const Element sum = sum_of(element);
    if (name.empty()) {
        const Index row_channels = wrt == Operand::output ? geometry.in_channels : geometry.out_channels;
        const Kernel &kernel = choose_kernel(isa, sum, columns, row_channels * size_of(sum));
        const Kernel &narrow = choose_kernel(isa, sum, columns % kernel.columns, 1);
        const Kernel &tail = columns % kernel.columns <= narrow.columns ? narrow : kernel;
        Plan plan{wrt, element, geometry, &kernel, &tail, isa, channelwise};
        plan.lanes = lanes_suit(plan);
        return plan;
    }
    for (const Kernel &kernel : kernels())
        if (kernel.name == name) {
            if (kernel.element != sum || kernel.isa > isa)
                throw std::invalid_argument("kernel " + std::string(name) +
                                            " does not fit these elements or this machine");
            return {wrt, element, geometry, &kernel, &kernel, kernel.isa, channelwise};
        }
    for (const StripeKernel &kernel : stripe_kernels())
        if (kernel.name == name) {
            // Where it can't be used, the tiles of its instruction set stand in.
            Plan plan = make_plan(wrt, element, geometry, kernel.isa, "");
            if (kernel.element != sum || kernel.isa > isa)
                throw std::invalid_argument("kernel " + std::string(name) +
                                            " does not fit these elements or this machine");
            plan.lanes = lanes_fit(plan);
            return plan;
        }
    throw std::invalid_argument("there is no kernel named " + std::string(name));
}

std::string_view kernel_name(const Plan &plan) {
    if (plan.lanes)
        for (const StripeKernel &kernel : stripe_kernels())
            if (kernel.isa == plan.isa && kernel.element == sum_of(plan.element))
                return kernel.name;
    return plan.kernel->name;
}

bool same_layer(const Plan &a, const Plan &b) {
    const Geometry &g = a.geometry, &h = b.geometry;
    return a.wrt == b.wrt && a.element == b.element && a.kernel == b.kernel && a.isa == b.isa &&
           g.in_channels == h.in_channels && g.out_channels == h.out_channels && g.groups == h.groups &&
           std::equal(g.axes, g.axes + 3, h.axes, [](const Axis &x, const Axis &y) {
               return x.kernel == y.kernel && x.stride == y.stride && x.dilation == y.dilation;
           });
}

void run(const Plan &plan, const View &first, const View &second, const View &result, Poll poll) {
    visit(sum_of(plan.element), [&](auto value) {
        using T = decltype(value);
        if constexpr (std::is_same_v<typename Sum<T>::type, T>) {
            if (plan.wrt == Operand::filter)
                return outer<T>(plan, first, second, result, poll);
            const auto &[source, filter] =
                plan.wrt == Operand::output ? std::tie(first, second) : std::tie(second, first);
            Packed<T>(plan, filter, false, poll).run(plan, source, result, poll);
        }
    });
}

} // namespace backstride
