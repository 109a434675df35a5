// SPDX-License-Identifier: Apache-2.0
#include "cost.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "folded.h"
#include "lanes.h"
#include "matrix.h"
#include "matrix_outer.h"
#include "merged.h"
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
// In the input gradient taps, and in Winograd's algorithm planes, are one long depth, and a multiply-add takes less;
// points of planes that are not used at once, and the filter's points, take more.
constexpr double kStretch = 0.8, kSomePlaces = 2, kGradientPoints = 3;
// Points of chunks in two dimensions, which go to so many places at least, take so many times as long if they are not
// used at once: 16 points of four to nine planes took 1 to 1.9 ns more each, of three planes in one dimension no more.
constexpr double kManyPlaces = 36, kFarPlaces = 6;
// So many elements of points a nanosecond are read again by every part of the filter, while there is enough to
// multiply.
constexpr double kReread = 10;
// What begins and ends the calls for the edges of merged layers.
constexpr double kEdges = 6000;
// What sets a matrix unit up and copies what it reads, besides the work.
constexpr double kUnit = 10000;
// What begins and ends the two stages of Winograd's algorithm.
constexpr double kStages = 6000;
// Elements of a packed filter that a second-level cache holds, and beyond which it comes from memory, half as fast.
constexpr double kCached = 256 << 10, kNear = 4 << 20;
// Elements of a filter's points that are made in such caches; more take so many times as long each, and of the input
// gradient, where they are slower anyway, so many times.
constexpr double kCachedPoints = 512 << 10, kFarPoints = 2.6, kFarGradientPoints = 1.6;

// A multiply-add of the filter gradient takes so much of one of other tiles, more by kRowSteps for each tile of the
// same columns, and by kReads for each element that is brought for a block of so many rows and columns at most; an
// element of the result takes kAdded for each region of pixels whose sums are added to it.
constexpr double kOuter = 0.6, kRowSteps = 7, kReads = 6, kAdded = 5;
// In Winograd's algorithm points that a thread makes for itself are read from nearby, and chains of additions are
// short.
constexpr double kNearby = 4, kTilesOfChain = 32;
// Multiply-adds of a matrix unit in a nanosecond, of bfloat16 and of float32; if they have half of the columns only,
// each takes so many times as long.
constexpr double kMatrixRate = 500, kWideMatrixRate = 130, kHalfColumns = 1.4;
// Its filters take so many times as long to bring as those of float32: three planes are half as large again, and what
// images of 8x6 and 8x8 pixels took beside `scatter` is more than that.
constexpr double kWideFilter = 2.3, kHalfFilter = 0.5;
// In Winograd's algorithm it makes so many, of so many tiles at a time. In planes its filter takes so many times as
// long to pack. So many elements are made planes, fewer if more than so many of a tile's do not stay in the cache, up
// to so many times; or results of sums.
constexpr double kPointRate = 140, kPointTiles = 32, kPointPacks = 4, kPlaneRate = 3, kNearPlanes = 4096,
                 kFarPlanes = 3, kResultRate = 4.5;
// In layers that are folded it makes more, since their sums are long; their filter takes so many times as long to pack.
constexpr double kFolded = 0.9, kFoldedPacks = 8;
// In the filter gradient it makes planes of so many elements, and adds so many sums to the result.
constexpr double kOuterPlanes = 0.8, kOuterSums = 5;
constexpr double kTileRows = 14, kOuterRows = 112, kOuterColumns = 128;

double real(Index value) { return static_cast<double>(value); }

/// The product of batch, channels and the lengths of all axes: the input's elements, or the output's.
double elements(const Geometry &geometry, Index channels, Index Axis::*length) {
    double result = real(geometry.batch) * real(channels);
    for (const Axis &axis : geometry.axes)
        result *= real(axis.*length);
    return result;
}

/// The share of the taps from the first to the last that meet an output cell.
double reached(const Geometry &geometry) {
    double result = 1;
    for (const Axis &axis : geometry.axes) {
        const Index first = ceil_div(axis.pad - (axis.input - 1) * axis.stride, axis.dilation),
                    last = floor_div(axis.output - 1 + axis.pad, axis.dilation);
        const Index taps = std::min(axis.kernel - 1, last) - std::max<Index>(0, first) + 1;
        result *= real(std::max<Index>(0, taps)) / real(axis.kernel);
    }
    return result;
}

/// Time to read the source and to write the result, if no cache holds them; the same for all algorithms.
double memory(double moved) {
    constexpr double kLarge = 1 << 20, kRate = 1.5;
    return moved > kLarge ? moved / kRate : 0;
}

/// How often tiles read the filter in a small image: along each axis once within it, and once at its edges, where cells
/// have fewer taps.
double regions(const Plan &plan) {
    double result = 1;
    for (const Axis &axis : plan.geometry.axes)
        result *= axis.kernel > axis.stride && axis.input > 1 ? 2 : 1;
    return result;
}

/// What a multiply-add of the filter gradient takes in a matrix of so many rows and columns.
double outer_step(double rows, double columns) {
    const double height = rows / std::ceil(rows / kTileRows);
    return kOuter + kRowSteps / height + kReads / std::min(rows, kOuterRows) +
           kReads / std::min(columns, kOuterColumns);
}

