// SPDX-License-Identifier: Apache-2.0
#include "matrix.h"

#include <atomic>
#include <mutex>
#include <span>

#include "folded.h"
#include "gather.h"
#include "regions.h"

namespace backstride {
namespace {

// Products of an element of the source with which a copy of it pays that is made to begin with a cache line.
constexpr Index kEnoughProducts = 128;
// Cells that are listed at a time to be computed anew, and how many of the layer in one go; these read little of the
// source.
constexpr std::size_t kMostListed = 512;
constexpr Index kMostTogether = 64;
// With fewer channels of a tap, or pixels of the filter gradient, which chunks hold some of, six additions for all of
// them would be more than plain sums have.
constexpr Index kFewestChannels = 4, kFewestPixels = 64;
// So many times the products are made at most for a filter that is read once.
constexpr double kMostBeyond = 1.35;
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

/// The lines of a region whose rows a matrix unit multiplies, as many as it can at a time. They run along an axis and,
/// where one of them ends, may go on with the next along other axes, if the source does: what is between the two is
/// multiplied, too, and left alone.
struct Line {
    int axis = 3;
    bool joined[4] = {}; // axes along which it goes on
    Index length = 1;

    bool has(int i) const { return i == axis || joined[i]; }
    /// How far apart neighbours along a joined axis are.
    Index step(const Region &region, int i) const {
        return region.count[i] > 1 ? region.source_step[i] / region.source_step[axis] : 0;
    }
};

/// Those that make the fewest pieces of at most kMatrixRows rows.
Line fullest_line(const Region &region) {
    // Rows that are not neighbours take so much longer to read and write.
    constexpr double kElsewhere = 1.1;
    Line best;
    double least = 0;
    const auto consider = [&](const Line &line, double times) {
        Index pieces = ceil_div(line.length, kMatrixRows);
        for (int i = 0; i < 4; ++i)
            pieces *= line.has(i) ? 1 : region.count[i];
        if (const double time = static_cast<double>(pieces) * times; least == 0 || time < least) {
            least = time;
            best = line;
        }
    };
    for (int axis = 3; axis >= 0; --axis)
        consider({axis, {}, region.count[axis]}, axis == 3 ? 1 : kElsewhere);
    Line line{3, {}, 1};
    while (line.axis > 0 && region.count[line.axis] == 1)
        --line.axis;
    line.length = region.count[line.axis];
    for (int i = line.axis - 1; i >= 0; --i) {
        const Index unit = region.source_step[line.axis];
        if (region.count[i] > 1 &&
            (unit <= 0 || region.source_step[i] % unit != 0 || region.source_step[i] / unit < line.length))
            break;
        line.joined[i] = true;
        line.length += (region.count[i] - 1) * line.step(region, i);
        consider(line, 1);
    }
    return best;
}

/// The positions of a region in pieces of lines, of which the unit multiplies two at a time. All have as many rows: the
/// last piece of a line begins so early, and makes some cells again.
template <class To> class Pieces {
  public:
    /// `cells` are the result's cells from one of an axis to the next.
    Pieces(const Region &region, const Bfloat *source, To *target, const Index (&cells)[4]) {
        const Line line = fullest_line(region);
        const Index count = ceil_div(line.length, kMatrixRows);
        rows = ceil_div(line.length, count);
        a_row = region.source_step[line.axis];
        c_row = region.target_step[line.axis];
        cell_row = region.cell_step[line.axis] * cells[line.axis];
        Run start{0, region.count[line.axis], target, 0};
        for (int i = 0; i < 4; ++i)
            start.cell += region.target[i] * cells[i];
        // Calls body(place) for each place along some axes.
        const auto each = [&](auto among, auto body) {
            Index most[4];
            for (int i = 0; i < 4; ++i)
                most[i] = among(i) ? region.count[i] : 1;
            for (Index n = 0; n < most[0]; ++n)
                for (Index d = 0; d < most[1]; ++d)
                    for (Index h = 0; h < most[2]; ++h)
                        for (Index w = 0; w < most[3]; ++w)
                            body({n, d, h, w});
        };
        const auto moved = [&](Run run, const Index(&place)[4]) {
            for (int i = 0; i < 4; ++i) {
                run.to += place[i] * region.target_step[i];
                run.cell += place[i] * region.cell_step[i] * cells[i];
                run.row += line.joined[i] ? place[i] * line.step(region, i) : 0;
            }
            return run;
        };
        each([&](int i) { return !line.has(i); },
             [&](const Index(&of_line)[4]) {
                 const Run first = moved(start, of_line);
                 const Bfloat *from = source;
                 for (int i = 0; i < 4; ++i)
                     from += of_line[i] * region.source_step[i];
                 std::vector<Run> of_all; // in order
                 each([&](int i) { return line.joined[i]; },
                      [&](const Index(&place)[4]) { of_all.push_back(moved(first, place)); });
                 auto run = of_all.begin();
                 for (Index piece = 0; piece < count; ++piece) {
                     const Index begin = std::min(piece * rows, line.length - rows);
                     while (run->row + run->count <= begin)
                         ++run;
                     pieces_.push_back({from + begin * a_row, runs_.size(), 0});
                     for (auto other = run; other != of_all.end() && other->row < begin + rows; ++other)
                         add(*other, {begin, begin + rows});
                     pieces_.back().last_run = runs_.size();
                 }
             });
    }

    /// Rows of a piece that are cells, neighbours along the line's axis: where they are written, and which cell of the
    /// result the first is.
    struct Run {
        Index row, count;
        To *to;
        Index cell;
    };
    /// Where the first row of a piece is read, and its runs.
    struct Piece {
        const Bfloat *from;
        std::size_t first_run, last_run;
    };
    Index pairs() const { return ceil_div(static_cast<Index>(pieces_.size()), 2); }
    int lines(Index pair) const { return 2 * pair + 1 < static_cast<Index>(pieces_.size()) ? 2 : 1; }
    const Piece &at(Index pair, int line) const { return pieces_[static_cast<std::size_t>(2 * pair + line)]; }
    std::span<const Run> runs(const Piece &piece) const {
        return std::span(runs_).subspan(piece.first_run, piece.last_run - piece.first_run);
    }

    Index rows, a_row, c_row, cell_row;

  private:
    /// Notes which of a run's rows are in a piece.
    void add(Run run, Range rows_of_piece) {
        const Index first = std::max(run.row, rows_of_piece.first),
                    last = std::min(run.row + run.count, rows_of_piece.last);
        if (first < last)
            runs_.push_back({first - rows_of_piece.first, last - first, run.to + (first - run.row) * c_row,
                             run.cell + (first - run.row) * cell_row});
    }

    std::vector<Piece> pieces_;
    std::vector<Run> runs_;
};

/// All taps of a region, in order.
std::vector<Segment> taps_of(const Region &region) {
    std::vector<Segment> taps;
    for (const Segment &row : region.rows)
        for (Index tap = 0; tap < region.taps; ++tap)
            taps.push_back({row.a + tap * region.source_tap, row.b + tap * region.filter_tap});
    return taps;
}

/// The unit of this thread, for as long as it lives.
class Unit {
  public:
    Unit(const MatrixFunctions &functions, int rows, Index chunk) : functions_(functions), rows_(rows), chunk_(chunk) {
        functions_.begin(rows_, chunk_);
    }
    ~Unit() { functions_.end(); }
    Unit(const Unit &) = delete;
    Unit &operator=(const Unit &) = delete;

