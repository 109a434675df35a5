// SPDX-License-Identifier: Apache-2.0
#include "gather.h"

#include "regions.h"

namespace backstride {
namespace {

/// Products by a plan's kernel, whose factors are of the type of the sums.
template <class T> struct ByKernel {
    using Sum = T;
    using Factor = T;
    using Result = T;
    using Filter = PackedFilter<T>;
    static constexpr bool kMatrix = false;
};

template <class T> class Gather : public Regions<Gather<T>, ByKernel<T>> {
    using Base = Regions<Gather<T>, ByKernel<T>>;
    using Base::plan_, Base::source_, Base::target_, Base::filter_, Base::epilogue_, Base::depth_, Base::streaming_,
        Base::columns_of;

  public:
    Gather(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
           const View &target, bool in_parts, Poll poll)
        : Base(plan, source, filter, epilogue, target, plan.kernel->columns,
               plan.channelwise ? target.shape[4] : source.shape[4] / products(plan), in_place<T>(source, plan.element),
               in_parts, poll) {}

    /// Panels of columns for all positions of a region; false if the work was stopped.
    bool multiply(const Region &region, const Window<const T> &source, const Window<T> &target, Index group,
                  Range panels, const T *weights) const {
        for (Index panel = panels.first; panel < panels.last; ++panel)
            if (!multiply(region, source, target, group, panel,
                          weights ? weights : filter_.panel(group, panel, nullptr)))
                return false;
        return true;
    }

    void load_part(const Box &box, const Window<T> &to) const { load(plan_.element, plan_.isa, source_, box, to); }
    void store_part(const Window<T> &from, const Box &box, const std::array<Index, 3> &step) const {
        store(from, box, step, plan_.element, plan_.isa, target_);
    }

  private:
    /// One panel. Tiles run along the region's longest axis: along rows of large images, along the batch of small ones,
    /// down a narrow edge.
    bool multiply(const Region &region, const Window<const T> &source, const Window<T> &target, Index group,
                  Index panel, const T *weights) const {
        const auto [along, others] = along_longest(region.count);

        const Range channels = columns_of(group, panel);
        const Index columns = channels.count();
        const Kernel &kernel = columns < plan_.kernel->columns ? *plan_.tail : *plan_.kernel;
        const auto &table = functions<T>(kernel);
        const auto &function = (plan_.channelwise ? table.channelwise : table.dense)[columns < kernel.columns];
        Tile<T> tile{};
        tile.a_row = region.source_step[along];
        tile.a_step = 1;
        tile.b = weights;
        tile.b_step = columns;
        tile.b_segment = depth_ * columns;
        tile.segments = region.rows.data();
        tile.count = static_cast<Index>(region.rows.size());
        // Taps whose source cells are neighbours, as they are in the input gradient, make one stretch.
        const bool neighbours = region.source_tap == depth_ && region.filter_tap == 1 && !plan_.channelwise;
        tile.taps = neighbours ? 1 : region.taps;
        tile.a_tap = region.source_tap;
        tile.b_tap = region.filter_tap * tile.b_segment;
        tile.depth = neighbours ? region.taps * depth_ : depth_;
        tile.columns = static_cast<int>(columns);

        tile.streaming = streaming_ && epilogue_.empty();
        tile.c_row = region.target_step[along];
        const T *const from = source.at(region.source);
        T *const to =
            target.at({region.target[0], region.target[1], region.target[2], region.target[3], channels.first});

        const Index pieces = ceil_div(region.count[along], kernel.rows);
        const Index tiles = pieces * region.count[others[0]] * region.count[others[1]] * region.count[others[2]],
                    fetching = filter_.packed() ? std::min(tiles, kFetchingTiles) : 0; // the next panel
        const Index line = region.count[along] * tile.count * tile.taps * tile.depth * columns;
        Index done = 0, made = 0;
        for (Index i = 0; i < region.count[others[0]]; ++i)
            for (Index j = 0; j < region.count[others[1]]; ++j)
                for (Index k = 0; k < region.count[others[2]]; ++k) {
                    const auto offset = [&](const Index *step) {
                        return i * step[others[0]] + j * step[others[1]] + k * step[others[2]];
                    };
                    const Index read = offset(region.source_step), written = offset(region.target_step);
                    for (Index piece = 0; piece < pieces; ++piece) {
                        const Index begin = piece * region.count[along] / pieces;
                        const Index rows = (piece + 1) * region.count[along] / pieces - begin;
                        tile.a = from + read + begin * tile.a_row;
                        tile.fetch(taps() * tile.b_segment, made++, fetching);
                        if (plan_.channelwise)
                            tile.a += channels.first;
                        tile.c = to + written + begin * tile.c_row;
                        function[rows](tile);
                        epilogue_.on_columns(tile.c, tile.c_row, rows, columns, channels.first);
                    }
                    if ((done += line) > kInterruptEvery) {
                        done = 0;
                        if (interrupted())
                            return false;
                    }
                }
        return true;
    }

    Index taps() const {
        const auto &axes = plan_.geometry.axes;
        return axes[0].kernel * axes[1].kernel * axes[2].kernel;
    }
};

} // namespace

template <class T> PackedFilter<T> panels(const Plan &plan, const View &filter) {
    const int depth_axis = plan.wrt == Operand::output && !plan.channelwise ? 4 : 3;
    return PackedFilter<T>(filter, plan.element, products(plan), depth_axis, plan.kernel->columns, plan.isa);
}

bool panels_are_used_once(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    Index positions = geometry.batch;
    for (const Axis &axis : geometry.axes)
        positions *= plan.wrt == Operand::output ? ceil_div(axis.output, axis.stride) : axis.input;
    const Index channels = plan.wrt == Operand::output ? geometry.out_channels : geometry.in_channels;
    return !plan.channelwise && positions <= kFewPositions && channels >= kEnoughPanels * plan.kernel->columns;
}

template <class T>
void gather(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
            const View &target, Poll poll) {
    Gather<T>(plan, source, filter, epilogue, target, false, poll).run(poll);
}

template <class T>
void gather_cells(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
                  const View &target, const std::vector<Cells> &cells, Poll poll) {
    Plan bounded = plan;
    bounded.workspace.binding = false; // so few cells read little of the source, if they read it in parts
    Gather<T>(bounded, source, filter, epilogue, target, true, poll).run(cells, poll);
}

#define INSTANTIATE(T)                                                                                                 \
    template PackedFilter<T> panels(const Plan &, const View &);                                                       \
    template void gather_cells(const Plan &, const View &, const PackedFilter<T> &, const Epilogue<T> &, const View &, \
                               const std::vector<Cells> &, Poll);                                                      \
    template void gather(const Plan &, const View &, const PackedFilter<T> &, const Epilogue<T> &, const View &, Poll);
BACKSTRIDE_EACH_SUM(INSTANTIATE)
#undef INSTANTIATE

} // namespace backstride
