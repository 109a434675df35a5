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
constexpr Index kFewestPixels = 128, kMostPixels = 512;
// A task's share of a matrix, in kernel tiles: 8 x 4 tiles of 14 x 32 are 56 KiB.
constexpr Index kTilesDown = 8, kTilesAcross = 4;
// Where several taps make one matrix, it has about so many rows, and a step so many columns: sizes that don't depend
// on the kernel, since they decide how sums are grouped.
constexpr Index kMostRowsOfTaps = 112, kColumnsOfTaps = 128;
// Fewer tasks than this and the pixels are shared out too, each share with sums of its own, added up in order.
constexpr Index kEnoughTasks = 32;
constexpr Index kFewestStepsPerShare = 8;

// A step copies the pixels that it needs, into rows of just the channels that its task multiplies, if enough products
// follow for each. (Copying float32, too, took a third off 100 images of 14x14x256 with a kernel of 2x2, one thread of
// a Sapphire Rapids.) What kernels can't read in place is else copied as a whole, once, unless it would be a large
// copy.
constexpr double kFewestProducts = 16, kFewestProductsInPlace = 40, kLargeBytes = 8 << 20;

/// A part of the result: of some taps, the products of some output channels, its rows, with some input channels.
struct Block {
    Index group;
    Range taps[3], rows, columns;
    Index height() const { return taps[0].count() * taps[1].count() * taps[2].count() * rows.count(); }
};

/// Channels of a pixel that stand evenly in memory; of the output those of several taps, which make rows of a block.
struct Stretch {
    Index first, step, count; // of the first pixel, in elements
    Index row;
};

/// Input pixels that the same of a block's taps connect to the output, and how they are stepped through: along the
/// longest axis in `pieces`, and over the product of the other axes `lines` at a time.
struct Pixels {
    Index count[4];
    Index output_step[4]; // how far apart neighbours' partners in the output are
    std::vector<Stretch> output, input;
    Along along;
    Index pieces, lines, all_lines;

    Index steps() const { return pieces * ceil_div(all_lines, lines); }
};

/// An array as one factor of the products: whole, or copied pixel by pixel as each step needs them.
template <class T> struct Factor {
    const View &view;
    std::optional<Readable<T>> whole;

    Index stride(int axis) const { return !whole ? view.stride[axis] : axis < 4 ? whole->rows().stride[axis] : 1; }
};