double rounded_up(double value, double step) { return std::ceil(value / step) * step; }

/// The share of a matrix unit's rows that are cells, if its lines run along the best axis or, in a transposed
/// convolution, from one row of the image to the next, over as many cells as taps read beyond it.
double rows_filled(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    Index count[4] = {geometry.batch}, beyond[4] = {};
    double best = 0;
    for (int i = 0; i < 3; ++i) {
        const Axis &axis = geometry.axes[i];
        count[i + 1] = plan.wrt == Operand::output ? ceil_div(axis.output, axis.stride) : axis.input;
        beyond[i + 1] = ceil_div(axis.kernel, axis.stride) - 1;
    }
    const auto filled = [](double of_line, double line) { return of_line / rounded_up(line, kMatrixRows); };
    double of_line = 1, line = 1, step = 1;
    for (int i = 3; i >= 0; --i) {
        best = std::max(best, filled(real(count[i]), real(count[i])));
        line += real(count[i] - 1) * step;
        of_line *= real(count[i]);
        step *= real(count[i] + beyond[i]);
        if (plan.wrt == Operand::output)
            best = std::max(best, filled(of_line, line));
    }
    return best;
}

/// Multiply-adds of a matrix unit, which multiplies whole rows, columns and chunks, in those of the full rate.
double matrix_products(const Plan &plan) {
    const Channels channels(plan);
    return products(plan.geometry) / rows_filled(plan) * matrix_columns(channels.columns) / real(channels.columns) *
           rounded_up(real(channels.depth), kMatrixDepth) / real(channels.depth);
}

/// Time to bring a filter of so many elements of float32 from memory.
double far(const Machine &machine, double filter) {
    return filter <= kCached ? 0 : filter / machine.weights * (filter > kNear ? 2 : 1);
}

/// Time to multiply, and to bring the filter from memory.
double multiply(const Machine &machine, double products, double depth, double filter) {
    return products * (1 + kSteps / depth) / machine.products + far(machine, filter);
}

/// Time of Winograd's algorithm by a matrix unit, but for what memory takes and for packing.
double points_by_unit(const Plan &plan, const Machine &machine, const Work &work) {
    const Channels channels(plan);
    const double filled = rounded_up(work.tiles, kPointTiles) / work.tiles *
                          rounded_up(real(channels.columns), kMatrixColumns / 2) / real(channels.columns) *
                          rounded_up(real(channels.depth), kMatrixDepth) / real(channels.depth);
    return work.products * filled / kPointRate + far(machine, work.filter * kWideFilter) +
           work.source / kPlaneRate * std::clamp(work.places * real(channels.depth) / kNearPlanes, 1.0, kFarPlanes) +
           work.target / kResultRate;
}

/// Elements of points made in a nanosecond, by calls of so many channels at most, each of which takes as long as some.
double channel_rate(double rate, double channels) {
    const double together = std::min(channels, 64.0);
    return rate * 2 * together / (together + 64);
}

/// Time of the filter gradient, but for what memory takes, if vectors of float32 are full.
double outer_cost(const Plan &plan, const Machine &machine, Algorithm algorithm) {
    const Geometry &geometry = plan.geometry;
    const double rows = real(geometry.out_channels / geometry.groups),
                 columns = real(geometry.in_channels / geometry.groups);
    double taps = 1, regions = 1;
    for (const Axis &axis : geometry.axes) {
        taps *= real(axis.kernel);
        const double edge = (real(axis.kernel) - 1) * real(axis.dilation) / real(axis.stride);
        regions *= std::clamp(2 * std::floor(edge) + 1, 1.0, real(axis.input));
    }
    const double filter = rows * columns * taps * real(geometry.groups);
    const double together = std::floor(kOuterRows / rows); // taps of a matrix
    switch (algorithm) {
    case Algorithm::tiles: return (products(geometry) * outer_step(rows, columns) + filter * kAdded) / machine.products;
    case Algorithm::taps:
        if (together < 2 || taps < 2)
            break;
        return (products(geometry) * outer_step(rows * std::min(taps, together), columns) + filter * regions * kAdded) /
               machine.products;
    case Algorithm::winograd: {
        if (!plan.scheme)
            break;
        const Work work = work_of(plan, *plan.scheme);
        const double transforms =
            work.source / channel_rate(machine.source, columns) + work.target / channel_rate(machine.target, rows);
        return (work.products * (outer_step(rows, columns) + kAdded / kTilesOfChain) + work.filter * kAdded) /
                   machine.products +
               (work.filter <= kCached ? transforms / kNearby : transforms + memory(work.source + work.target)) +
               work.filter / machine.target + kStages;
    }
    case Algorithm::matrix: {
        if (!matrix_fits(plan))
            break;
        const std::optional<OuterWork> work = outer_work(plan);
        if (!work)
            break;
        return work->products / (plan.element == Element::bfloat16 ? kMatrixRate : kWideMatrixRate) +
               work->planes / kOuterPlanes + work->sums / kOuterSums + kStages;
    }
    default: break;
    }
    return std::numeric_limits<double>::infinity();
}

} // namespace