    /// What handles a signal may use it.
    bool interrupted() const {
        functions_.end();
        const bool stopped = backstride::interrupted();
        functions_.begin(rows_, chunk_);
        return stopped;
    }
    const MatrixFunctions *operator->() const { return &functions_; }

  private:
    const MatrixFunctions &functions_;
    const int rows_;
    const Index chunk_;
};

/// Products by the unit, of arrays of floats of 16 or 32 bits.
template <class Element> struct ByMatrix {
    using Sum = float;
    using Factor = Bfloat;
    using Result = Element;
    using Filter = PackedPairs;
    static constexpr bool kMatrix = true;
};

/// What a layer is made of whose source goes on beyond its edges, where there are zeros.
struct Extended {
    const Plan &plan;
    const View &source, &target;
    Index first[3];   // of its cells, in those of the source
    const Fold *fold; // or null
};

template <class Element> class Matrix : public Regions<Matrix<Element>, ByMatrix<Element>> {
    using Base = Regions<Matrix<Element>, ByMatrix<Element>>;
    using Base::plan_, Base::source_, Base::target_, Base::filter_, Base::epilogue_, Base::streaming_, Base::columns_of;

  public:
    Matrix(const Plan &plan, const View &source, const PackedPairs &filter, const Epilogue<float> &epilogue,
           const View &target, const Extended *extended, Poll poll)
        : Base(plan, source, filter, epilogue, target, kMatrixColumns, filter.pixel_size(),
               !extended && readable(plan, source, filter), true, poll),
          extended_(extended) {
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
        const Index together = std::max<Index>(1, folded() ? kMostTogether / folded()->cells() : kMostTogether);
        for (Index cell = 0; !suspect_.empty() && cell < count_;) {
            const Index row_end = (cell / target_.shape[3] + 1) * target_.shape[3];
            if (!suspect_[static_cast<std::size_t>(cell / 64)])
                cell = (cell / 64 + 1) * 64;
            else if (!suspected(cell))
                ++cell;
            else {
                Index end = cell + 1;
                while (end < std::min(row_end, cell + together) && suspected(end))
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

    /// Panels of columns for all positions of a region; false if the work was stopped. If a panel's weights do not stay
    /// in a second-level cache, all positions meet some taps of all panels, then the next ones.
    template <class To>
    bool multiply(const Region &region, const Window<const Bfloat> &source, const Window<To> &target, Index group,
                  Range panels, const Bfloat *weights) const {
        const Pieces<To> pieces(region, source.at(region.source),
                                target.at({region.target[0], region.target[1], region.target[2], region.target[3],
                                           columns_of(group, panels.first).first}),
                                cells_);
        const std::vector<Segment> taps = taps_of(region);
        const Index count = static_cast<Index>(taps.size()),
                    bytes = filter_.tap_size(panels.first) * Index{sizeof(Bfloat)};
        const Index most = count * bytes <= kCachedPanel ? count : std::max<Index>(1, kCachedPanel / 2 / bytes);
        // Sums that wait for the next taps, or to be stored while the unit makes the next: it takes some time for the
        // last of them to arrive.
        const Index steps = pieces.pairs() * panels.count(), kept = most < count ? steps : 2;
        const Buffer<float> sums(kept * kSums);
        Pairs pairs{};
        pairs.a_row = pieces.a_row;
        pairs.a_plane = filter_.chunks().each;
        pairs.a_chunk = filter_.planes() * filter_.chunks().each;
        pairs.c_row = kMatrixColumns;
        pairs.chunks = filter_.chunks().count;
        pairs.chunk = filter_.chunks().each;
        pairs.planes = filter_.planes();
        pairs.rows = static_cast<int>(pieces.rows);
        const Unit unit(*matrix_functions(plan_.isa), pairs.rows, pairs.chunk);
        const auto panel_of = [&](Index step) { return panels.first + step % panels.count(); };
        const auto finish = [&](Index step) {
            const Index pair = step / panels.count(), panel = panel_of(step);
            const Range channels = columns_of(group, panel);
            const int halves = filter_.halves(panel);
            for (int line = 0; line < pieces.lines(pair); ++line)
                for (const auto &run : pieces.runs(pieces.at(pair, line))) {
                    float *const c = sums.get() + step % kept * kSums + line * kSums / 2 + run.row * kMatrixColumns;
                    if (!unit->finite(c, static_cast<int>(run.count), halves))
                        for (Index row = 0; row < run.count; ++row)
                            if (!unit->finite(c + row * kMatrixColumns, 1, halves))
                                suspect(run.cell + row * pieces.cell_row);
                    epilogue_.on_columns(c, kMatrixColumns, run.count, channels.count(), channels.first);
                    moves<To>(plan_.isa).store(c, kMatrixColumns, run.count, channels.count(),
                                               run.to + (panel - panels.first) * kMatrixColumns, pieces.c_row,
                                               streaming_);
                }
        };
        Index done = 0;
        bool stopped = false;
        for (Index first = 0; first < count; first += most) {
            pairs.segments = taps.data() + first;
            pairs.count = std::min(most, count - first);
            pairs.continued = first > 0;
            for (Index step = 0; step < steps && !stopped; ++step) {
                const Index pair = step / panels.count(), panel = panel_of(step);
                pairs.b = weights ? weights : filter_.panel(group, panel, nullptr);
                pairs.b_segment = filter_.tap_size(panel);
                pairs.halves = filter_.halves(panel);
                pairs.lines = pieces.lines(pair);
                for (int line = 0; line < pairs.lines; ++line) {
                    pairs.a[line] = pieces.at(pair, line).from;
                    pairs.c[line] = sums.get() + step % kept * kSums + line * kSums / 2;
                }
                unit->multiply(pairs);
                if (first + most >= count && step > 0)
                    finish(step - 1);
                done +=
                    pieces.rows * pairs.lines * pairs.count * filter_.pixel_size() * pairs.halves * kMatrixColumns / 2;
                if (done > kInterruptEvery) {
                    done = 0;
                    stopped = unit.interrupted();
                }
            }
        }
        if (!stopped)
            finish(steps - 1);
        return !stopped;
    }

    void load_part(Box box, Window<Bfloat> to) const {
        for (std::size_t i : {1, 2, 3}) {
            const Index first = extended_ ? extended_->first[i - 1] : 0;
            box[i] = {box[i].first + first, box[i].last + first};
            to.first[i] += first;
        }
        load_pairs(plan_.element, plan_.isa, extended_ ? extended_->source : source_, box, filter_.chunks().each, to);
    }
    void store_part(const Window<float> &from, const Box &box, const std::array<Index, 3> &step) const {
        if (folded())
            store_folded(extended_->plan, *folded(), from, box, extended_->target);
        else
            store(from, box, step, plan_.element, plan_.isa, target_);
    }

  private:
    const Fold *folded() const { return extended_ ? extended_->fold : nullptr; }

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

    const Extended *extended_; // or null
    Index cells_[4], count_;   // of the result: from one of an axis to the next, and all
    mutable std::once_flag any_;
    mutable std::vector<std::atomic<std::uint64_t>> suspect_; // a bit for each cell, if there is any
};

bool enough_additions(const Plan &plan) {
    if (plan.wrt != Operand::filter)
        return Channels(plan).depth >= kFewestChannels;
    double pixels = static_cast<double>(plan.geometry.batch);
    for (const Axis &axis : plan.geometry.axes)
        pixels *= static_cast<double>(axis.input);
    return pixels >= kFewestPixels;
}

} // namespace

bool matrix_fits(const Plan &plan) {
    const auto &axes = plan.geometry.axes;
    return sum_of(plan.element) == Element::float32 && matrix_functions(plan.isa) &&
           plan.precision != Precision::strict && !plan.channelwise && enough_additions(plan) &&
           std::all_of(axes, axes + 3, [](const Axis &axis) { return axis.dilation == 1; }) && matrix_unit_granted();
}

bool extends(const Plan &plan) {
    if (plan.wrt != Operand::output)
        return false;
    const Channels channels(plan);
    double made = 1, needed = 1; // products
    double panel = static_cast<double>(channels.depth) *
                   static_cast<double>(std::min<Index>(channels.columns, kMatrixColumns)) * sizeof(Bfloat) *
                   (plan.element == Element::bfloat16 ? 1 : kPlanes);
    for (const Axis &axis : plan.geometry.axes) {
        panel *= static_cast<double>(axis.kernel);
        made *= static_cast<double>(ceil_div(axis.output, axis.stride)) * static_cast<double>(axis.kernel);
        needed *= meetings(axis);
    }
    return panel > kCachedPanel && made <= kMostBeyond * needed && made > needed;
}

bool packs_as_used(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    const bool gradient = plan.wrt == Operand::input;
    double bytes = static_cast<double>(geometry.batch) *
                   static_cast<double>(gradient ? geometry.out_channels : geometry.in_channels) *
                   (plan.element == Element::bfloat16 ? 1 : kPlanes) * sizeof(Bfloat);
    for (const Axis &axis : geometry.axes)
        bytes *= static_cast<double>(gradient ? axis.output : axis.input);
    return panels_are_used_once(plan) && bytes <= kMostBlockBytes;
}

PackedPairs pairs(const Plan &plan, const View &filter, Poll poll) {
    const int depth_axis = plan.wrt == Operand::output ? 4 : 3;
    const auto fold = fold_of(plan);
    if (!fold)
        return {filter, plan.element, plan.geometry.groups, depth_axis, plan.isa};
    const Buffer<char> room(folded_filter_size(plan, *fold) * size_of(plan.element));
    PackedPairs folded(folded_filter(plan, *fold, filter, room.get(), poll), plan.element, 1, 3, plan.isa);
    folded.pack(poll);
    return folded;
}

void matrix(const Plan &plan, const View &source, const PackedPairs &filter, const Epilogue<float> &epilogue,
            const View &target, const std::function<void(const std::vector<Cells> &)> &again, Poll poll) {
    visit(plan.element, [&](auto value) {
        using S = decltype(value);
        if constexpr (std::is_same_v<typename Sum<S>::type, float>) {
            const auto fold = fold_of(plan);
            Extended extended = {plan, source, target, {}, fold ? &*fold : nullptr};
            if (fold) {
                for (int i = 0; i < 3; ++i)
                    extended.first[i] = fold->axes[i].source;
                const auto again_unfolded = [&](std::vector<Cells> cells) {
                    for (Cells &each : cells)
                        each = unfolded(*fold, each, target);
                    again(cells);
                };
                Matrix<S>(folded_layer(plan, *fold), folded_source(*fold, source), filter,
                          epilogue.repeated(fold->cells()), folded_target(*fold, target), &extended, poll)
                    .compute(again_unfolded, poll);
            } else if (extends(plan)) {
                Plan layer = plan;
                View longer = source;
                for (int i = 0; i < 3; ++i) {
                    Axis &axis = layer.geometry.axes[i];
                    const Index beyond = ceil_div(axis.kernel, axis.stride) - 1;
                    extended.first[i] = -beyond;
                    longer.shape[i + 1] = axis.input += 2 * beyond;
                    axis.pad += beyond * axis.stride;
                }
                Matrix<S>(layer, longer, filter, epilogue, target, &extended, poll).compute(again, poll);
            } else
                Matrix<S>(plan, source, filter, epilogue, target, nullptr, poll).compute(again, poll);
        }
    });
}

} // namespace backstride