template <class T> class Outer {
  public:
    Outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll)
        : plan_(plan), filter_(filter), input_{input, {}}, output_{output, {}},
          groups_(plan.channelwise ? 1 : plan.geometry.groups), rows_(filter.shape[3]),
          columns_(filter.shape[4] / groups_), row_blocks_(ceil_div(rows_, kTilesDown * plan.kernel->rows)),
          column_blocks_(ceil_div(columns_, kTilesAcross * plan.kernel->columns)) {
        cut();
        for (Factor<T> *factor : {&input_, &output_})
            if (!in_steps(*factor))
                factor->whole.emplace(factor->view, plan.element, plan.isa, poll);
        share_out();
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
        const Index tasks = boxes() * groups_ * row_blocks_ * column_blocks_ * shares_;
        parallel_for(tasks, [this](Index task) { compute(task); }, poll);
        if (buffer_)
            add_up(plan_, sums_, shares_, filter_, poll);
    }

  private:
    /// Chooses how many taps are in a block, and how many pixels in a step.
    void cut() {
        Index room = plan_.algorithm == Algorithm::taps ? kMostRowsOfTaps / rows_ : 1;
        Index height = rows_;
        for (int i : {2, 1, 0}) {
            const Index length = filter_.shape[i];
            box_[i] = ceil_div(length, ceil_div(length, std::clamp<Index>(room, 1, length)));
            room = box_[i] == length ? room / length : 1;
            height *= box_[i];
        }
        const Index columns = plan_.algorithm == Algorithm::taps ? std::min(columns_, kColumnsOfTaps) : columns_;
        pixels_ = chain(height, columns, sizeof(T));
    }

    /// Chooses the shares of pixels. They decide how sums are grouped, so they follow from sizes alone, not from kernel
    /// or threads.
    void share_out() {
        const Index matrices =
            boxes() * groups_ * ceil_div(rows_ * box_[0] * box_[1] * box_[2], 64) * ceil_div(columns_, 64);
        if (matrices >= kEnoughTasks)
            return;
        Index steps = 0;
        for (Index box = 0; box < boxes(); ++box)
            steps = std::max(steps, steps_of(pixels_of(block(0, box, {0, rows_}, {0, columns_}))));
        shares_ = std::clamp<Index>(steps / kFewestStepsPerShare, 1, ceil_div(kEnoughTasks, matrices));
    }

    /// Whether each step copies the pixels of this factor that it needs.
    bool in_steps(const Factor<T> &factor) const {
        const bool here = in_place<T>(factor.view, plan_.element);
        if (plan_.algorithm == Algorithm::taps)
            return !here; // each pixel is read once, or little more often
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

    Index elements() const { return cells_of(whole_box(filter_)); }
    Index boxes(int axis) const { return ceil_div(filter_.shape[axis], box_[axis]); }
    Index boxes() const { return boxes(0) * boxes(1) * boxes(2); }

    Block block(Index group, Index box, Range rows, Range columns) const {
        Block block{group, {}, rows, columns};
        for (int i : {2, 1, 0}) {
            const Index first = box % boxes(i) * box_[i];
            block.taps[i] = {first, std::min(first + box_[i], filter_.shape[i])};
            box /= boxes(i);
        }
        return block;
    }

    /// The input cells of an axis that any of these taps reach, in stretches which the same of them reach.
    std::vector<Run> runs_of(const Axis &axis, Range taps) const {
        std::vector<Run> runs;
        if (taps.count() == 1) {
            const auto [first, count] = reach(axis, taps.first);
            const Index output = first * axis.stride + taps.first * axis.dilation - axis.pad;
            if (count > 0)
                runs.push_back({first, 1, count, output, axis.stride, axis.dilation, taps.first, 1, 1});
            return runs;
        }
        each_run(Operand::input, axis, {0, axis.input}, [&](Run run) {
            const Index first = std::max(run.kernel, taps.first), last = std::min(run.kernel + run.taps, taps.last);
            if (first >= last)
                return;
            if (!runs.empty() && runs.back().target + runs.back().count == run.target && runs.back().kernel == first &&
                runs.back().taps == last - first) {
                runs.back().count += run.count; // they differed in other taps
                return;
            }
            run.source += (first - run.kernel) * run.source_tap;
            run.kernel = first;
            run.taps = last - first;
            runs.push_back(run);
        });
        return runs;
    }

    std::vector<Pixels> pixels_of(const Block &block) const {
        std::vector<Pixels> result;
        const auto &axes = plan_.geometry.axes;
        const auto ds = runs_of(axes[0], block.taps[0]), hs = runs_of(axes[1], block.taps[1]),
                   ws = runs_of(axes[2], block.taps[2]);
        for (const Run &d : ds)
            for (const Run &h : hs)
                for (const Run &w : ws)
                    result.push_back(pixels_of(block, {d, h, w}));
        return result;
    }

    Pixels pixels_of(const Block &block, const std::array<Run, 3> &runs) const {
        Pixels pixels{};
        pixels.count[0] = plan_.geometry.batch;
        pixels.output_step[0] = output_.stride(0);
        const Range across{block.group * columns_ + block.columns.first, block.group * columns_ + block.columns.last};
        const Range down = plan_.channelwise
                               ? across
                               : Range{block.group * rows_ + block.rows.first, block.group * rows_ + block.rows.last};
        Index input = across.first * input_.stride(4), output = down.first * output_.stride(4);
        for (int i : {1, 2, 3}) {
            const Run &run = runs[i - 1];
            pixels.count[i] = run.count;
            input += run.target * input_.stride(i);
            output += run.source * output_.stride(i);
            pixels.output_step[i] = distance(run.count, run.source_step, output_.stride(i));
        }
        pixels.input = {{input, input_.stride(4), across.count(), 0}};
        const auto &[d, h, w] = runs;
        const Index tap = w.source_tap * output_.stride(3), channel = output_.stride(4);
        const bool even = w.taps == 1 || down.count() == 1 || tap == down.count() * channel;
        for (Index td = 0; td < d.taps; ++td)
            for (Index th = 0; th < h.taps; ++th)
                for (Index tw = 0; tw < (even ? 1 : w.taps); ++tw) {
                    const Index row = (((d.kernel + td - block.taps[0].first) * block.taps[1].count() + h.kernel + th -
                                        block.taps[1].first) *
                                           block.taps[2].count() +
                                       w.kernel + tw - block.taps[2].first) *
                                      block.rows.count();
                    pixels.output.push_back({output + td * d.source_tap * output_.stride(1) +
                                                 th * h.source_tap * output_.stride(2) + tw * tap,
                                             down.count() == 1 && w.taps > 1 ? tap : channel,
                                             down.count() * (even ? w.taps : 1), row});
                }
        pixels.along = along_longest(pixels.count);
        pixels.all_lines = 1;
        for (int i : pixels.along.others)
            pixels.all_lines *= pixels.count[i];
        const Index length = pixels.count[pixels.along.axis];
        pixels.pieces = ceil_div(length, pixels_);
        pixels.lines = std::max<Index>(1, pixels_ / ceil_div(length, pixels.pieces));
        return pixels;
    }

    static Index steps_of(const std::vector<Pixels> &all) {
        Index steps = 0;
        for (const Pixels &pixels : all)
            steps += pixels.steps();
        return steps;
    }

    /// A block, its sums, and copies of the pixels of a step.
    struct Work {
        Block block;
        T *sums;
        Index sums_row;
        std::vector<Segment> segments;
        std::optional<Buffer<T>> own_sums, a, b;
    };

    void compute(Index task) const {
        const auto next = [&](Index count) {
            const Index index = task % count;
            task /= count;
            return index;
        };
        const Index share = next(shares_), column = next(column_blocks_) * kTilesAcross * plan_.kernel->columns,
                    row = next(row_blocks_) * kTilesDown * plan_.kernel->rows, group = next(groups_);
        Work work{};
        work.block = block(group, task, {row, std::min(rows_, row + kTilesDown * plan_.kernel->rows)},
                           {column, std::min(columns_, column + kTilesAcross * plan_.kernel->columns)});
        const Index height = work.block.height(), width = work.block.columns.count();
        const bool in_place = (buffer_ || direct_) && height == work.block.rows.count();
        if (in_place) {
            work.sums_row = stride_[3];
            work.sums = sums_ + share * elements() + first_element(work.block, stride_) + group * columns_ + column;
        } else {
            work.sums_row = width;
            work.sums = work.own_sums.emplace(height * width).get();
        }
        for (Index r = 0; r < height; ++r)
            std::fill_n(work.sums + r * work.sums_row, width, T{});
        work.a.emplace(pixels_ * (plan_.channelwise ? width : height));
        if (!input_.whole)
            work.b.emplace(pixels_ * width);

        const std::vector<Pixels> all = pixels_of(work.block);
        const Index steps = steps_of(all);
        Index first = share * steps / shares_, last = (share + 1) * steps / shares_;
        for (const Pixels &pixels : all) {
            for (Index step = std::max<Index>(first, 0); step < std::min(last, pixels.steps()); ++step) {
                if (interrupted())
                    return;
                add_step(work, pixels, step);
            }
            first -= pixels.steps();
            last -= pixels.steps();
        }
        if (!in_place)
            write(work, share);
    }

    /// Where the block's first row begins in an array with the filter's axes.
    static Index first_element(const Block &block, const Index *stride) {
        const auto &[d, h, w] = block.taps;
        return d.first * stride[0] + h.first * stride[1] + w.first * stride[2] + block.rows.first * stride[3];
    }

    void add_step(Work &work, const Pixels &pixels, Index step) const {
        const Range columns = work.block.columns;
        Tile<T> tile{};
        tile.depth = gather_segments(pixels, step, work.segments);
        tile.segments = work.segments.data();
        tile.count = static_cast<Index>(work.segments.size());
        tile.taps = 1;
        tile.a_row = 1;
        tile.a_step = pixels.output_step[pixels.along.axis];
        tile.b_step = input_.stride(pixels.along.axis);
        tile.b_segment = 1;
        tile.c_row = work.sums_row;
        const T *const a = bring(output_, pixels.output, work.segments, &Segment::a, tile.depth, tile.a_step, work.a);
        const T *const b = bring(input_, pixels.input, work.segments, &Segment::b, tile.depth, tile.b_step, work.b);
        for (Index column = 0; column < columns.count(); column += plan_.kernel->columns) {
            tile.columns = static_cast<int>(std::min<Index>(plan_.kernel->columns, columns.count() - column));
            tile.b = b + column;
            if (plan_.channelwise) {
                const Kernel &kernel = kernel_of(tile);
                tile.a = a + column;
                tile.c = work.sums + column;
                functions<T>(kernel).channel_sums[tile.columns < kernel.columns](tile);
                continue;
            }
            tile.a = a;
            const auto &rows = pixels.output;
            for (std::size_t i = 0; i < rows.size();) {
                Index count = 0; // of rows that follow one another
                tile.c = work.sums + rows[i].row * work.sums_row + column;
                for (const Index row = rows[i].row; i < rows.size() && rows[i].row == row + count; ++i)
                    count += rows[i].count;
                multiply(tile, count);
                tile.a += count;
            }
        }
    }

    const Kernel &kernel_of(const Tile<T> &tile) const {
        return tile.columns < plan_.kernel->columns ? *plan_.tail : *plan_.kernel;
    }

    void multiply(Tile<T> tile, Index rows) const {
        const Kernel &kernel = kernel_of(tile);
        const T *const a = tile.a;
        T *const c = tile.c;
        const Index pieces = ceil_div(rows, kernel.rows);
        for (Index piece = 0; piece < pieces; ++piece) {
            const Index row = piece * rows / pieces, height = (piece + 1) * rows / pieces - row;
            tile.a = a + row;
            tile.c = c + row * tile.c_row;
            functions<T>(kernel).outer[tile.columns < kernel.columns][height](tile);
        }
    }

    /// Where the channels of a step's first pixel are, after copying the pixels of all its segments unless they stand
    /// together already.
    const T *bring(const Factor<T> &factor, const std::vector<Stretch> &stretches, std::vector<Segment> &segments,
                   Index Segment::*start, Index length, Index &step, const std::optional<Buffer<T>> &copy) const {
        if (factor.whole && stretches.size() == 1 && (stretches[0].step == 1 || stretches[0].count == 1))
            return factor.whole->rows().data + stretches[0].first;
        Index width = 0;
        for (const Stretch &stretch : stretches)
            width += stretch.count;
        T *to = copy->get();
        for (Segment &segment : segments) {
            Index column = 0;
            for (const Stretch &stretch : stretches) {
                const Index offset = stretch.first + segment.*start;
                if (factor.whole)
                    copy_matrix(plan_.isa, factor.whole->rows().data + offset, step, stretch.step, length,
                                stretch.count, to + column, width);
                else
                    load(plan_.element, plan_.isa, {at(factor.view, plan_.element, offset), step, stretch.step}, length,
                         stretch.count, to + column, width);
                column += stretch.count;
            }
            segment.*start = to - copy->get();
            to += length * width;
        }
        step = width;
        return copy->get();
    }

    /// The stretches of pixels of one step; returns their common length.
    Index gather_segments(const Pixels &pixels, Index step, std::vector<Segment> &segments) const {
        const Index piece = step % pixels.pieces, first_line = step / pixels.pieces * pixels.lines;
        const int axis = pixels.along.axis;
        const Index length = pixels.count[axis];
        const Index begin = piece * length / pixels.pieces;
        segments.clear();
        for (Index line = first_line; line < std::min(pixels.all_lines, first_line + pixels.lines); ++line) {
            Segment segment{begin * pixels.output_step[axis], begin * input_.stride(axis)};
            Index rest = line;
            for (int i : {2, 1, 0}) {
                const int other = pixels.along.others[i];
                segment.a += rest % pixels.count[other] * pixels.output_step[other];
                segment.b += rest % pixels.count[other] * input_.stride(other);
                rest /= pixels.count[other];
            }
            segments.push_back(segment);
        }
        return (piece + 1) * length / pixels.pieces - begin;
    }

    /// Stores a block's own sums, tap by tap: in the share's sums if there are several, else in the result.
    void write(const Work &work, Index share) const {
        const auto &[group, taps, rows, columns] = work.block;
        const T *sums = work.sums;
        Block tap = work.block; // its first and only one
        for (Index d = taps[0].first; d < taps[0].last; ++d)
            for (Index h = taps[1].first; h < taps[1].last; ++h)
                for (Index w = taps[2].first; w < taps[2].last; ++w, sums += rows.count() * work.sums_row) {
                    tap.taps[0].first = d;
                    tap.taps[1].first = h;
                    tap.taps[2].first = w;
                    const Index channel = group * columns_ + columns.first;
                    if (buffer_) {
                        T *const to = sums_ + share * elements() + first_element(tap, stride_) + channel;
                        for (Index row = 0; row < rows.count(); ++row)
                            std::copy_n(sums + row * work.sums_row, columns.count(), to + row * stride_[3]);
                    } else
                        store(sums, work.sums_row, rows.count(), columns.count(), plan_.element, plan_.isa,
                              {at(filter_, plan_.element,
                                  first_element(tap, filter_.stride) + channel * filter_.stride[4]),
                               filter_.stride[3], filter_.stride[4]});
                }
    }

    const Plan &plan_;
    const View &filter_;
    Factor<T> input_, output_;
    const Index groups_; // each with matrices of its own; channels that have a filter each are columns of one row
    const Index rows_, columns_; // of one tap's matrix in one group
    const Index row_blocks_, column_blocks_;
    Index box_[3]; // taps of a block, along each axis
    Index pixels_; // in one step
    Index shares_ = 1;
    bool direct_;                       // whether sums may be the result
    std::unique_ptr<Buffer<T>> buffer_; // of all shares' sums, if there are several
    T *sums_;                           // of the first share; stride_ as the filter's
    Index stride_[4];
};

} // namespace

