// SPDX-License-Identifier: Apache-2.0
#include "outer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "pack.h"

namespace backstride {
namespace {

// The pixels of one step stay in the first two caches while every tile of a task uses them. They also bound the
// longest chain of additions: sums over more pixels are added up in memory, which keeps rounding errors small.
constexpr Index kStepBytes = 128 << 10;
constexpr Index kFewestPixels = 64, kMostPixels = 512;
// A task's share of one tap's matrix, in kernel tiles: 8 x 4 tiles of 14 x 32 are 56 KiB.
constexpr Index kTilesDown = 8, kTilesAcross = 4;
// Fewer tasks than this and the pixels are shared out too, each share with sums of its own, added up in order.
constexpr Index kEnoughTasks = 32;
constexpr Index kFewestStepsPerShare = 8;

// A step copies the pixels that it needs, into rows of just the channels that its task multiplies, if enough products
// follow for each. (Copying float32, too, took a third off 100 images of 14x14x256 with a kernel of 2x2, one thread of
// a Sapphire Rapids.) What kernels can't read in place is else copied as a whole, once, unless it would be a large
// copy.
constexpr double kFewestProducts = 16, kFewestProductsInPlace = 40, kLargeBytes = 8 << 20;

/// The pixels of the input that one tap connects to the output, and how they are stepped through: along the
/// longest axis in `pieces`, and over the product of the other axes `lines` at a time.
struct Pixels {
    Index count[4];
    Index input, output;  // offsets of the first
    Index output_step[4]; // how far apart neighbours' partners in the output are
    Along along;
    Index pieces, lines, all_lines;

    Index steps() const { return pieces ? pieces * ceil_div(all_lines, lines) : 0; }
};

/// An array as one factor of the products: whole, or copied pixel by pixel as each step needs them.
template <class T> struct Factor {
    const View &view;
    std::optional<Readable<T>> whole;

    const Index *stride() const { return whole ? whole->rows().stride : view.stride; }
};

template <class T> class Outer {
  public:
    Outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll)
        : plan_(plan), filter_(filter), input_{input, {}}, output_{output, {}},
          groups_(plan.channelwise ? 1 : plan.geometry.groups), rows_(filter.shape[3]),
          columns_(filter.shape[4] / groups_),
          pixels_(std::clamp(kStepBytes / ((rows_ + columns_) * Index{sizeof(T)}), kFewestPixels, kMostPixels)),
          row_blocks_(ceil_div(rows_, kTilesDown * plan.kernel->rows)),
          column_blocks_(ceil_div(columns_, kTilesAcross * plan.kernel->columns)) {
        for (Factor<T> *factor : {&input_, &output_})
            if (!in_steps(*factor))
                factor->whole.emplace(factor->view, plan.element, plan.isa, poll);
        // The shares decide how sums are grouped, so they follow from sizes alone, not from kernel or threads.
        const Index matrices = taps() * groups_ * ceil_div(rows_, 64) * ceil_div(columns_, 64);
        Index steps = 0;
        for (Index tap = 0; tap < taps(); ++tap)
            steps = std::max(steps, pixels_of(tap).steps());
        if (matrices < kEnoughTasks)
            shares_ = std::clamp<Index>(steps / kFewestStepsPerShare, 1, ceil_div(kEnoughTasks, matrices));
        sums_ = static_cast<T *>(filter.data);
        std::copy_n(filter.stride, 4, stride_);
        direct_ = in_place<T>(filter, plan.element);
        if (shares_ > 1) {
            buffer_ = std::make_unique<Buffer<T>>(shares_ * elements());
            sums_ = buffer_->get();
            stride_[3] = filter.shape[4];
            for (int i : {2, 1, 0})
                stride_[i] = stride_[i + 1] * filter.shape[i + 1];
        }
    }

    void run(Poll poll) const {
        const Index tasks = taps() * groups_ * row_blocks_ * column_blocks_ * shares_;
        parallel_for(tasks, [this](Index task) { compute(task); }, poll);
        if (buffer_)
            parallel_for(taps() * rows_, [this](Index row) { add_up(row); }, poll);
    }

  private:
    /// Whether each step copies the pixels of this factor that it needs.
    bool in_steps(const Factor<T> &factor) const {
        const bool here = in_place<T>(factor.view, plan_.element);
        if (factor.view.stride[4] != 1)
            return false; // to bring channels together for each tap would take longer
        if (plan_.channelwise)
            return !here;
        const Index height = std::min(rows_, kTilesDown * plan_.kernel->rows);
        const Index width = std::min(columns_, kTilesAcross * plan_.kernel->columns);
        const double products = static_cast<double>(height * width) / static_cast<double>(height + width);
        if (here)
            return products >= kFewestProductsInPlace;
        double bytes = sizeof(T);
        for (Index length : factor.view.shape)
            bytes *= static_cast<double>(length);
        return products >= kFewestProducts || bytes >= kLargeBytes;
    }

