// SPDX-License-Identifier: Apache-2.0
#include "scatter.h"

#include <algorithm>
#include <vector>

namespace backstride {
namespace {

// The pixels should stay in the second-level cache, and so should the result's cells of one panel of columns.
constexpr Index kMostPixels = 256, kMostCells = 4096;

Index product(Index batch, const Axis (&axes)[3], Index Axis::*length) {
    for (const Axis &axis : axes)
        batch = std::min(batch, kMostCells + 1) * std::min(axis.*length, kMostCells + 1);
    return batch;
}

/// Every tap multiplies all pixels by its matrix, and adds the products to the cells that they belong to. Taps come in
/// the order in which Gather's cells add them, and each product goes on from its cell's sum, so that the bits are the
/// same.
template <class T> class Scatter {
  public:
    Scatter(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
            const View &target)
        : plan_(plan), target_(target), filter_(filter), epilogue_(epilogue), axes_(plan.geometry.axes),
          groups_(plan.geometry.groups), depth_(plan.geometry.in_channels / groups_),
          columns_(plan.geometry.out_channels / groups_), width_(plan.kernel->columns),
          pixels_(product(plan.geometry.batch, axes_, &Axis::input)),
          cells_(product(plan.geometry.batch, axes_, &Axis::output)), row_(plan.geometry.in_channels),
          most_threads_(fit()), source_(pixels_ * row_) {
        const Box all = whole_box(source);
        load(plan.element, plan.isa, source, all, window(source_.get(), all));
    }

    void run(Poll poll) const {
        const Index panels = ceil_div(columns_, width_);
        parallel_for(groups_ * panels, [&](Index task) { compute(task / panels, task % panels); }, poll, most_threads_);
    }

  private:
    /// How many threads the workspace is enough for.
    Index fit() const {
        const Index source = Memory::rounded(pixels_ * row_ * Index{sizeof(T)});
        const Index sums = Memory::rounded(cells_ * std::min(width_, columns_) * Index{sizeof(T)});
        plan_.workspace.admit(source + sums);
        return plan_.workspace.threads(sums, source);
    }

    void compute(Index group, Index panel) const {
        const Index columns = std::min(width_, columns_ - panel * width_);
        const Buffer<T> sums(cells_ * columns), room(filter_.packed() ? 1 : depth_ * width_);
        std::fill_n(sums.get(), cells_ * columns, T{});
        std::vector<Index> cells(static_cast<std::size_t>(pixels_));
        Index tap = 0;
        for (Index d = 0; d < axes_[0].kernel; ++d)
            for (Index h = 0; h < axes_[1].kernel; ++h)
                for (Index w = 0; w < axes_[2].kernel; ++w, ++tap) {
                    if (interrupted())
                        return;
                    if (const Range reached = find_cells({d, h, w}, cells); reached.count() > 0)
                        multiply(group, columns, filter_.tap(group, panel, tap, room.get()), cells, reached,
                                 sums.get());
                }
        const Index channel = group * columns_ + panel * width_;
        epilogue_.on_columns(sums.get(), columns, cells_, columns, channel);
        write(channel, columns, sums.get());
    }

    /// The cell to which a tap takes each pixel, or -1; and the range of those that it takes to one.
    Range find_cells(const Index (&tap)[3], std::vector<Index> &cells) const {
        Range reached{pixels_, 0};
        for (Index pixel = 0; pixel < pixels_; ++pixel) {
            Index rest = pixel, cell = 0, step = 1;
            bool exists = true;
            for (int i : {2, 1, 0}) {
                const Axis &axis = axes_[i];
                const Index at = rest % axis.input * axis.stride + tap[i] * axis.dilation - axis.pad;
                exists = exists && at >= 0 && at < axis.output;
                if (exists) // where not, it may be too far away to be multiplied
                    cell += at * step;
                rest /= axis.input;
                step *= axis.output;
            }
            cells[static_cast<std::size_t>(pixel)] = exists ? cell + rest * step : -1;
            if (exists)
                reached = {std::min(reached.first, pixel), pixel + 1};
        }
        return reached;
    }

    void multiply(Index group, Index columns, const T *weights, const std::vector<Index> &cells, Range pixels,
                  T *sums) const {
        const Kernel &kernel = columns < width_ ? *plan_.tail : *plan_.kernel;
        const Segment segment{0, 0};
        alignas(64) T products[kMostTileElements];
        Tile<T> tile{};
        tile.a_row = row_;
        tile.a_step = 1;
        tile.b = weights;
        tile.b_step = columns;
        tile.segments = &segment;
        tile.count = tile.taps = 1;
        tile.depth = depth_;
        tile.c = products;
        tile.c_row = columns;
        tile.columns = static_cast<int>(columns);
        tile.continued = true;
        const Index pieces = ceil_div(pixels.count(), kernel.rows),
                    fetching = filter_.packed() ? std::min(pieces, kFetchingTiles) : 0; // the next tap
        for (Index piece = 0; piece < pieces; ++piece) {
            const Index begin = pixels.first + piece * pixels.count() / pieces,
                        end = pixels.first + (piece + 1) * pixels.count() / pieces;
            const auto each_cell = [&](auto move) {
                for (Index pixel = begin; pixel < end; ++pixel)
                    if (const Index cell = cells[static_cast<std::size_t>(pixel)]; cell >= 0)
                        move(products + (pixel - begin) * columns, sums + cell * columns);
            };
            std::fill_n(products, (end - begin) * columns, T{});
            each_cell([&](T *product, const T *sum) { std::copy_n(sum, columns, product); });
            tile.a = source_.get() + begin * row_ + group * depth_;
            tile.fetch(depth_ * columns, piece, fetching);
            functions<T>(kernel).dense[columns < kernel.columns][end - begin](tile);
            each_cell([&](const T *product, T *sum) { std::copy_n(product, columns, sum); });
        }
    }

    void write(Index channel, Index columns, const T *sums) const {
        const Index *shape = target_.shape, *stride = target_.stride;
        for (Index n = 0; n < shape[0]; ++n)
            for (Index d = 0; d < shape[1]; ++d)
                for (Index h = 0; h < shape[2]; ++h, sums += shape[3] * columns) {
                    const Index offset = n * stride[0] + d * stride[1] + h * stride[2] + channel * stride[4];
                    store(sums, columns, shape[3], columns, plan_.element, plan_.isa,
                          {at(target_, plan_.element, offset), stride[3], stride[4]});
                }
    }

    const Plan &plan_;
    const View &target_;
    const PackedFilter<T> &filter_;
    const Epilogue<T> &epilogue_;
    const Axis (&axes_)[3];
    const Index groups_, depth_, columns_, width_, pixels_, cells_, row_, most_threads_;
    const Buffer<T> source_; // contiguous
};

} // namespace

bool scatter_fits(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    return plan.wrt == Operand::output && !plan.channelwise &&
           product(geometry.batch, geometry.axes, &Axis::input) <= kMostPixels &&
           product(geometry.batch, geometry.axes, &Axis::output) <= kMostCells;
}

template <class T>
void scatter(const Plan &plan, const View &source, const PackedFilter<T> &filter, const Epilogue<T> &epilogue,
             const View &target, Poll poll) {
    Scatter<T>(plan, source, filter, epilogue, target).run(poll);
}

#define INSTANTIATE(T)                                                                                                 \
    template void scatter(const Plan &, const View &, const PackedFilter<T> &, const Epilogue<T> &, const View &, Poll);
BACKSTRIDE_EACH_SUM(INSTANTIATE)
#undef INSTANTIATE

} // namespace backstride