Index chain(Index rows, Index columns, Index size) {
    return std::clamp(kStepBytes / ((rows + columns) * size), kFewestPixels, kMostPixels);
}

template <class T> void add_up(const Plan &plan, T *sums, Index shares, const View &filter, Poll poll) {
    const Index *stride = filter.stride, elements = cells_of(whole_box(filter));
    parallel_for(
        elements / filter.shape[4],
        [&](Index row) {
            T *const first = sums + row * filter.shape[4];
            for (Index share = 1; share < shares; ++share)
                for (Index i = 0; i < filter.shape[4]; ++i)
                    first[i] += first[share * elements + i];
            const Index tap = row / filter.shape[3], plane = tap / filter.shape[2];
            const Index offset = plane / filter.shape[1] * stride[0] + plane % filter.shape[1] * stride[1] +
                                 tap % filter.shape[2] * stride[2] + row % filter.shape[3] * stride[3];
            store(first, 0, 1, filter.shape[4], plan.element, plan.isa,
                  {at(filter, plan.element, offset), 0, stride[4]});
        },
        poll);
}

template <class T> void outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll) {
    Outer<T>(plan, input, output, filter, poll).run(poll);
}

#define INSTANTIATE(T)                                                                                                 \
    template void add_up(const Plan &, T *, Index, const View &, Poll);                                                \
    template void outer<T>(const Plan &, const View &, const View &, const View &, Poll);
BACKSTRIDE_EACH_SUM(INSTANTIATE)
#undef INSTANTIATE

} // namespace backstride
