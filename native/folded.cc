// SPDX-License-Identifier: Apache-2.0
#include "folded.h"

#include <algorithm>
#include <utility>

#include "cost.h"

namespace backstride {
namespace {

// Folding must save so much of the products, since the source is copied with zeros, and the result goes through the
// cache once more.
constexpr double kWorth = 0.8;
// The most columns that there may be, and the most positions along an axis that are taken together.
constexpr Index kMostColumns = 1 << 16, kMostSteps = 16;
// So much of the depth is folded at a time: rows of columns whose lines stay in the first-level cache.
constexpr Index kDepth = 16;

/// Periods begin at cells x with (x + pad - shift) divisible by the stride.
Fold::Along along(const Axis &axis, Index positions, Index shift) {
    const auto &[input, kernel, output, stride, dilation, pad] = axis;
    const Index begin = floor_div(pad - shift, stride), end = floor_div(pad - shift + output - 1, stride) + 1;
    const Index first = ceil_div(shift - (kernel - 1), stride),
                last = floor_div(shift + positions * stride - 1, stride);
    return {ceil_div(end - begin, positions),
            positions * stride,
            begin * stride + shift - pad,
            last - first + 1,
            positions,
            begin + first,
            shift - first * stride};
}

/// From where padding 'SAME' begins, if windows are not longer for that: then all periods are whole.
Fold::Along along(const Axis &axis, Index positions) {
    const Index shift = std::max<Index>(0, axis.kernel - axis.stride) / 2 % axis.stride;
    const Fold::Along plain = along(axis, positions, 0), shifted = along(axis, positions, shift);
    return shifted.window > plain.window ? plain : shifted;
}

/// Products of a position, in those that the unit makes for a column in the time of one if there are many.
double products(const Fold &fold, Index channels) {
    double result = matrix_columns(fold.cells() * channels);
    for (const Fold::Along &axis : fold.axes)
        result *= static_cast<double>(axis.window) / static_cast<double>(axis.step);
    return result;
}

} // namespace

std::optional<Fold> fold_of(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    const auto &axes = geometry.axes;
    if (plan.wrt != Operand::output || geometry.groups > 1 || plan.channelwise)
        return {};
    double least = kWorth * matrix_columns(geometry.out_channels), phases = 1;
    for (const Axis &axis : axes) {
        least *= static_cast<double>(axis.kernel);
        phases *= static_cast<double>(axis.stride);
    }
    if (phases * static_cast<double>(geometry.out_channels) > kMostColumns)
        return {};
    std::optional<Fold> best;
    const auto most = [](const Axis &axis) { return axis.kernel > 1 || axis.stride > 1 ? kMostSteps : 1; };
    for (Index d = 1; d <= most(axes[0]); d *= 2)
        for (Index h = 1; h <= most(axes[1]); h *= 2)
            for (Index w = 1; w <= most(axes[2]); w *= 2) {
                const Fold fold = {along(axes[0], d), along(axes[1], h), along(axes[2], w)};
                const Index columns = fold.cells() * geometry.out_channels;
                if (d * h * w > 1 && columns > kMatrixColumns)
                    break; // more positions have more
                if (columns == 1)
                    continue;
                if (const double made = products(fold, geometry.out_channels); made < least) {
                    least = made;
                    best = fold;
                }
            }
    return best;
}

Plan folded_layer(const Plan &plan, const Fold &fold) {
    Plan layer = plan;
    layer.wrt = Operand::input;
    Geometry &geometry = layer.geometry;
    std::swap(geometry.in_channels, geometry.out_channels);
    geometry.in_channels *= fold.cells();
    for (int i = 0; i < 3; ++i) {
        const Fold::Along &axis = fold.axes[i];
        geometry.axes[i] = {axis.count, axis.window, axis.source_length(), axis.step, 1, 0};
    }
    return layer;
}

View folded_source(const Fold &fold, const View &source) {
    View folded = source;
    folded.data = nullptr;
    for (int i = 0; i < 3; ++i)
        folded.shape[i + 1] = fold.axes[i].source_length();
    return folded;
}

View folded_target(const Fold &fold, const View &target) {
    View folded{};
    folded.shape[0] = target.shape[0];
    for (int i = 0; i < 3; ++i)
        folded.shape[i + 1] = fold.axes[i].count;
    folded.shape[4] = fold.cells() * target.shape[4];
    return folded;
}

Index folded_filter_size(const Plan &plan, const Fold &fold) {
    Index size = plan.geometry.in_channels * fold.cells() * plan.geometry.out_channels;
    for (const Fold::Along &axis : fold.axes)
        size *= axis.window;
    return size;
}

View folded_filter(const Plan &plan, const Fold &fold, const View &filter, void *room, Poll poll) {
    const auto &[d, h, w] = fold.axes;
    const Index channels = filter.shape[3], depth = filter.shape[4];
    const View folded = contiguous({nullptr, {d.window, h.window, w.window, depth, fold.cells() * channels}, {}}, room);
    // Calls body(to, from) with the offsets of each pair of cells along an axis that a tap connects.
    const auto each = [&](int axis, Index columns, auto body) {
        const Fold::Along &along = fold.axes[axis];
        for (Index n = 0; n < along.window; ++n)
            for (Index cell = 0; cell < along.period; ++cell)
                if (const Index k = along.filter_cell(n, cell); k >= 0 && k < filter.shape[axis])
                    body(n * folded.stride[axis] + cell * columns, k * filter.stride[axis]);
    };
    visit(plan.element, [&](auto value) {
        using S = decltype(value);
        const auto fold_some = [&](Range some) { // of the depth
            for (Index n = 0; n < d.window * h.window * w.window; ++n)
                std::fill_n(static_cast<S *>(room) + (n * depth + some.first) * folded.shape[4],
                            some.count() * folded.shape[4], S{});
            each(0, h.period * w.period * channels, [&](Index to_d, Index from_d) {
                each(1, w.period * channels, [&](Index to_h, Index from_h) {
                    each(2, channels, [&](Index to_w, Index from_w) {
                        S *const to = static_cast<S *>(room) + to_d + to_h + to_w;
                        const S *const from = static_cast<const S *>(filter.data) + from_d + from_h + from_w;
                        for (Index k = some.first; k < some.last; ++k)
                            for (Index c = 0; c < channels; ++c)
                                to[k * folded.stride[3] + c] = from[k * filter.stride[4] + c * filter.stride[3]];
                    });
                });
            });
        };
        parallel_for(
            ceil_div(depth, kDepth),
            [&](Index task) { fold_some({task * kDepth, std::min((task + 1) * kDepth, depth)}); }, poll);
    });
    return folded;
}

void store_folded(const Plan &plan, const Fold &fold, const Window<float> &from, const Box &box, const View &target) {
    const Index channels = target.shape[4];
    const auto &[d, h, w] = fold.axes;
    const Index row = w.period * channels; // columns of cells that are neighbours along the width
    const bool neighbours = (channels == 1 || target.stride[4] == 1) && target.stride[3] == channels;
    // Stores some columns of a row of cells, of those periods in which all of them exist, which it returns.
    const auto put = [&](Index(&place)[5], Range columns, Range periods, Index offset) {
        const Index cell = columns.first % row / channels, last = (columns.last - 1) % row / channels;
        periods.first = std::max(periods.first, ceil_div(-w.target - cell, w.period));
        periods.last = std::min(periods.last, floor_div(target.shape[3] - 1 - w.target - last, w.period) + 1);
        if (periods.count() <= 0)
            return Range{box[3].last, box[3].last};
        place[3] = periods.first;
        place[4] = columns.first;
        offset += (w.target + periods.first * w.period + cell) * target.stride[3] +
                  columns.first % channels * target.stride[4];
        store(from.at(place), from.stride[3], periods.count(), columns.count(), plan.element, plan.isa,
              {at(target, plan.element, offset), w.period * target.stride[3], neighbours ? 1 : target.stride[4]});
        return periods;
    };
    for (Index first = box[4].first, last; first < box[4].last; first = last) {
        last = std::min((first / row + 1) * row, box[4].last);
        const Index cell_h = first / row % h.period, cell_d = first / row / h.period;
        for (Index n = box[0].first; n < box[0].last; ++n)
            for (Index i = box[1].first; i < box[1].last; ++i)
                for (Index j = box[2].first; j < box[2].last; ++j) {
                    const Index depth = d.target + i * d.period + cell_d, height = h.target + j * h.period + cell_h;
                    if (depth < 0 || depth >= target.shape[1] || height < 0 || height >= target.shape[2])
                        continue;
                    const Index offset = n * target.stride[0] + depth * target.stride[1] + height * target.stride[2];
                    Index place[5] = {n, i, j, 0, 0};
                    const auto put_each_cell = [&](Range periods) {
                        for (Index begin = first, end; begin < last && periods.count() > 0; begin = end) {
                            end = std::min((begin / channels + 1) * channels, last);
                            put(place, {begin, end}, periods, offset);
                        }
                    };
                    const Range whole =
                        neighbours ? put(place, {first, last}, box[3], offset) : Range{box[3].last, box[3].last};
                    put_each_cell({box[3].first, whole.first});
                    put_each_cell({whole.last, box[3].last});
                }
    }
}

Cells unfolded(const Fold &fold, const Cells &cells, const View &target) {
    Cells result = cells;
    for (int i = 1; i < 4; ++i) {
        const Fold::Along &axis = fold.axes[i - 1];
        result.first[i] = std::max<Index>(0, axis.target + cells.first[i] * axis.period);
        result.last[i] = std::min(target.shape[i], axis.target + cells.last[i] * axis.period);
    }
    return result;
}

} // namespace backstride