    Index taps() const { return filter_.shape[0] * filter_.shape[1] * filter_.shape[2]; }
    Index elements() const { return taps() * rows_ * filter_.shape[4]; }

    /// The tap's position in the filter.
    std::array<Index, 3> position(Index tap) const {
        const Index *shape = filter_.shape;
        return {tap / shape[2] / shape[1], tap / shape[2] % shape[1], tap % shape[2]};
    }

    Pixels pixels_of(Index tap) const {
        const auto &axes = plan_.geometry.axes;
        const auto kernel = position(tap);
        Pixels pixels{};
        pixels.count[0] = plan_.geometry.batch;
        pixels.output_step[0] = output_.stride()[0];
        for (int i : {1, 2, 3}) {
            const Axis &axis = axes[i - 1];
            const Reach reached = reach(axis, kernel[i - 1]);
            pixels.count[i] = reached.count;
            if (reached.count == 0)
                return {}; // of no pixels
            pixels.input += reached.first * input_.stride()[i];
            pixels.output +=
                (reached.first * axis.stride + kernel[i - 1] * axis.dilation - axis.pad) * output_.stride()[i];
            pixels.output_step[i] = distance(reached.count, axis.stride, output_.stride()[i]);
        }
        pixels.along = along_longest(pixels.count);
        pixels.all_lines = 1;
        for (int i : pixels.along.others)
            pixels.all_lines *= pixels.count[i];
        const Index length = pixels.count[pixels.along.axis];
        pixels.pieces = ceil_div(length, pixels_);
        pixels.lines = length ? std::max<Index>(1, pixels_ / ceil_div(length, pixels.pieces)) : 1;
        return pixels;
    }

    /// A block of one tap's matrix, its sums, and copies of the pixels of a step.
    struct Work {
        Index tap, group;
        Range rows, columns;
        T *sums;
        Index sums_row;
        std::vector<Segment> segments;
        std::optional<Buffer<T>> own_sums, a, b;
    };

    void compute(Index task) const {
        const Index share = task % shares_;
        task /= shares_;
        const Index column = task % column_blocks_ * kTilesAcross * plan_.kernel->columns;
        task /= column_blocks_;
        const Index row = task % row_blocks_ * kTilesDown * plan_.kernel->rows;
        task /= row_blocks_;
        Work work{};
        work.group = task % groups_;
        work.tap = task / groups_;
        work.rows = {row, std::min(rows_, row + kTilesDown * plan_.kernel->rows)};
        work.columns = {column, std::min(columns_, column + kTilesAcross * plan_.kernel->columns)};
        if (buffer_ || direct_) {
            work.sums_row = stride_[3];
            work.sums = sums_ + share * elements() + first_element(work, stride_) + work.group * columns_ + column;
        } else {
            work.sums_row = work.columns.count();
            work.sums = work.own_sums.emplace(work.rows.count() * work.sums_row).get();
        }
        for (Index r = 0; r < work.rows.count(); ++r)
            std::fill_n(work.sums + r * work.sums_row, work.columns.count(), T{});
        if (!output_.whole)
            work.a.emplace(pixels_ * (plan_.channelwise ? work.columns : work.rows).count());
        if (!input_.whole)
            work.b.emplace(pixels_ * work.columns.count());

        const Pixels pixels = pixels_of(work.tap);
        const Index steps = pixels.steps();
        for (Index step = share * steps / shares_; step < (share + 1) * steps / shares_; ++step) {
            if (interrupted())
                return;
            add_step(work, pixels, step);
        }
        if (work.own_sums)
            store(work.sums, work.sums_row, work.rows.count(), work.columns.count(), plan_.element, plan_.isa,
                  {at(filter_, plan_.element,
                      first_element(work, filter_.stride) + (work.group * columns_ + column) * filter_.stride[4]),
                   filter_.stride[3], filter_.stride[4]});
    }

    /// Where the block's first row begins in an array with the filter's axes.
    Index first_element(const Work &work, const Index *stride) const {
        return offset(work.tap, stride) + work.rows.first * stride[3];
    }

