// SPDX-License-Identifier: Apache-2.0
#include "merged.h"

#include <cstring>
#include <optional>

#include "gather.h"

namespace backstride {
namespace {

/// With q = floor((x + pad) / stride), cell x of the output's width is phase x + pad - q * stride of position q.
const Axis &width_of(const Plan &plan) { return plan.geometry.axes[2]; }

/// Positions of which some phases exist, and those of which all do.
struct Positions {
    explicit Positions(const Axis &axis)
        : some{floor_div(axis.pad, axis.stride), floor_div(axis.pad + axis.output - 1, axis.stride) + 1},
          all{ceil_div(axis.pad, axis.stride), floor_div(axis.pad + axis.output, axis.stride)} {}
    Range some, all;
};

/// The merged layer along other cells of the width.
Plan along_width(Plan layer, Index input, Range positions) {
    Axis &axis = layer.geometry.axes[2];
    axis.input = input;
    axis.output = positions.count();
    axis.pad = positions.first;
    return layer;
}

/// How far apart neighbours among phases and channels are.
Index channel_step(const View &output) { return output.stride[output.shape[4] == 1 ? 3 : 4]; }

/// Positions of the output as pixels of the merged layer.
View pixels(const Plan &plan, const View &output, Range positions) {
    const Axis &axis = width_of(plan);
    View view = output;
    view.data = at(output, plan.element, (positions.first * axis.stride - axis.pad) * output.stride[3]);
    view.shape[3] = positions.count();
    view.stride[3] = axis.stride * output.stride[3];
    view.shape[4] = axis.stride * output.shape[4];
    view.stride[4] = channel_step(output);
    return view;
}

/// Copies the phases that exist of one position, whose pixels are contiguous, to the output.
void copy_phases(const Plan &plan, const char *from, Index position, const View &output) {
    const Axis &axis = width_of(plan);
    const Index size = size_of(plan.element), pixel = axis.stride * output.shape[4] * size;
    const Index begin = position * axis.stride - axis.pad; // of phase 0
    const Range cells = {std::max<Index>(begin, 0), std::min(begin + axis.stride, axis.output)};
    const Index count = cells.count() * output.shape[4], step = channel_step(output);
    from += (cells.first - begin) * output.shape[4] * size;
    for (Index n = 0; n < output.shape[0]; ++n)
        for (Index d = 0; d < output.shape[1]; ++d)
            for (Index h = 0; h < output.shape[2]; ++h, from += pixel) {
                const Index *stride = output.stride;
                const Index offset = n * stride[0] + d * stride[1] + h * stride[2] + cells.first * stride[3];
                if (step == 1)
                    std::memcpy(at(output, plan.element, offset), from, static_cast<std::size_t>(count * size));
                else
                    for (Index i = 0; i < count; ++i)
                        std::memcpy(at(output, plan.element, offset + i * step), from + i * size,
                                    static_cast<std::size_t>(size));
            }
}

} // namespace

bool merged_fits(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    const Axis &axis = width_of(plan);
    return plan.wrt == Operand::output && geometry.groups == 1 && axis.stride > 1 && axis.dilation == 1 &&
           axis.kernel % axis.stride == 0 && (geometry.out_channels == 1 || !plan.channels_first);
}

Plan merged_layer(const Plan &plan) {
    Geometry geometry = plan.geometry;
    Axis &axis = geometry.axes[2];
    const Range some = Positions(axis).some;
    geometry.out_channels *= axis.stride;
    axis = {axis.input, axis.kernel / axis.stride, some.count(), 1, 1, some.first};
    return tiled(plan, geometry);
}

bool merges(const View &output) {
    return output.shape[4] == 1 || output.stride[3] == output.shape[4] * output.stride[4];
}

template <class T> PackedFilter<T> merged_panels(const Plan &plan, const View &filter, Poll poll) {
    Plan layer = merged_layer(plan);
    const Index width = filter.shape[2], columns = filter.shape[3];
    View merged = filter;
    std::optional<Buffer<T>> copy;
    if (columns > 1 && filter.stride[2] != columns * filter.stride[3]) {
        const Box all = whole_box(filter);
        copy.emplace(cells_of(all));
        load(plan.element, plan.isa, filter, all, window(copy->get(), all));
        layer.element = sum_of(plan.element);
        merged = contiguous(filter, copy->get());
    }
    const Index stride = width_of(plan).stride;
    merged.shape[2] = width / stride;
    merged.shape[3] = stride * columns;
    merged.stride[3] = merged.stride[columns == 1 ? 2 : 3];
    merged.stride[2] *= stride;
    PackedFilter<T> packed = panels<T>(layer, merged);
    packed.pack(poll);
    return packed;
}

template <class T>
void merged(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &given,
            const View &target, Poll poll) {
    Plan layer = merged_layer(plan);
    const Axis &axis = width_of(plan);
    const Index pixel = plan.geometry.batch * plan.geometry.axes[0].output * plan.geometry.axes[1].output *
                        layer.geometry.out_channels * size_of(plan.element);
    layer.workspace.bytes -= pixel; // for the copies of edges
    const Epilogue<T> epilogue = given.repeated(axis.stride);
    const auto [some, all] = Positions(axis);
    if (all.count() > 0)
        gather<T>(along_width(layer, axis.input, all), source, filter, epilogue, pixels(plan, target, all), poll);
    for (const Index edge : {some.first, some.last - 1}) {
        if ((edge >= all.first && edge < all.last) || (edge != some.first && some.count() == 1))
            continue;
        const View cells = pixels(plan, target, {edge, edge + 1});
        const Buffer<char> room(cells_of(whole_box(cells)) * size_of(plan.element));
        const View scratch = contiguous(cells, room.get());
        gather<T>(along_width(layer, axis.input, {edge, edge + 1}), source, filter, epilogue, scratch, poll);
        copy_phases(plan, room.get(), edge, target);
    }
}

#define INSTANTIATE(T)                                                                                                 \
    template PackedFilter<T> merged_panels(const Plan &, const View &, Poll);                                          \
    template void merged(const Plan &, const View &, const PackedFilter<T> &, const Epilogue<T> &, const View &, Poll);
BACKSTRIDE_EACH_SUM(INSTANTIATE)
#undef INSTANTIATE

} // namespace backstride
