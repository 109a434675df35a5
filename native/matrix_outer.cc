// SPDX-License-Identifier: Apache-2.0
// A tap's gradient is the product of a matrix of the output's channels and pixels with one of the input's pixels and
// channels. Pixels of some rows make one long depth, in which rows of both are as far apart:
//
//     input cell  (h, w)                               at h * pitch + w,                  zeros at width <= w < pitch
//     output cell (h * stride + phase_h, w * stride + phase_w) of a phase at (h - first_h) * pitch + w - first_w
//
// so that taps of the same phase differ in where in the depth they begin, and the planes of a phase serve all of them.
#include "matrix_outer.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <optional>
#include <vector>

#include "cost.h"
#include "outer.h"
#include "pack.h"

namespace backstride {
namespace {

// The longest chain of additions: sums over more pixels are added up in memory.
constexpr Index kChain = 768;
// Planes that exist at a time: those of a few chains, and a part of the input's channels that a second-level cache
// holds while all taps meet it. Chains are shorter where theirs would take more than that.
constexpr Index kRoundBytes = 4 << 20, kCachedBytes = 768 << 10, kChainBytes = 24 << 20;
// Channels of the output that are made planes at a time: so much of a pixel, whose neighbours are elsewhere, is read.
constexpr Index kRowsMade = 128;

/// How the taps of an axis are found in the output: tap k meets input cell i at (i + shift(k)) * stride + phase(k).
struct Taps {
    explicit Taps(const Axis &axis)
        : count(axis.kernel), stride(axis.stride), dilation(axis.dilation), pad(axis.pad),
          phases(std::min(axis.kernel, axis.stride / std::gcd(axis.stride, axis.dilation))), first(shift(0)),
          last(shift(axis.kernel - 1)) {}
    Index shift(Index k) const { return floor_div(k * dilation - pad, stride); }
    Index phase(Index k) const { return k * dilation - pad - shift(k) * stride; }
    /// Those of other taps are the same again.
    Index phase_index(Index k) const { return k % phases; }
    Index halo() const { return last - first; }

    Index count, stride, dilation, pad, phases, first, last;
};

/// Pieces of the input that are long depths: some rows of a plane, or a part of one, all of the same size, with zeros
/// beyond the edges.
struct Pieces {
    Pieces(const Plan &plan, const Taps &h, const Taps &w) {
        const auto &axes = plan.geometry.axes;
        const auto even = [](Index length, Index most) { return ceil_div(length, ceil_div(length, most)); };
        width = even(axes[2].input, std::max<Index>(1, kChain - w.halo()));
        pitch = width + w.halo();
        rows = even(axes[1].input, std::max<Index>(1, kChain / pitch));
        across = ceil_div(axes[2].input, width);
        down = ceil_div(axes[1].input, rows);
        count = plan.geometry.batch * axes[0].input * down * across;
        chunks = ceil_div(rows * pitch, Index{kMatrixDepth});
        // From a row of the output's planes to the next, with zeros at its end: an odd number of cache lines.
        row = ceil_div(h.halo() * pitch + w.halo(), Index{kMatrixDepth}) + chunks;
        row = (row | 1) * kMatrixDepth;
    }

    /// Pieces of a chain, if each takes so much memory.
    Index together(Index bytes) const {
        return std::clamp<Index>(std::min(kChain / (rows * pitch), kChainBytes / bytes), 1, count);
    }

    Index rows, width, pitch, down, across, count;
    Index chunks; // of the depth
    Index row;
};

/// Some channels of a group: as rows or columns, in halves of a tile.
struct Part {
    explicit Part(Index count) : channels(count), halves(ceil_div(count, kMatrixHalf)) {}
    Index channels, halves;
    Index blocks() const { return ceil_div(halves, 2); }
    Range block(Index i) const { return {i * kMatrixColumns, std::min((i + 1) * kMatrixColumns, channels)}; }
    int halves_of(Index i) const { return block(i).count() > kMatrixHalf ? 2 : 1; }
};

class Outer {
  public:
    Outer(const Plan &plan, const View &input, const View &output, const View &filter)
        : plan_(plan), input_(input), output_(output), filter_(filter), unit_(*matrix_functions(plan.isa)),
          taps_{Taps(plan.geometry.axes[0]), Taps(plan.geometry.axes[1]), Taps(plan.geometry.axes[2])},
          pieces_(plan, taps_[1], taps_[2]), rows_(plan.geometry.out_channels / plan.geometry.groups),
          columns_(plan.geometry.in_channels / plan.geometry.groups),
          planes_(plan.element == Element::bfloat16 ? 1 : kPlanes),
          together_(pieces_.together(size() * Index{sizeof(Bfloat)})) {}

