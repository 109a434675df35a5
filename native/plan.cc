// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>

#include "cost.h"
#include "lanes.h"
#include "matrix.h"
#include "matrix_outer.h"
#include "merged.h"
#include "outer.h"
#include "packed.h"
#include "scatter.h"
#include "winograd.h"

namespace backstride {

Channels::Channels(const Plan &plan)
    : depth(plan.geometry.in_channels / plan.geometry.groups),
      columns(plan.geometry.out_channels / plan.geometry.groups) {
    if (plan.wrt == Operand::input)
        std::swap(depth, columns);
}

Element sum_of(Element element) {
    switch (element) {
    case Element::float16:
    case Element::bfloat16: return Element::float32;
    case Element::uint8:
    case Element::uint16: return Element::uint32;
    default: return element;
    }
}

namespace {

[[noreturn]] void refuse(std::string_view kernel) {
    throw std::invalid_argument("kernel " + std::string(kernel) + " does not fit these elements or this machine");
}

/// The cheapest algorithm of plain sums in tiles. They decide how the filter gradient's sums are grouped, and so bits,
/// which must not depend on the instruction set; nor do their costs, in relation to each other.
Algorithm plainest(const Plan &plan) {
    return cost(plan, Algorithm::taps, false) < cost(plan, Algorithm::tiles, false) ? Algorithm::taps
                                                                                    : Algorithm::tiles;
}

/// The same by plain sums.
Plan plain(const Plan &plan) {
    Plan result = plan;
    if (plan.algorithm != Algorithm::tiles && plan.algorithm != Algorithm::taps)
        result.algorithm = plainest(plan);
    return result;
}

/// A plan by tiles, of kernels that suit its columns.
Plan by_tiles(Operand wrt, Element element, const Geometry &geometry, const Choice &choice) {
    const bool channelwise =
        geometry.groups > 1 && geometry.groups == geometry.in_channels && geometry.groups == geometry.out_channels;
    const Index groups = channelwise ? 1 : geometry.groups;
    const Index columns = (wrt == Operand::output ? geometry.out_channels : geometry.in_channels) / groups;
    const Element sum = sum_of(element);
    const Kernel &kernel = choose_kernel(choice.isa, sum, columns);
    const Kernel &narrow = choose_kernel(choice.isa, sum, columns % kernel.columns);
    const Kernel &tail = columns % kernel.columns <= narrow.columns ? narrow : kernel;
    Plan plan{wrt, element, geometry, &kernel, &tail, choice.isa, choice.precision, choice.channels_first, channelwise};
    plan.algorithm = plainest(plan);
    return plan;
}

/// The same layer at large sizes, by which what serves all sizes is chosen.
Plan large(const Plan &plan) {
    constexpr Index kBatch = 16, kLength = 96, kLongest = Index{1} << 40;
    Plan large = plan;
    large.geometry.batch = kBatch;
    for (Axis &axis : large.geometry.axes)
        if (axis.kernel > 1 || axis.stride > 1) {
            axis.input = kLength;
            axis.output = kLength * std::min(axis.stride, kLongest);
        }
    return large;
}

/// The cheapest scheme that the precision admits. One for a filter that is packed already follows from the layer alone;
/// it has 4 points where one of 6 would make the filter very large: such layers have few pixels, for which reading it
/// takes longer than multiplying (DCGAN's first, 4x4 pixels, 16 ms instead of 12).
std::optional<Scheme> cheapest_scheme(const Plan &plan, bool packed) {
    constexpr double kMostPoints = 32 << 20;
    std::optional<Scheme> cheapest;
    double least = 0;
    Plan sized = packed ? large(plan) : plan;
    for (const int points : {4, 3, 6}) {
        if (plan.precision == Precision::strict || (points == 6 && plan.precision != Precision::fast))
            continue;
        sized.scheme = make_scheme(plan, points);
        if (points == 6 && packed && sized.scheme && work_of(sized, *sized.scheme).filter > kMostPoints)
            continue;
        if (const double time = cost(sized, Algorithm::winograd, packed); sized.scheme && (!cheapest || time < least)) {
            least = time;
            cheapest = sized.scheme;
        }
    }
    return cheapest;
}

/// The cheapest algorithm; for a filter that is packed already, of those that it is packed for.
void take_cheapest(Plan &plan, bool packed) {
    plan.scheme = cheapest_scheme(plan, packed);
    const auto able = [&](Algorithm algorithm) {
        return !packed || plan.wrt == Operand::filter || algorithm == Algorithm::scatter ||
               packs_for_any_sizes(plan, algorithm);
    };
    double least = cost(plan, plan.algorithm, packed);
    for (const Algorithm other : kAlgorithms)
        if (const double time = cost(plan, other, packed); time < least && able(other)) {
            least = time;
            plan.algorithm = other;
        }
}

/// An algorithm by name where it can be used; tiles elsewhere.
void take_algorithm(Plan &plan, std::string_view name) {
    struct {
        Algorithm algorithm;
        bool (*fits)(const Plan &);
    } constexpr kFitting[] = {{Algorithm::lanes, lanes_fit},
                              {Algorithm::scatter, scatter_fits},
                              {Algorithm::merged, merged_fits},
                              {Algorithm::matrix, matrix_fits}};
    for (const auto &[algorithm, fits] : kFitting)
        if (name == kAlgorithmNames[static_cast<int>(algorithm)]) {
            if (fits(plan))
                plan.algorithm = algorithm;
            return;
        }
    if (name == "tiles" || name == "taps") {
        if (plan.wrt == Operand::filter && !plan.channelwise)
            plan.algorithm = name == "taps" ? Algorithm::taps : Algorithm::tiles;
    } else {
        plan.scheme = make_scheme(plan, name.back() - '0');
        if (plan.scheme)
            plan.algorithm = Algorithm::winograd;
    }
}

/// What kernels of an algorithm read: the type of the sums, but a matrix unit bfloat16 as it is.
Element element_of(const Plan &plan, std::string_view algorithm) {
    const bool matrix = algorithm == kAlgorithmNames[static_cast<int>(Algorithm::matrix)];
    return matrix && plan.element == Element::bfloat16 ? plan.element : sum_of(plan.element);
}

/// A kernel by name; where those for whole layers can't be used, the tiles of their instruction set stand in.
void take_kernel(Plan &plan, std::string_view name) {
    for (const Kernel &kernel : kernels())
        if (kernel.name == name) {
            if (kernel.element != sum_of(plan.element) || kernel.isa > plan.isa)
                refuse(name);
            plan.kernel = plan.tail = &kernel;
            plan.isa = kernel.isa;
            return;
        }
    for (const LayerKernel &kernel : layer_kernels())
        if (kernel.name == name) {
            if (kernel.element != element_of(plan, kernel.algorithm) || kernel.isa > plan.isa)
                refuse(name);
            plan.isa = kernel.isa;
            plan = tiled(plan, plan.geometry);
            return take_algorithm(plan, kernel.algorithm);
        }
    throw std::invalid_argument("there is no kernel named " + std::string(name));
}

} // namespace

Plan make_plan(Operand wrt, Element element, const Geometry &geometry, const Choice &choice) {
    Plan plan = by_tiles(wrt, element, geometry, choice);
    if (!choice.kernel.empty())
        take_kernel(plan, choice.kernel);
    else if (!choice.algorithm.empty()) {
        take_algorithm(plan, choice.algorithm);
        plan.fixed = true;
    } else
        take_cheapest(plan, choice.packed);
    plan.workspace = choice.workspace;
    return plan;
}

Plan tiled(const Plan &plan, const Geometry &geometry) {
    Plan result =
        by_tiles(plan.wrt, plan.element, geometry, {plan.isa, plan.precision, false, plan.channels_first, {}, {}});
    result.workspace = plan.workspace;
    return result;
}

bool packs_for_any_sizes(const Plan &plan, Algorithm algorithm) {
    if (plan.fixed)
        return algorithm == plan.algorithm;
    const Plan sized = large(plan);
    double others = cost(sized, Algorithm::tiles, true);
    if (algorithm != Algorithm::matrix)
        others = std::min(others, cost(sized, Algorithm::matrix, true));
    return cost(sized, algorithm, true) < others;
}

std::string_view algorithm_name(const Plan &plan) {
    if (plan.algorithm != Algorithm::winograd)
        return kAlgorithmNames[static_cast<int>(plan.algorithm)];
    const int points = std::max(plan.scheme->axes[0].form().points, plan.scheme->axes[1].form().points);
    return points == 3 ? "winograd3" : points == 4 ? "winograd4" : "winograd6";
}

std::string_view kernel_name(const Plan &plan) {
    if (plan.algorithm == Algorithm::merged)
        return merged_layer(plan).kernel->name;
    const std::string_view algorithm = algorithm_name(plan);
    const bool by_vectors = plan.algorithm == Algorithm::winograd && !by_unit(plan);
    for (const LayerKernel &kernel : layer_kernels()) // the richest first
        if (kernel.isa <= plan.isa && kernel.element == element_of(plan, algorithm) && kernel.algorithm == algorithm &&
            !(by_vectors && matrix_functions(kernel.isa)))
            return kernel.name;
    return plan.kernel->name;
}

bool same_layer(const Plan &a, const Plan &b) {
    const Geometry &g = a.geometry, &h = b.geometry;
    return a.wrt == b.wrt && a.element == b.element && a.precision == b.precision && a.kernel == b.kernel &&
           a.isa == b.isa && a.channels_first == b.channels_first && g.in_channels == h.in_channels &&
           g.out_channels == h.out_channels && g.groups == h.groups &&
           std::equal(g.axes, g.axes + 3, h.axes, [](const Axis &x, const Axis &y) {
               return x.kernel == y.kernel && x.stride == y.stride && x.dilation == y.dilation;
           });
}

void run(const Plan &plan, const View &first, const View &second, const View &result, Poll poll) {
    visit(sum_of(plan.element), [&](auto value) {
        using T = decltype(value);
        if constexpr (std::is_same_v<typename Sum<T>::type, T>) {
            if (plan.wrt == Operand::filter) {
                bool done = false;
                if constexpr (std::is_floating_point_v<T>)
                    done =
                        plan.algorithm == Algorithm::winograd && winograd_outer<T>(plan, first, second, result, poll);
                if constexpr (std::is_same_v<T, float>)
                    done = done ||
                           (plan.algorithm == Algorithm::matrix && matrix_outer(plan, first, second, result, poll));
                if (!done)
                    outer<T>(plain(plan), first, second, result, poll);
                return;
            }
            const auto &[source, filter] =
                plan.wrt == Operand::output ? std::tie(first, second) : std::tie(second, first);
            Packed<T>(plan, filter, false, poll).run(plan, source, result, poll);
        }
    });
}

} // namespace backstride
