// SPDX-License-Identifier: Apache-2.0
#include "cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lanes.h"
#include "scatter.h"
#include "winograd.h"

namespace backstride {
namespace {

/// What one thread does in a nanosecond, in elements of float32. Measured on a Sapphire Rapids, by instruction set; the
/// choice, and with it the bits, is the same on every machine that has it.
struct Machine {
    double products; // multiply-adds of tiles
    double columns;  // in a vector
    double source;   // elements of the source that are made points
    double target;   // sums of points that are made results
    double lanes;    // elements of the source whose channels are put apart
    double weights;  // read from a packed filter that the second-level cache does not hold
    double pack;     // elements of the filter put in order
    double points;   // elements of the filter's points, made and put in order
};
constexpr Machine kMachines[] = {
    {8, 4, 1.5, 1.5, 8, 4, 2, 0.5},
#if defined(BACKSTRIDE_X86)
    {32, 8, 2.5, 2.5, 12, 5, 3, 1},
    {64, 16, 3, 3, 16, 5, 3, 1.5},
#elif defined(BACKSTRIDE_AARCH64)
    {20, 4, 2, 2, 8, 5, 3, 1}, // not measured
#endif
};

// A multiply-add of a filter for each channel loads one of its factors.
constexpr double kChannelLoads = 4;
// Of a tile's time this is not its loop over the depth: about as much as three steps of it.
constexpr double kSteps = 3;
// Lanes do so much of what tiles do, for the edges of rows and the order of results.
constexpr double kLanes = 0.7;
// So many elements of points a nanosecond are read again by every part of the filter, while there is enough to
// multiply.
constexpr double kReread = 10;
// What begins and ends the two stages of Winograd's algorithm.
constexpr double kStages = 6000;
// Elements of a packed filter that a second-level cache holds, and beyond which it comes from memory, half as fast.
constexpr double kCached = 256 << 10, kNear = 4 << 20;

double real(Index value) { return static_cast<double>(value); }

/// Multiply-adds of the definition, but for those beyond the edges.
double products(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    double result = real(geometry.batch) * real(geometry.in_channels) * real(geometry.out_channels / geometry.groups);
    for (const Axis &axis : geometry.axes) {
        double pairs = 0;
        for (Index k = 0; k < axis.kernel; ++k)
            pairs += real(reach(axis, k).count);
        result *= pairs;
    }
    return result;
}

struct Channels {
    explicit Channels(const Plan &plan)
        : depth(real(plan.wrt == Operand::output ? plan.geometry.in_channels : plan.geometry.out_channels) /
                real(plan.geometry.groups)),
          columns(real(plan.wrt == Operand::output ? plan.geometry.out_channels : plan.geometry.in_channels) /
                  real(plan.geometry.groups)) {}
    double depth, columns;
};

/// Time to read the source and to write the result, if no cache holds them; the same for all algorithms.
double memory(const Plan &plan) {
    constexpr double kLarge = 1 << 20, kRate = 1.5;
    double input = real(plan.geometry.batch) * real(plan.geometry.in_channels);
    double output = real(plan.geometry.batch) * real(plan.geometry.out_channels);
    for (const Axis &axis : plan.geometry.axes) {
        input *= real(axis.input);
        output *= real(axis.output);
    }
    return input + output > kLarge ? (input + output) / kRate : 0;
}

/// How often tiles read the filter in a small image: along each axis once within it, and once at its edges, where cells
/// have fewer taps.
double regions(const Plan &plan) {
    double result = 1;
    for (const Axis &axis : plan.geometry.axes)
        result *= axis.kernel > axis.stride && axis.input > 1 ? 2 : 1;
    return result;
}

double rounded_up(double value, double step) { return std::ceil(value / step) * step; }

/// Time to multiply, or to bring the filter from memory, whichever is longer.
double multiply(const Machine &machine, double products, double depth, double filter) {
    const double time = products * (1 + kSteps / depth) / machine.products;
    if (filter <= kCached)
        return time;
    return std::max(time, filter / machine.weights * (filter > kNear ? 2 : 1));
}

} // namespace

double cost(const Plan &plan, Algorithm algorithm, bool packed) {
    // Vectors hold half as many float64.
    const double size = size_of(sum_of(plan.element)) == 8 ? 2 : 1;
    const Machine &machine = kMachines[static_cast<int>(plan.isa)];
    const Channels channels(plan);
    const Geometry &geometry = plan.geometry;
    double taps = 1, filter = channels.depth * channels.columns * real(geometry.groups);
    for (const Axis &axis : geometry.axes) {
        taps *= std::max(1.0, real(axis.kernel) / (plan.wrt == Operand::output ? real(axis.stride) : 1));
        filter *= real(axis.kernel);
    }
    const double padded = rounded_up(channels.columns, machine.columns / size) / channels.columns;
    const double pack = packed ? 0 : filter / machine.pack;
    if (plan.channelwise) { // whose channels are columns; it is the memory that takes time
        const double time = products(plan) * kChannelLoads / machine.products + memory(plan);
        return algorithm == Algorithm::tiles ? size * time : std::numeric_limits<double>::infinity();
    }
    switch (algorithm) {
    case Algorithm::tiles:
        return size * (multiply(machine, products(plan) * padded, taps * channels.depth, filter * regions(plan)) +
                       pack + memory(plan));
    case Algorithm::scatter: {
        if (!scatter_fits(plan))
            break;
        double pixels = real(geometry.batch);
        for (const Axis &axis : geometry.axes)
            pixels *= real(axis.input);
        return size * (multiply(machine, pixels * filter * padded, channels.depth, filter) +
                       pixels * filter / channels.depth / machine.target + pack + memory(plan));
    }
    case Algorithm::lanes: {
        if (!lanes_fit(plan))
            break;
        double source = real(geometry.batch) * real(geometry.in_channels);
        for (const Axis &axis : geometry.axes)
            source *= real(axis.input);
        return size * (products(plan) / lanes_filled(plan) / kLanes / machine.products + source / machine.lanes + pack +
                       memory(plan));
    }
    case Algorithm::winograd: {
        if (!plan.scheme)
            break;
        const Work work = work_of(plan, *plan.scheme);
        const double filled = rounded_up(work.columns, machine.columns / size) / work.columns;
        return size * (multiply(machine, work.products * filled, channels.depth, work.filter) +
                       work.source / machine.source + work.target / machine.target + memory(plan) +
                       work.source * (work.parts - 1) / kReread + (packed ? 0 : work.filter / machine.points)) +
               kStages;
    }
    }
    return std::numeric_limits<double>::infinity();
}

} // namespace backstride