    /// Elements of the planes of a piece: of the output's, and of both.
    Index output_size() const {
        return phases() * plan_.geometry.groups * rows_.halves * kMatrixHalf * planes_ * pieces_.row;
    }
    Index size() const {
        return output_size() +
               plan_.geometry.groups * columns_.halves * kMatrixHalf * planes_ * pieces_.chunks * kMatrixDepth;
    }
    OuterWork work() const {
        const double taps = static_cast<double>(taps_[0].count * taps_[1].count * taps_[2].count),
                     pieces = static_cast<double>(pieces_.count), groups = static_cast<double>(plan_.geometry.groups),
                     rows = static_cast<double>(rows_.halves * kMatrixHalf),
                     columns = matrix_columns(columns_.channels);
        const double depth = static_cast<double>(pieces_.chunks * kMatrixDepth),
                     made = static_cast<double>(phases()) * rows * static_cast<double>(pieces_.row) + columns * depth;
        return {taps * pieces * groups * rows * columns * depth, pieces * groups * made,
                taps * groups * rows * columns * pieces / static_cast<double>(together_)};
    }

    /// Bytes for planes, beside sums that take so many.
    Index room(Index sums) const {
        // Threads take some KB besides: what they bring into order is on their stacks.
        return Memory::within(plan_.workspace.bytes / 4 * 3 - (sums > 0 ? Memory::rounded(sums) : 0));
    }
    Index chain_bytes() const { return together_ * size() * Index{sizeof(Bfloat)}; }

    bool run(Poll poll) {
        const bool direct = in_place<float>(filter_, plan_.element);
        const Index elements = cells_of(whole_box(filter_)), chain = chain_bytes(),
                    most = room(direct ? 0 : elements * Index{sizeof(float)});
        if (chain > most)
            return false;
        const Index chains = std::clamp<Index>(kRoundBytes / chain, 1, most / chain);
        const Index round = std::min(chains * together_, pieces_.count);
        std::optional<Buffer<float>> own;
        if (!direct)
            own.emplace(elements);
        sums_ = direct ? static_cast<float *>(filter_.data) : own->get();
        const View contiguous = backstride::contiguous(filter_, nullptr);
        std::copy_n(direct ? filter_.stride : contiguous.stride, 4, stride_);
        const Buffer<Bfloat> planes(round * size());
        for (Index first = 0; first < pieces_.count && finite_; first += round) {
            const Range pieces{first, std::min(first + round, pieces_.count)};
            make_planes(pieces, planes.get(), poll);
            multiply_planes(pieces, planes.get(), poll);
        }
        if (own && finite_)
            add_up(plan_, own->get(), 1, filter_, poll);
        return finite_;
    }

  private:
    void make_planes(Range pieces, Bfloat *planes, Poll poll) const {
        const Index groups = plan_.geometry.groups, row_parts = ceil_div(rows_.channels, kRowsMade),
                    of_rows = phases() * row_parts, parts = of_rows + columns_.blocks();
        parallel_for(
            pieces.count() * groups * parts,
            [&](Index task) {
                const Index part = task % parts, group = task / parts % groups, piece = task / parts / groups;
                Bfloat *const to = planes + piece * size();
                if (part < of_rows)
                    make_rows(pieces.first + piece, group, part / row_parts, part % row_parts, to);
                else
                    make_columns(pieces.first + piece, group, part - of_rows, to + output_size());
            },
            poll);
    }

    void multiply_planes(Range pieces, const Bfloat *planes, Poll poll) const {
        const Index column_bytes =
                        kMatrixColumns * planes_ * pieces_.chunks * kMatrixDepth * together_ * Index{sizeof(Bfloat)},
                    near = std::max<Index>(1, kCachedBytes / column_bytes), cuts = ceil_div(columns_.blocks(), near);
        const Index taps = taps_[0].count * taps_[1].count * taps_[2].count;
        parallel_for(
            plan_.geometry.groups * cuts * rows_.blocks() * taps,
            [&](Index task) {
                const Index tap = task % taps, row = task / taps % rows_.blocks(),
                            cut = task / taps / rows_.blocks() % cuts, group = task / taps / rows_.blocks() / cuts;
                if (!interrupted())
                    multiply(planes, pieces, group, tap, row,
                             {cut * columns_.blocks() / cuts, (cut + 1) * columns_.blocks() / cuts});
            },
            poll);
    }

    /// Planes of the output: of each tap along the depth, and each phase along the others.
    Index phases() const { return taps_[0].count * taps_[1].phases * taps_[2].phases; }

    /// Where a piece begins.
    struct Corner {
        Index image, depth, height, width;
    };
    Corner corner(Index piece) const {
        const Index w = piece % pieces_.across, h = piece / pieces_.across % pieces_.down,
                    d = piece / pieces_.across / pieces_.down, depths = plan_.geometry.axes[0].input;
        return {d / depths, d % depths, h * pieces_.rows, w * pieces_.width};
    }