double products(const Geometry &geometry) {
    double result = real(geometry.batch) * real(geometry.in_channels) * real(geometry.out_channels / geometry.groups);
    for (const Axis &axis : geometry.axes)
        result *= meetings(axis);
    return result;
}

double matrix_columns(Index columns) {
    return columns <= kMatrixHalf ? kMatrixHalf * kHalfColumns : rounded_up(real(columns), kMatrixHalf);
}

double cost(const Plan &plan, Algorithm algorithm, bool packed) {
    // Vectors hold half as many float64.
    const double size = size_of(sum_of(plan.element)) == 8 ? 2 : 1;
    const Machine &machine = kMachines[static_cast<int>(plan.isa)];
    const Geometry &geometry = plan.geometry;
    const Channels channels(plan);
    const double depth = real(channels.depth), columns = real(channels.columns);
    double taps = 1, filter = depth * columns * real(geometry.groups);
    for (const Axis &axis : geometry.axes) {
        taps *= std::max(1.0, real(axis.kernel) / (plan.wrt == Operand::output ? real(axis.stride) : 1));
        filter *= real(axis.kernel);
    }
    const double input = elements(geometry, geometry.in_channels, &Axis::input);
    const double moved = memory(input + elements(geometry, geometry.out_channels, &Axis::output));
    const double padded = rounded_up(columns, machine.columns / size) / columns;
    const double pack = packed ? 0 : filter / machine.pack;
    const bool gradient = plan.wrt == Operand::input;
    const double stretch = gradient ? kStretch : 1;
    if (plan.channelwise) { // whose channels are columns; it is the memory that takes time
        const double time = products(geometry) * kChannelLoads / machine.products + moved;
        return algorithm == Algorithm::tiles ? size * time : std::numeric_limits<double>::infinity();
    }
    if (plan.wrt == Operand::filter) {
        const double lanes = real(geometry.in_channels / geometry.groups);
        return size * rounded_up(lanes, machine.columns / size) / lanes *
               (outer_cost(plan, machine, algorithm) + moved);
    }
    switch (algorithm) {
    case Algorithm::tiles:
        return size * (multiply(machine, products(geometry) * padded * stretch, taps * depth,
                                filter * reached(geometry) * regions(plan)) +
                       pack + moved);
    case Algorithm::scatter: {
        if (!scatter_fits(plan))
            break;
        const double pixels = input / real(geometry.in_channels), share = reached(geometry);
        return size * share *
                   (multiply(machine, pixels * filter * padded, depth, filter) +
                    pixels * filter / depth / machine.target + pack) +
               size * moved;
    }
    case Algorithm::lanes:
        if (!lanes_fit(plan))
            break;
        // Rows are put apart for each cell along the depth that reads them.
        return size *
               (products(geometry) / lanes_filled(plan) / kLanes / machine.products +
                input * meetings(geometry.axes[0]) / real(geometry.axes[0].input) / machine.lanes + pack + moved);
    case Algorithm::merged:
        if (!merged_fits(plan))
            break;
        return cost(merged_layer(plan), Algorithm::tiles, packed) + kEdges;
    case Algorithm::matrix: {
        if (!matrix_fits(plan))
            break;
        const auto fold = fold_of(plan);
        const bool wide = plan.element != Element::bfloat16;
        const double pack_folded =
            fold && !packed ? kFoldedPacks * real(folded_filter_size(plan, *fold)) / machine.pack : 0;
        const double read = extends(plan) ? 1 : reached(geometry) * (regions(plan) + 2) / 3;
        return (fold ? kFolded * matrix_products(folded_layer(plan, *fold)) : matrix_products(plan)) /
                   (wide ? kWideMatrixRate : kMatrixRate) +
               far(machine, filter * read * (wide ? kWideFilter : kHalfFilter)) + pack + pack_folded + moved + kUnit;
    }
    case Algorithm::taps: break;
    case Algorithm::winograd: {
        if (!plan.scheme)
            break;
        const Work work = work_of(plan, *plan.scheme);
        if (by_unit(plan))
            return points_by_unit(plan, machine, work) + moved +
                   (packed ? 0 : work.filter / machine.points * kPointPacks) + kStages;
        const double filled = rounded_up(work.columns, machine.columns / size) / work.columns;
        const double planes = gradient ? kSomePlaces : work.places >= kManyPlaces ? kFarPlaces : 1;
        const double source = machine.source / (work.filter > kCached ? planes : 1),
                     far = gradient ? kFarGradientPoints : kFarPoints,
                     slower = (gradient ? kGradientPoints : 1) * (work.filter > kCachedPoints ? far : 1);
        return size * (multiply(machine, work.products * filled * stretch, depth, work.filter) + work.source / source +
                       work.target * padded / machine.target + moved + work.source * (work.parts - 1) / kReread +
                       (packed ? 0 : work.filter / machine.points * slower)) +
               kStages;
    }
    }
    return std::numeric_limits<double>::infinity();
}

} // namespace backstride
