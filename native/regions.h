// SPDX-License-Identifier: Apache-2.0
// How the transposed convolution and its input gradient are cut: into blocks of the result that threads compute, panels
// of columns, and regions, whose cells the same taps reach. What multiplies a region by a panel is of gather.cc and
// matrix.cc.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <vector>

#include "epilogue.h"
#include "pack.h"
#include "plan.h"

namespace backstride {

// What a block of the result reads of the source should stay in a second-level cache of 512 KiB or more. A panel of the
// filter that doesn't leave room for that is read again by every block, which is then as large as the panel: a third
// less time for 16 cells of 1024 channels with a kernel of 25.
constexpr Index kBlockBytes = 256 << 10, kMostBlockBytes = 4 << 20;
// The same where there is a matrix unit, whose processors have such caches of 2 MB: 1.05 to 1.2 times as fast as with
// less for sources of 256 to 768 channels, kernel = stride; with twice as much caches overflow.
constexpr Index kMatrixBlockBytes = 768 << 10;
constexpr Index kFewestPositions = 64, kMostPositions = 4096;
// A source that kernels can't read where it is gets copied, block by block into caches, if that copies little twice or
// little in comparison with the multiplications; else as a whole.
constexpr Index kMostPartBytes = 8 << 20;
constexpr double kMostCopied = 2, kFewestProducts = 128;
// An element that is made planes takes so many times as long as one that is read.
constexpr double kMadeAgain = 3;
// All phases of a position are in one block, unless there are so many that it would be large only for that.
constexpr Index kMostCells = 1 << 16;
// Cells of a result that kernels can't write where it is: one panel of columns of them is kept in the cache.
constexpr Index kMostCopiedCells = 1 << 12, kCopiedRow = 64;
// A filter that is used for so few positions, in so many panels at least, is packed panel by panel as they are used.
// With more, blocks of positions that share a filter packed beforehand use the caches better.
constexpr Index kFewPositions = 1024, kEnoughPanels = 8;
// Rows of cells that are neighbours in memory begin and end within a cache line, and short ones are read before the
// hardware fetches ahead: as if they were so many cells longer. Without it Spleeter's last takes 1.2 times as long with
// channels first.
constexpr Index kShortRow = 32;
// Blocks that are made planes are not narrower than so many positions, the rows that a matrix unit multiplies.
constexpr Index kNarrowest = kMatrixRows;
// Enough tasks to keep a few threads busy to the end when one of them is disturbed.
constexpr Index kEnoughTasks = 32, kEnoughMatrixTasks = 16;
// Multiply-adds between two looks at whether the caller wants to stop: some 20 ms of the slowest kernel.
constexpr Index kInterruptEvery = 1 << 22;

/// How many matrix products a region is: one for each group, but channels that have a filter each are columns of one.
inline Index products(const Plan &plan) { return plan.channelwise ? 1 : plan.geometry.groups; }

/// Positions of the result which the same taps reach: a product of runs, and of images. Steps are in elements.
struct Region {
    Index count[4];
    Index source[5], source_step[4];               // the first cells, and channel
    Index target[4], target_step[4], cell_step[4]; // the last in cells
    std::vector<Segment> rows;                     // of taps: their product along depth and height
    Index taps, source_tap, filter_tap; // along width: how many, and how far apart in the source and the filter
};

/// All of that for one call. `Self` has multiply(region, source, target, group, panels, weights), which computes panels
/// of a region and returns false if the work was stopped; weights are those of the only panel, or null where the filter
/// is packed. And it has load_part(box, window) and store_part(window, box, step), which copy cells of the source and
/// the result. `By` says what it multiplies: Sum, Factor and Result are types, the last as it writes results in place,
/// Filter is the packed filter, and kMatrix whether factors are made for a matrix unit.
template <class Self, class By> class Regions {
  protected:
    using T = typename By::Sum;
    using S = typename By::Factor;
    using Result = typename By::Result;

  public:
    /// `width` columns are a panel; of a pixel of the source `channels_read` elements are read, where it is or else
    /// from a copy, which is only made `in_parts` if it must not be of the whole source.
    Regions(const Plan &plan, const View &source, const typename By::Filter &filter, const Epilogue<T> &epilogue,
            const View &target, Index width, Index channels_read, bool readable, bool in_parts, Poll poll)
        : plan_(plan), source_(source), target_(target), filter_(filter), epilogue_(epilogue), groups_(products(plan)),
          depth_(plan.channelwise ? 1 : source.shape[4] / groups_), columns_(target.shape[4] / groups_), width_(width),
          panels_(ceil_div(columns_, width)), channels_read_(channels_read), readable_(readable), in_parts_(in_parts),
          direct_(in_place<Result>(target, plan.element)),
          streaming_(direct_ && streamed<Result>(target, plan.element, std::gcd(columns_, width))),
          together_(direct_ ? std::min(filter.panels_together(), panels_) : 1) {
        for (int i = 0; i < 3; ++i) {
            Index reached = 0;
            each_run(plan.wrt, plan.geometry.axes[i], {0, target.shape[i + 1]},
                     [&](const Run &run) { reached += run.count; });
            covered_ = covered_ && reached == target.shape[i + 1];
        }
        if (!covered_) {
            unreached_.resize(static_cast<std::size_t>(target.shape[4]));
            epilogue.on_columns(unreached_.data(), 0, 1, target.shape[4], 0);
        }
        cut();
        const Index copied = whole_copy();
        fit(std::max<Index>(copied, 0));
        if constexpr (!By::kMatrix)
            if (copied > 0)
                whole_.emplace(source, plan.element, plan.isa, poll);
    }

    void run(Poll poll) const {
        const Index tasks = blocks() * groups_ * panel_shares_;
        parallel_for(tasks, [this](Index task) { compute(task); }, poll, most_threads_);
    }

    void run(const std::vector<Cells> &cells, Poll poll) const {
        parallel_for(
            static_cast<Index>(cells.size()) * groups_,
            [&](Index task) {
                const Cells &of = cells[static_cast<std::size_t>(task / groups_)];
                Box box{};
                for (std::size_t i = 0; i < 4; ++i)
                    box[i] = {of.first[i], of.last[i]};
                compute(box, {of.step[1], of.step[2], of.step[3]}, task % groups_, {0, panels_});
            },
            poll, most_threads_);
    }

  protected:
    Index blocks() const { return blocks_[0] * blocks_[1] * blocks_[2] * blocks_[3]; }

    /// The cells of a block.
    Box box_of(Index block) const {
        Box box{};
        for (std::size_t i : {3, 2, 1, 0}) {
            const Index first = block % blocks_[i] * block_[i];
            box[i] = {first, std::min(first + block_[i], target_.shape[i])};
            block /= blocks_[i];
        }
        return box;
    }

    /// Columns of a panel, counted through all groups.
    Range columns_of(Index group, Index panel) const {
        const Index first = panel * width_, last = std::min(first + width_, columns_);
        return {group * columns_ + first, group * columns_ + last};
    }

    const Plan &plan_;
    const View &source_, &target_;
    const typename By::Filter &filter_;
    const Epilogue<T> &epilogue_;
    const Index groups_;
    const Index depth_, columns_, width_, panels_; // of one group, and how wide a panel is
    const Index channels_read_;
    const bool readable_, in_parts_, direct_, streaming_; // whether the source is read and the result written where
                                                          // they are, and this one around the caches
    const Index together_;                                // panels that are used at a time

  private:
    const Self &self() const { return static_cast<const Self &>(*this); }

    /// What a block reads of the source.
    struct Part {
        Window<const S> window;
        std::optional<Buffer<S>> copy;
    };

    /// Chooses the blocks of the result, and in how many shares the panels of columns are dealt out. Nothing here
    /// changes a bit of the result.
    void cut() {
        Index source_cells = 1; // per position
        for (const Axis &axis : plan_.geometry.axes)
            source_cells *= plan_.wrt == Operand::output ? 1 : std::min(axis.stride, axis.output);
        const Index bytes = channels_read_ * source_cells * Index{sizeof(S)};
        const Index block = std::clamp(filter_.panel_size() * Index{sizeof(S)},
                                       By::kMatrix ? kMatrixBlockBytes : kBlockBytes, kMostBlockBytes);
        positions_ = filter_.packed() ? std::clamp(block / bytes, kFewestPositions, kMostPositions) : kFewPositions;
        Index whole = target_.shape[0]; // positions per phase of the result
        for (int i : {1, 2, 3})
            whole *= ceil_div(target_.shape[i], stride(i));
        while (positions_ / 2 >= whole) // cut alike
            positions_ /= 2;
        cut(positions_);
        if (By::kMatrix && filter_.packed())
            return share_planes();
        // Shares of panels read the source again each, smaller blocks the filter, which may be in their caches.
        const bool cached = panels_ * filter_.panel_size() * Index{sizeof(S)} <= kBlockBytes;
        while (filter_.packed() && positions_ > kFewestPositions &&
               blocks() * groups_ * (cached ? 1 : panels_) < kEnoughTasks)
            cut(positions_ /= 2);
        // Of a filter that is packed as it is used every panel, unless each share makes the same planes.
        const Index shares = filter_.packed()            ? ceil_div(kEnoughTasks, blocks() * groups_)
                             : By::kMatrix && !readable_ ? 2 * threads()
                                                         : panels_;
        panel_shares_ = std::min(panels_, shares);
    }

    /// The same where planes of the source are made for each share: makes blocks as small as pays.
    void share_planes() {
        const double filter = static_cast<double>(groups_ * panels_ * filter_.panel_size());
        double source = static_cast<double>(channels_read_ * groups_) * (readable_ ? 1 : kMadeAgain);
        for (int i = 0; i < 4; ++i)
            source *= static_cast<double>(source_.shape[i]);
        const auto moved = [&] {
            panel_shares_ = std::min(panels_, ceil_div(kEnoughMatrixTasks, blocks() * groups_));
            return static_cast<double>(blocks()) * filter + static_cast<double>(panel_shares_) * source;
        };
        for (double least = moved(); positions_ > kFewestPositions; least = moved()) {
            cut(positions_ / 2);
            if (moved() >= least)
                break;
            positions_ /= 2;
        }
        cut(positions_);
        moved();
    }

    /// The number of phases along an axis of the result, batch first.
    Index stride(int i) const { return i > 0 && plan_.wrt == Operand::output ? plan_.geometry.axes[i - 1].stride : 1; }

    /// Blocks of about so many positions per phase. Those that are made planes are as square as it takes to make least
    /// of the source twice.
    void cut(Index positions) {
        cut(positions, target_.shape[3]);
        if (!By::kMatrix || readable_)
            return;
        const Index more = source_.stride[3] == 1 ? kShortRow : 0;
        const auto made = [&] { return part_size(more) * static_cast<double>(blocks()); };
        Index widest = target_.shape[3];
        double least = made();
        for (Index width = widest / 2; width / kNarrowest >= stride(3); width /= 2) {
            cut(positions, width);
            if (const double now = made(); now < least) {
                least = now;
                widest = width;
            }
        }
        cut(positions, widest);
    }

    /// Blocks of at most so many cells along the width: whole rows first, then whole planes, then images.
    void cut(Index positions, Index widest) {
        Index most_cells = direct_ ? kMostCells : kMostCopiedCells;
        for (int i : {3, 2, 1, 0}) {
            Index room = most_cells; // if all phases of the other axes are to be in the block
            for (int other = 0; other < i; ++other)
                room /= std::min({stride(other), target_.shape[other], std::max<Index>(room, 1)});
            const Index step = std::clamp<Index>(stride(i), 1, std::max<Index>(room, 1));
            const Index length = target_.shape[i], most = i == 3 ? std::min(room, widest) : room;
            const Index cells = std::min({positions, ceil_div(length, step), std::max<Index>(most / step, 1)}) * step;
            // Copies of rows that begin with whole vectors, if they can, are written by such.
            Index unit = direct_ || i < 3 || cells < kCopiedRow ? step : std::lcm(step, kCopiedRow);
            if (By::kMatrix && i == 2 && cells >= 2 * step)
                unit = 2 * step; // a line that has no other takes nearly as long as two
            if (By::kMatrix && i == 3 && cells >= kNarrowest * step)
                unit = kNarrowest * step;
            block_[i] = ceil_div(ceil_div(length, ceil_div(length, cells)), unit) * unit;
            blocks_[i] = ceil_div(length, block_[i]);
            positions = std::max<Index>(1, positions / ceil_div(block_[i], step));
            most_cells = std::max<Index>(1, most_cells / block_[i]);
        }
    }

    /// Elements of the source that a block reads, at most, if rows were so many cells longer.
    double part_size(Index more = 0) const {
        double part = static_cast<double>(block_[0]);
        for (int i : {1, 2, 3}) {
            const Axis &axis = plan_.geometry.axes[i - 1];
            const Index extent = (axis.kernel - 1) * axis.dilation, last = block_[i] - 1;
            Index read = last * axis.stride + extent + 1;
            if (plan_.wrt == Operand::output)
                read = block_[i] % axis.stride // at most, or else the same for all blocks
                           ? (last + extent) / axis.stride + 1
                           : floor_div(axis.pad + last, axis.stride) - ceil_div(axis.pad - extent, axis.stride) + 1;
            part *= static_cast<double>(std::min(read, source_.shape[i]) + (i == 3 ? more : 0));
        }
        return part * static_cast<double>(plan_.channelwise ? ceil_div(columns_, panel_shares_) : channels_read_);
    }

    /// Bytes of the source as a whole copy, 0 if it is read where it is, or -1 if each block copies the part that it
    /// reads.
    Index whole_copy() const {
        if (readable_)
            return 0;
        if (in_parts_)
            return -1;
        const Geometry &geometry = plan_.geometry;
        double products = static_cast<double>(geometry.batch) *
                          static_cast<double>(geometry.in_channels * (geometry.out_channels / geometry.groups));
        for (const Axis &axis : geometry.axes)
            products *= static_cast<double>(axis.input) * static_cast<double>(axis.kernel);
        double source = 1;
        for (Index length : source_.shape)
            source *= static_cast<double>(length);
        const double part = part_size(), copied = part * static_cast<double>(blocks() * groups_ * panel_shares_);
        const bool in_parts = part * sizeof(S) <= kMostPartBytes &&
                              (copied <= kMostCopied * source || copied * kFewestProducts <= products);
        const bool too_large = source * sizeof(T) > static_cast<double>(plan_.workspace.bytes) / 2;
        return in_parts || too_large ? -1 : static_cast<Index>(source) * Index{sizeof(T)};
    }

    /// Chooses smaller blocks and fewer threads, if the workspace asks for it, when so many bytes of the source are
    /// copied as a whole, or none.
    void fit(Index copied) {
        const bool parts = copied == 0 && !readable_;
        copied = copied ? Memory::rounded(copied) : 0;
        const auto taken = [&] {
            const auto bytes = [](double elements, Index size) {
                return elements > 0 ? Memory::rounded(static_cast<Index>(elements) * size) : 0;
            };
            const double sums = static_cast<double>(block_[0] * block_[1] * block_[2] * block_[3] * width_);
            const Index tiles = bytes(parts ? part_size() : 0, sizeof(S)) + bytes(direct_ ? 0 : sums, sizeof(T));
            if (!By::kMatrix)
                return tiles;
            // Sums of a phase that wait for more taps, of pieces that may be half empty, and a copy of some cells; as
            // much again is left to allocators, which were seen to waste 60 % on so many sizes.
            double waiting = static_cast<double>(2 * width_ * together_);
            for (int i = 0; i < 4; ++i)
                waiting *= static_cast<double>(ceil_div(block_[i], stride(i)));
            return 2 * (tiles + bytes(waiting, sizeof(T)) + bytes(kPairCells * kMatrixDepth, sizeof(T)));
        };
        while (copied + taken() > plan_.workspace.bytes && positions_ > 1)
            cut(positions_ /= 2);
        plan_.workspace.admit(copied + taken());
        most_threads_ = plan_.workspace.threads(taken(), copied);
    }

    /// Copies the part of the source that these runs read, unless all of it is there.
    Part part(Range images, const std::vector<Run> (&runs)[3], Range channels) const {
        if (readable_)
            return {window<S>(source_), {}};
        if constexpr (!By::kMatrix)
            if (whole_) {
                const auto &[data, stride] = whole_->rows();
                return {{data, {stride[0], stride[1], stride[2], stride[3], 1}, {}}, {}};
            }
        Box box = {{images, {}, {}, {}, channels}};
        for (std::size_t i : {1, 2, 3}) {
            Range &cells = box[i] = {source_.shape[i], 0};
            for (const Run &run : runs[i - 1]) {
                const Index along = (run.count - 1) * run.source_step, taps = (run.taps - 1) * run.source_tap;
                cells.first = std::min(cells.first, run.source + std::min<Index>(along, 0) + std::min<Index>(taps, 0));
                cells.last =
                    std::max(cells.last, run.source + std::max<Index>(along, 0) + std::max<Index>(taps, 0) + 1);
            }
            if (cells.count() <= 0)
                return {}; // no runs
        }
        Box room = box;
        if constexpr (By::kMatrix)
            room[4].last = room[4].first + filter_.pixel_size();
        Buffer<S> copy(cells_of(room));
        const Window<S> to = window(copy.get(), room);
        self().load_part(box, to);
        return {to, std::move(copy)};
    }

    void compute(Index task) const {
        const Index share = task % panel_shares_;
        const Index group = task / panel_shares_ % groups_;
        const Range panels = {share * panels_ / panel_shares_, (share + 1) * panels_ / panel_shares_};
        compute(box_of(task / panel_shares_ / groups_), {1, 1, 1}, group, panels);
    }

    /// Of each axis the cells first, first + step ... of the box.
    void compute(Box box, const std::array<Index, 3> &step, Index group, Range panels) const {
        std::vector<Run> runs[3];
        for (int i = 0; i < 3; ++i)
            each_run(plan_.wrt, plan_.geometry.axes[i], box[i + 1], [&](const Run &run) {
                if ((run.target - box[i + 1].first) % step[i] == 0)
                    runs[i].push_back(run);
            });
        const Range channels = plan_.channelwise
                                   ? Range{panels.first * width_, std::min(columns_, panels.last * width_)}
                                   : Range{group * depth_, (group + 1) * depth_};
        const Part source = part(box[0], runs, channels);
        if (!By::kMatrix && filter_.packed() && direct_) {
            box[4] = {columns_of(group, panels.first).first, columns_of(group, panels.last - 1).last};
            return compute(box, step, runs, source.window, window<Result>(target_), group, panels, nullptr);
        }
        // A panel or a few at a time, which serve all regions while they are in the cache, or whose sums are kept
        // there.
        const Buffer<S> weights(filter_.packed() ? 1 : filter_.panel_size());
        std::optional<Buffer<T>> sums;
        for (Index panel = panels.first, last; panel < panels.last; panel = last) {
            last = std::min(panel + (filter_.packed() ? together_ : 1), panels.last);
            box[4] = {columns_of(group, panel).first, columns_of(group, last - 1).last};
            const S *const own = filter_.packed() ? nullptr : filter_.panel(group, panel, weights.get());
            if (direct_) {
                compute(box, step, runs, source.window, window<Result>(target_), group, {panel, last}, own);
                continue;
            }
            if (!sums)
                sums.emplace(cells_of(box)); // the first panel is the widest
            const Window<T> target = window(sums->get(), box);
            compute(box, step, runs, source.window, target, group, {panel, last}, own);
            self().store_part(target, box, step);
        }
    }

    /// The weights are those of the only panel, or null where the filter is packed. The target is of sums or, where it
    /// is the result, of elements.
    template <class To>
    void compute(const Box &box, const std::array<Index, 3> &step, const std::vector<Run> (&runs)[3],
                 const Window<const S> &source, const Window<To> &target, Index group, Range panels,
                 const S *weights) const {
        if (!covered_)
            fill_box(box, step, target);
        Region region;
        for (const Run &d : runs[0])
            for (const Run &h : runs[1])
                for (const Run &w : runs[2]) {
                    fill(region, source, target, box[0], {d, h, w}, group);
                    if (!self().multiply(region, source, target, group, panels, weights))
                        return;
                }
    }

    /// Gives all cells the value of those that no tap reaches.
    template <class To>
    void fill_box(const Box &box, const std::array<Index, 3> &step, const Window<To> &target) const {
        for (Index n = box[0].first; n < box[0].last; ++n)
            for (Index d = box[1].first; d < box[1].last; d += step[0])
                for (Index h = box[2].first; h < box[2].last; h += step[1])
                    for (Index w = box[3].first; w < box[3].last; w += step[2])
                        std::transform(unreached_.data() + box[4].first, unreached_.data() + box[4].last,
                                       target.at({n, d, h, w, box[4].first}), [](T value) {
                                           if constexpr (std::is_same_v<To, T>)
                                               return value;
                                           else
                                               return narrow<To>(value);
                                       });
    }

    template <class To>
    void fill(Region &region, const Window<const S> &source, const Window<To> &target, Range images,
              const std::array<Run, 3> &runs, Index group) const {
        region.count[0] = images.count();
        region.source[0] = region.target[0] = images.first;
        region.source[4] = group * depth_;
        region.source_step[0] = source.stride[0];
        region.target_step[0] = target.stride[0];
        region.cell_step[0] = 1;
        for (int i : {1, 2, 3}) {
            const Run &run = runs[i - 1];
            region.count[i] = run.count;
            region.source[i] = run.source;
            region.target[i] = run.target;
            region.source_step[i] = distance(run.count, run.source_step, source.stride[i]);
            region.target_step[i] = distance(run.count, run.target_step, target.stride[i]);
            region.cell_step[i] = run.target_step;
        }
        const auto &[d, h, w] = runs;
        const auto &axes = plan_.geometry.axes;
        region.rows.clear();
        for (Index td = 0; td < d.taps; ++td)
            for (Index th = 0; th < h.taps; ++th) {
                const Index row = (d.kernel + td * d.kernel_step) * axes[1].kernel + h.kernel + th * h.kernel_step;
                region.rows.push_back({td * d.source_tap * source.stride[1] + th * h.source_tap * source.stride[2],
                                       row * axes[2].kernel + w.kernel});
            }
        region.taps = w.taps;
        region.source_tap = distance(w.taps, w.source_tap, source.stride[3]);
        region.filter_tap = distance(w.taps, w.kernel_step, 1);
    }

    std::optional<Readable<T>> whole_; // the source, unless each block copies a part
    bool covered_ = true;              // every cell of the result is reached by some tap, or else
    std::vector<T> unreached_;
    Index positions_, block_[4], blocks_[4], panel_shares_, most_threads_;
};

} // namespace backstride