    /// Where the planes of a channel of the output begin, among those of a piece.
    Index start_of_row(Index group, Index phase, Index channel) const {
        return ((group * phases() + phase) * rows_.halves * kMatrixHalf + channel) * planes_ * pieces_.row;
    }
    Index start_of_columns(Index group, Index block) const {
        return (group * columns_.halves * kMatrixHalf + block * kMatrixColumns) * planes_ * pieces_.chunks *
               kMatrixDepth;
    }

    /// Calls `each(row, cells, at)` with the cells of a part of the grid that are in a chunk, and where in it they
    /// begin.
    template <class Each> void each_row(Index chunk, Range heights, Range widths, Each each) const {
        const Index first = chunk * kMatrixDepth, last = first + kMatrixDepth;
        for (Index row = std::max(first / pieces_.pitch, heights.first);
             row < heights.last && row * pieces_.pitch < last; ++row) {
            const Index start = row * pieces_.pitch;
            const Range cells{std::max(first - start, widths.first), std::min(last - start, widths.last)};
            if (cells.count() > 0)
                each(row, cells, start + cells.first - first);
        }
    }

    /// Makes planes of some channels of a phase of the output.
    void make_rows(Index piece, Index group, Index phase, Index part, Bfloat *to) const {
        const auto [n, d, h, w] = corner(piece);
        const auto &[deep, high, wide] = taps_;
        const Index tap = phase / wide.phases / high.phases, from_h = high.phase(phase / wide.phases % high.phases),
                    from_w = wide.phase(phase % wide.phases);
        const Index depth = (d + deep.shift(tap)) * deep.stride + deep.phase(tap);
        // Of the grid those that exist, whose first cell is of the output's cell (h + first) * stride + from_h.
        const auto existing = [](Index begin, Index cells, Index stride, Index from, Index length) {
            return Range{std::max<Index>(0, -begin), std::min(cells, floor_div(length - 1 - from, stride) + 1 - begin)};
        };
        const Index first_h = h + high.first, first_w = w + wide.first;
        const bool exists = depth >= 0 && depth < output_.shape[1];
        const Index rows = exists ? pieces_.rows + high.halo() : 0;
        const Range heights = existing(first_h, rows, high.stride, from_h, output_.shape[2]),
                    widths = existing(first_w, pieces_.pitch, wide.stride, from_w, output_.shape[3]);
        const Range channels{part * kRowsMade, std::min((part + 1) * kRowsMade, rows_.channels)};
        const Index count = channels.count(), to_row = planes_ * pieces_.row;
        to += start_of_row(group, phase, channels.first);
        for (Index chunk = 0; chunk < pieces_.row / kMatrixDepth; ++chunk) {
            float room[kRowsMade * kMatrixDepth];
            std::fill_n(room, count * kMatrixDepth, 0.0f);
            each_row(chunk, heights, widths, [&](Index row, Range cells, Index begin) {
                const Index offset = n * output_.stride[0] + depth * output_.stride[1] +
                                     ((first_h + row) * high.stride + from_h) * output_.stride[2] +
                                     ((first_w + cells.first) * wide.stride + from_w) * output_.stride[3] +
                                     (group * rows_.channels + channels.first) * output_.stride[4];
                load(plan_.element, plan_.isa,
                     {at(output_, plan_.element, offset), distance(count, 1, output_.stride[4]),
                      distance(cells.count(), wide.stride, output_.stride[3])},
                     count, cells.count(), room + begin, kMatrixDepth);
            });
            Bfloat *const of_chunk = to + chunk * kMatrixDepth;
            if (planes_ == 1)
                moves<Bfloat>(plan_.isa).store(room, kMatrixDepth, count, kMatrixDepth, of_chunk, to_row, false);
            else
                unit_.split(room, kMatrixDepth, count, kMatrixDepth, kMatrixDepth, of_chunk, to_row, pieces_.row, 0);
        }
        std::fill_n(to + count * to_row, (ceil_div(count, kMatrixHalf) * kMatrixHalf - count) * to_row, Bfloat{});
    }

    /// Makes planes of some channels of the input.
    void make_columns(Index piece, Index group, Index block, Bfloat *to) const {
        const auto [n, d, h, w] = corner(piece);
        const Range channels = columns_.block(block);
        const Index count = channels.count(), size = columns_.halves_of(block) * kMatrixHalf * planes_ * kMatrixDepth;
        const Range heights{0, std::min(pieces_.rows, input_.shape[2] - h)};
        const Range widths{0, std::min(pieces_.width, input_.shape[3] - w)};
        to += start_of_columns(group, block);
        for (Index chunk = 0; chunk < pieces_.chunks; ++chunk, to += size) {
            float room[kMatrixDepth * kMatrixColumns] = {};
            each_row(chunk, heights, widths, [&](Index row, Range cells, Index begin) {
                const Index offset = n * input_.stride[0] + d * input_.stride[1] + (h + row) * input_.stride[2] +
                                     (w + cells.first) * input_.stride[3] +
                                     (group * columns_.channels + channels.first) * input_.stride[4];
                load(plan_.element, plan_.isa,
                     {at(input_, plan_.element, offset), distance(cells.count(), 1, input_.stride[3]),
                      distance(count, 1, input_.stride[4])},
                     cells.count(), count, room + begin * kMatrixColumns, kMatrixColumns);
            });
            make_pairs(unit_, room, kMatrixColumns, kMatrixDepth, count, kMatrixDepth, planes_, to);
        }
    }