    void add_step(Work &work, const Pixels &pixels, Index step) const {
        const auto &[tap, group, rows, columns, sums, sums_row, segments, own_sums, a_copy, b_copy] = work;
        Tile<T> tile{};
        tile.depth = gather_segments(pixels, step, work.segments);
        tile.segments = segments.data();
        tile.count = static_cast<Index>(segments.size());
        tile.taps = 1;
        tile.a_row = 1;
        tile.a_step = pixels.output_step[pixels.along.axis];
        tile.b_step = input_.stride()[pixels.along.axis];
        tile.b_segment = 1;
        tile.c_row = sums_row;
        const Range across{group * columns_ + columns.first, group * columns_ + columns.last};
        const Range down = plan_.channelwise ? across : Range{group * rows_ + rows.first, group * rows_ + rows.last};
        const T *const a =
            bring(output_, pixels.output, down, work.segments, &Segment::a, tile.depth, tile.a_step, a_copy);
        const T *const b =
            bring(input_, pixels.input, across, work.segments, &Segment::b, tile.depth, tile.b_step, b_copy);
        for (Index column = 0; column < columns.count(); column += plan_.kernel->columns) {
            tile.columns = static_cast<int>(std::min<Index>(plan_.kernel->columns, columns.count() - column));
            const Kernel &kernel = tile.columns < plan_.kernel->columns ? *plan_.tail : *plan_.kernel;
            const bool partial = tile.columns < kernel.columns;
            tile.b = b + column;
            const Index pieces = ceil_div(rows.count(), kernel.rows);
            for (Index piece = 0; piece < pieces; ++piece) {
                const Index row = piece * rows.count() / pieces;
                const Index height = (piece + 1) * rows.count() / pieces - row;
                tile.a = a + row;
                tile.c = sums + row * sums_row + column;
                if (plan_.channelwise) {
                    tile.a += column;
                    functions<T>(kernel).channel_sums[partial](tile);
                } else
                    functions<T>(kernel).outer[partial][height](tile);
            }
        }
    }

    /// Where the channels of a step's first pixel are, after copying the pixels of all its segments if need be.
    const T *bring(const Factor<T> &factor, Index first, Range channels, std::vector<Segment> &segments,
                   Index Segment::*start, Index length, Index &step, const std::optional<Buffer<T>> &copy) const {
        if (factor.whole)
            return factor.whole->rows().data + first + channels.first;
        T *to = copy->get();
        const View &view = factor.view;
        for (Segment &segment : segments) {
            const Index offset = first + segment.*start + channels.first * view.stride[4];
            load(plan_.element, plan_.isa, {at(view, plan_.element, offset), step, view.stride[4]}, length,
                 channels.count(), to, channels.count());
            segment.*start = to - copy->get();
            to += length * channels.count();
        }
        step = channels.count();
        return copy->get();
    }

    /// The stretches of pixels of one step; returns their common length.
    Index gather_segments(const Pixels &pixels, Index step, std::vector<Segment> &segments) const {
        const Index piece = step % pixels.pieces, first_line = step / pixels.pieces * pixels.lines;
        const Index length = pixels.count[pixels.along.axis];
        const Index begin = piece * length / pixels.pieces;
        segments.clear();
        for (Index line = first_line; line < std::min(pixels.all_lines, first_line + pixels.lines); ++line) {
            Segment segment{begin * pixels.output_step[pixels.along.axis], begin * input_.stride()[pixels.along.axis]};
            Index rest = line;
            for (int i : {2, 1, 0}) {
                const int axis = pixels.along.others[i];
                segment.a += rest % pixels.count[axis] * pixels.output_step[axis];
                segment.b += rest % pixels.count[axis] * input_.stride()[axis];
                rest /= pixels.count[axis];
            }
            segments.push_back(segment);
        }
        return (piece + 1) * length / pixels.pieces - begin;
    }

    /// Adds up the shares of one row of the filter, always in the same order, and stores it.
    void add_up(Index row) const {
        const Index tap = row / rows_, o = row % rows_;
        T *sums = sums_ + offset(tap, stride_) + o * stride_[3];
        for (Index share = 1; share < shares_; ++share)
            for (Index i = 0; i < filter_.shape[4]; ++i)
                sums[i] += sums[share * elements() + i];
        store(sums, 0, 1, filter_.shape[4], plan_.element, plan_.isa,
              {at(filter_, plan_.element, offset(tap, filter_.stride) + o * filter_.stride[3]), 0, filter_.stride[4]});
    }

    Index offset(Index tap, const Index *stride) const {
        const auto kernel = position(tap);
        return kernel[0] * stride[0] + kernel[1] * stride[1] + kernel[2] * stride[2];
    }

    const Plan &plan_;
    const View &filter_;
    Factor<T> input_, output_;
    const Index groups_; // each with matrices of its own; channels that have a filter each are columns of one row
    const Index rows_, columns_; // of one tap's matrix in one group
    const Index pixels_;         // in one step
    const Index row_blocks_, column_blocks_;
    Index shares_ = 1;
    bool direct_;                       // whether sums may be the result
    std::unique_ptr<Buffer<T>> buffer_; // of all shares' sums, if there are several
    T *sums_;                           // of the first share; stride_ as the filter's
    Index stride_[4];
};

} // namespace

template <class T> void outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll) {
    Outer<T>(plan, input, output, filter, poll).run(poll);
}

template void outer<float>(const Plan &, const View &, const View &, const View &, Poll);
template void outer<double>(const Plan &, const View &, const View &, const View &, Poll);
template void outer<std::uint32_t>(const Plan &, const View &, const View &, const View &, Poll);
template void outer<std::uint64_t>(const Plan &, const View &, const View &, const View &, Poll);

} // namespace backstride
