// SPDX-License-Identifier: Apache-2.0
#include "matrix.h"

#include <atomic>
#include <mutex>

#include "folded.h"
#include "regions.h"

namespace backstride {
namespace {

// Weights of a region that the unit reads for all of its cells in one go.
constexpr Index kFilterBytes = 512 << 10;
// Products of an element of the source with which a copy of it pays that is made to begin with a cache line.
constexpr Index kEnoughProducts = 128;
// Cells that are listed at a time to be computed anew, and how many in one go; these read little of the source.
constexpr std::size_t kMostListed = 512;
constexpr Index kMostTogether = 64;
// With fewer channels of a tap, six additions for all of them would be more than plain sums have.
constexpr Index kFewestChannels = 4;
// Sums of two pieces.
constexpr Index kSums = 2 * kMatrixRows * kMatrixColumns;

/// Whether every kMatrixDepth channels of bfloat16 are a cache line: the unit takes a third longer to load rows that
/// are not.
bool whole_lines(const View &source) {
    bool whole = reinterpret_cast<std::uintptr_t>(source.data) % 64 == 0;
    for (int i = 0; i < 4; ++i)
        whole = whole && (source.shape[i] == 1 || source.stride[i] % kMatrixDepth == 0);
    return whole;
}

/// The axis whose lines fill rows of a matrix unit best; the last of those that do well, whose rows are nearest.
Along along_fullest(const Index (&count)[4]) {
    constexpr double kWell = 0.8;
    const auto filled = [&](int axis) {
        return static_cast<double>(count[axis]) / static_cast<double>(ceil_div(count[axis], kMatrixRows) * kMatrixRows);
    };
    int best = 3;
    for (int axis = 2; axis >= 0 && filled(best) < kWell; --axis)
        if (filled(axis) > filled(best))
            best = axis;
    return running_along(best);
}

/// The positions of a region in pieces of lines, of which the unit multiplies two at a time. All have as many rows: the
/// last piece of a line begins so early, and makes some cells again.
template <class To> class Pieces {
  public:
    /// `cells` are the result's cells from one of an axis to the next.
    Pieces(const Region &region, const Bfloat *source, To *target, const Index (&cells)[4]) {
        const auto [along, others] = along_fullest(region.count);
        const Index length = region.count[along], count = ceil_div(length, kMatrixRows);
        rows = ceil_div(length, count);
        a_row = region.source_step[along];
        c_row = region.target_step[along];
        Index first = 0, cell_step[4];
        for (int i = 0; i < 4; ++i) {
            first += region.target[i] * cells[i];
            cell_step[i] = region.cell_step[i] * cells[i];
        }
        cell_row = cell_step[along];
        for (Index i = 0; i < region.count[others[0]]; ++i)
            for (Index j = 0; j < region.count[others[1]]; ++j)
                for (Index k = 0; k < region.count[others[2]]; ++k) {
                    const auto offset = [&](const Index *step) {
                        return i * step[others[0]] + j * step[others[1]] + k * step[others[2]];
                    };
                    const Bfloat *const from = source + offset(region.source_step);
                    To *const to = target + offset(region.target_step);
                    const Index cell = first + offset(cell_step);
                    for (Index piece = 0; piece < count; ++piece) {
                        const Index begin = std::min(piece * rows, length - rows);
                        pieces_.push_back({from + begin * a_row, to + begin * c_row, cell + begin * cell_row});
                    }
                }
    }

    /// Where the first row of a piece is read and written, and which cell of the result it is.
    struct Piece {
        const Bfloat *from;
        To *to;
        Index cell;
    };
    Index pairs() const { return ceil_div(static_cast<Index>(pieces_.size()), 2); }
    int lines(Index pair) const { return 2 * pair + 1 < static_cast<Index>(pieces_.size()) ? 2 : 1; }
    const Piece &at(Index pair, int line) const { return pieces_[static_cast<std::size_t>(2 * pair + line)]; }

    Index rows, a_row, c_row, cell_row;

  private:
    std::vector<Piece> pieces_;
};

/// All taps of a region, in order.
std::vector<Segment> taps_of(const Region &region) {
    std::vector<Segment> taps;
    for (const Segment &row : region.rows)
        for (Index tap = 0; tap < region.taps; ++tap)
            taps.push_back({row.a + tap * region.source_tap, row.b + tap * region.filter_tap});
    return taps;
}

/// Products by the unit, of arrays of floats of 16 or 32 bits.
template <class Element> struct ByMatrix {
    using Sum = float;
    using Factor = Bfloat;
    using Result = Element;
    using Filter = PackedPairs;
    static constexpr bool kMatrix = true;
};

/// What a folded layer is made of.
struct Folded {
    const Plan &plan;
    const Fold &fold;
    const View &source, &target;
};

template <class Element> class Matrix : public Regions<Matrix<Element>, ByMatrix<Element>> {
    using Base = Regions<Matrix<Element>, ByMatrix<Element>>;
    using Base::plan_, Base::source_, Base::target_, Base::filter_, Base::epilogue_, Base::streaming_, Base::columns_of;

  public:
    Matrix(const Plan &plan, const View &source, const PackedPairs &filter, const Epilogue<float> &epilogue,
           const View &target, const Folded *folded, Poll poll)
        : Base(plan, source, filter, epilogue, target, kMatrixColumns, filter.pixel_size(),
               !folded && readable(plan, source, filter), true, poll),
          folded_(folded) {
        Index step = 1;
        for (int i = 3; i >= 0; --i) {
            cells_[i] = step;
            step *= target.shape[i];
        }
        count_ = step;
    }

    /// Computes the result, and calls `again` with the cells in which something is not finite, some at a time.
    void compute(const std::function<void(const std::vector<Cells> &)> &again, Poll poll) const {
        Base::run(poll);
        std::vector<Cells> cells;
        for (Index cell = 0; !suspect_.empty() && cell < count_;) {
            const Index row_end = (cell / target_.shape[3] + 1) * target_.shape[3];
            if (!suspect_[static_cast<std::size_t>(cell / 64)])
                cell = (cell / 64 + 1) * 64;
            else if (!suspected(cell))
                ++cell;
            else {
                Index end = cell + 1;
                while (end < std::min(row_end, cell + kMostTogether) && suspected(end))
                    ++end;
                cells.push_back(stretch(cell, end - cell));
                cell = end;
            }
            if (!cells.empty() && (cells.size() == kMostListed || cell >= count_)) {
                again(cells);
                cells.clear();
            }
        }
    }

    /// One panel of columns for all positions of a region; false if the work was stopped. If the weights do not stay in
    /// a second-level cache, all positions meet some taps, then the next ones.
    template <class To>
    bool multiply(const Region &region, const Window<const Bfloat> &source, const Window<To> &target, Index group,
                  Index panel, const Bfloat *weights) const {
        const Range channels = columns_of(group, panel);
        const Pieces<To> pieces(
            region, source.at(region.source),
            target.at({region.target[0], region.target[1], region.target[2], region.target[3], channels.first}),
            cells_);
        const std::vector<Segment> taps = taps_of(region);
        const Index count = static_cast<Index>(taps.size()), bytes = filter_.tap_size(panel) * Index{sizeof(Bfloat)};
        const Index most = count * bytes <= kFilterBytes ? count : std::max<Index>(1, kFilterBytes / 2 / bytes);
        // Sums that wait for the next taps, or to be stored while the unit makes the next: it takes some time for the
        // last of them to arrive.
        const Index kept = most < count ? pieces.pairs() : 2;
        const Buffer<float> sums(kept * kSums);
        const MatrixFunctions &unit = *matrix_functions(plan_.isa);
        Pairs pairs{};
        pairs.a_row = pieces.a_row;
        pairs.b = weights;
        pairs.b_segment = filter_.tap_size(panel);
        pairs.chunks = filter_.chunks();
        pairs.chunk = filter_.chunk();
        pairs.planes = filter_.planes();
        pairs.rows = static_cast<int>(pieces.rows);
        pairs.halves = filter_.halves(panel);
        const auto finish = [&](Index pair) {
            for (int line = 0; line < pieces.lines(pair); ++line) {
                float *const c = sums.get() + pair % kept * kSums + line * kSums / 2;
                if (!unit.finite(c, pairs.rows, pairs.halves))
                    for (int row = 0; row < pairs.rows; ++row)
                        if (!unit.finite(c + row * kMatrixColumns, 1, pairs.halves))
                            suspect(pieces.at(pair, line).cell + row * pieces.cell_row);
                epilogue_.on_columns(c, kMatrixColumns, pieces.rows, channels.count(), channels.first);
                moves<To>(plan_.isa).store(c, kMatrixColumns, pieces.rows, channels.count(), pieces.at(pair, line).to,
                                           pieces.c_row, streaming_);
            }
        };
        Index done = 0;
        bool stopped = false;
        unit.begin(pairs.rows, pairs.chunk);
        for (Index first = 0; first < count; first += most) {
            pairs.segments = taps.data() + first;
            pairs.count = std::min(most, count - first);
            pairs.continued = first > 0;
            for (Index pair = 0; pair < pieces.pairs() && !stopped; ++pair) {
                pairs.lines = pieces.lines(pair);
                for (int line = 0; line < pairs.lines; ++line)
                    pairs.a[line] = pieces.at(pair, line).from;
                pairs.c = sums.get() + pair % kept * kSums;
                unit.multiply(pairs);
                if (first + most >= count && pair > 0)
                    finish(pair - 1);
                done += pieces.rows * pairs.lines * pairs.count * filter_.pixel_size() * channels.count();
                if (done > kInterruptEvery) {
                    done = 0;
                    unit.end(); // what handles a signal may use it
                    stopped = interrupted();
                    unit.begin(pairs.rows, pairs.chunk);
                }
            }
        }
        if (!stopped)
            finish(pieces.pairs() - 1);
        unit.end();
        return !stopped;
    }

    void load_part(const Box &box, const Window<Bfloat> &to) const {
        if (folded_)
            load_folded(folded_->plan, folded_->fold, folded_->source, box, filter_.chunk(), to);
        else
            load_pairs(plan_.element, plan_.isa, source_, box, filter_.chunk(), to);
    }
    void store_part(const Window<float> &from, const Box &box, const std::array<Index, 3> &step) const {
        if (folded_)
            store_folded(folded_->plan, folded_->fold, from, box, folded_->target);
        else
            store(from, box, step, plan_.element, plan_.isa, target_);
    }

  private:
    /// Whether the unit reads the source where it is.
    static bool readable(const Plan &plan, const View &source, const PackedPairs &filter) {
        const Index depth = source.shape[4] / plan.geometry.groups;
        Index products = plan.geometry.out_channels;
        for (const Axis &axis : plan.geometry.axes)
            products *= axis.kernel;
        return in_place<Bfloat>(source, plan.element) && depth == filter.pixel_size() &&
               (depth % kMatrixDepth != 0 || products < kEnoughProducts || whole_lines(source));
    }

    /// Notes that something in a cell is not finite.
    void suspect(Index cell) const {
        std::call_once(any_, [&] {
            suspect_ = std::vector<std::atomic<std::uint64_t>>(static_cast<std::size_t>(ceil_div(count_, 64)));
        });
        suspect_[static_cast<std::size_t>(cell / 64)] |= std::uint64_t{1} << cell % 64;
    }
    bool suspected(Index cell) const { return suspect_[static_cast<std::size_t>(cell / 64)] >> cell % 64 & 1; }

    /// Some cells of a row.
    Cells stretch(Index cell, Index count) const {
        Cells cells{{}, {}, {1, 1, 1, 1}};
        for (int i = 0; i < 4; ++i) {
            cells.first[i] = cell / cells_[i] % target_.shape[i];
            cells.last[i] = cells.first[i] + (i == 3 ? count : 1);
        }
        return cells;
    }

    const Folded *folded_;   // or null
    Index cells_[4], count_; // of the result: from one of an axis to the next, and all
    mutable std::once_flag any_;
    mutable std::vector<std::atomic<std::uint64_t>> suspect_; // a bit for each cell, if there is any
};

} // namespace

bool matrix_fits(const Plan &plan) {
    const auto &axes = plan.geometry.axes;
    return sum_of(plan.element) == Element::float32 && matrix_functions(plan.isa) &&
           plan.precision != Precision::strict && plan.wrt != Operand::filter && !plan.channelwise &&
           Channels(plan).depth >= kFewestChannels &&
           std::all_of(axes, axes + 3, [](const Axis &axis) { return axis.dilation == 1; }) && matrix_unit_granted();
}

PackedPairs pairs(const Plan &plan, const View &filter, Poll poll) {
    const int depth_axis = plan.wrt == Operand::output ? 4 : 3;
    const auto fold = fold_of(plan);
    if (!fold)
        return {filter, plan.element, plan.geometry.groups, depth_axis, plan.isa};
    const Buffer<char> room(folded_filter_size(plan, *fold) * size_of(plan.element));
    PackedPairs folded(folded_filter(plan, *fold, filter, room.get()), plan.element, 1, 3, plan.isa);
    folded.pack(poll);
    return folded;
}

void matrix(const Plan &plan, const View &source, const PackedPairs &filter, const Epilogue<float> &epilogue,
            const View &target, const std::function<void(const std::vector<Cells> &)> &again, Poll poll) {
    visit(plan.element, [&](auto value) {
        using S = decltype(value);
        if constexpr (std::is_same_v<typename Sum<S>::type, float>) {
            const auto fold = fold_of(plan);
            if (!fold)
                return Matrix<S>(plan, source, filter, epilogue, target, nullptr, poll).compute(again, poll);
            const Folded folded = {plan, *fold, source, target};
            const auto again_unfolded = [&](std::vector<Cells> cells) {
                for (Cells &each : cells)
                    each = unfolded(*fold, each, target);
                again(cells);
            };
            Matrix<S>(folded_layer(plan, *fold), folded_source(*fold, source), filter, epilogue.repeated(fold->cells()),
                      folded_target(*fold, target), &folded, poll)
                .compute(again_unfolded, poll);
        }
    });
}

} // namespace backstride