    /// Adds products of some pieces to a tap's gradient: of a block of rows with some of columns.
    void multiply(const Bfloat *planes, Range pieces, Index group, Index tap, Index row, Range columns) const {
        const auto &[deep, high, wide] = taps_;
        const Index w = tap % wide.count, h = tap / wide.count % high.count, d = tap / wide.count / high.count;
        const Index phase = (d * high.phases + high.phase_index(h)) * wide.phases + wide.phase_index(w);
        const Index begin = (high.shift(h) - high.first) * pieces_.pitch + wide.shift(w) - wide.first;
        const Range channels = rows_.block(row);
        alignas(64) float sums[2 * kMatrixRows * kMatrixColumns];
        Pairs pairs{};
        pairs.a_row = planes_ * pieces_.row;
        pairs.a_plane = pieces_.row;
        pairs.a_chunk = kMatrixDepth;
        pairs.b_segment = 1;
        pairs.chunks = pieces_.chunks;
        pairs.chunk = kMatrixDepth;
        pairs.planes = planes_;
        pairs.rows = kMatrixRows;
        pairs.lines = rows_.halves_of(row);
        pairs.c_row = kMatrixColumns;
        for (int line = 0; line < 2; ++line) {
            pairs.a[line] =
                planes + start_of_row(group, phase, channels.first) + begin + line * kMatrixRows * pairs.a_row;
            pairs.c[line] = sums + line * kMatrixRows * kMatrixColumns;
        }
        std::vector<Segment> segments;
        for (Index piece = 0; piece < pieces.count(); ++piece)
            segments.push_back({piece * size(), piece * size()});
        pairs.apart = true;
        unit_.begin(pairs.rows, pairs.chunk);
        bool finite = true;
        for (Index first = 0; first < pieces.count(); first += together_) {
            pairs.segments = segments.data() + first;
            pairs.count = std::min(together_, pieces.count() - first);
            for (Index block = columns.first; block < columns.last; ++block) {
                const Range across = columns_.block(block);
                pairs.b = planes + output_size() + start_of_columns(group, block);
                pairs.halves = columns_.halves_of(block);
                unit_.multiply(pairs);
                float *const to = sums_ + d * stride_[0] + h * stride_[1] + w * stride_[2] +
                                  channels.first * stride_[3] + group * columns_.channels + across.first;
                finite = unit_.add(sums, channels.count(), across.count(), to, stride_[3], pieces.first + first == 0) &&
                         finite;
            }
        }
        unit_.end();
        if (!finite)
            finite_ = false;
    }

    const Plan plan_;
    const View input_, output_, filter_;
    const MatrixFunctions &unit_;
    const Taps taps_[3];
    const Pieces pieces_;
    const Part rows_, columns_; // of a group
    const int planes_;
    const Index together_;  // pieces of a chain
    float *sums_ = nullptr; // with the filter's axes
    Index stride_[4];
    mutable std::atomic<bool> finite_{true};
};

/// Images of one row are rows of one image, if their one tap along the height meets that row.
bool joins_images(const Plan &plan) {
    const Axis &height = plan.geometry.axes[1];
    return height.input == 1 && height.kernel == 1 && height.output == 1 && height.pad == 0;
}
Plan joined(Plan plan) {
    if (joins_images(plan)) {
        plan.geometry.axes[1] = {plan.geometry.batch, 1, plan.geometry.batch, 1, 1, 0};
        plan.geometry.batch = 1;
    }
    return plan;
}
View joined(View view, const Plan &plan) {
    if (joins_images(plan)) {
        std::swap(view.shape[0], view.shape[2]);
        std::swap(view.stride[0], view.stride[2]);
    }
    return view;
}

} // namespace

std::optional<OuterWork> outer_work(const Plan &plan) {
    const View none{};
    const Outer outer(joined(plan), none, none, none);
    if (outer.chain_bytes() > outer.room(0))
        return std::nullopt;
    return outer.work();
}

bool matrix_outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll) {
    return Outer(joined(plan), joined(input, plan), joined(output, plan), filter).run(poll);
}

} // namespace backstride
