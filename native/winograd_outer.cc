// SPDX-License-Identifier: Apache-2.0
// The filter gradient by Winograd's algorithm. A tile of the result is y = A[(G g) . (B d)] with a tile d of the
// source and taps g, so the gradient of g is G'[(A' y) . (B d)], summed over tiles: products of points, summed, and
// only then made taps.
#include <algorithm>
#include <atomic>
#include <optional>

#include "lines.h"
#include "outer.h"
#include "pack.h"
#include "winograd.h"

namespace backstride {
namespace {

// The points of so many tiles are made at a time. More take more memory, fewer make taps of sums more often.
constexpr Index kRoundBytes = 24 << 20, kMostRoundBytes = 48 << 20, kEnoughTiles = 256;
// If all sums at all points are so few, each thread makes points for itself, so many tiles at a time.
constexpr Index kOwnSums = 1 << 20, kSumsPerTile = 2 << 10, kOwnBytes = 512 << 10, kFewestOwnTiles = 32,
                kMostOwnTiles = 128;
// A task's part of the products, whose sums at all points stay in a second-level cache with the factors of one step.
constexpr Index kRows = 64, kColumns = 64;
// With fewer tasks than this, the tiles of a round are shared out, too, each share with sums of its own.
constexpr Index kEnoughTasks = 32, kFewestTilesPerShare = 64;
constexpr Index kTransformed = 4; // tiles in a task

template <class T> class Outer {
  public:
    Outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll)
        : plan_(plan), filter_(filter), input_(input, plan.element, plan.isa, poll),
          output_(output, plan.element, plan.isa, poll), lines_(plan, *plan.scheme), points_(lines_.points()),
          streams_(lines_.streams()), chunks_(lines_.chunks()), tiles_(lines_.all_tiles()),
          groups_(plan.geometry.groups), rows_(filter.shape[3]), columns_(filter.shape[4] / groups_),
          row_blocks_(ceil_div(rows_, kRows)), column_blocks_(ceil_div(columns_, kColumns)),
          elements_(filter.shape[1] * filter.shape[2] * rows_ * filter.shape[4]),
          direct_(in_place<T>(filter, plan.element)), functions_(combine_functions<T>(plan.isa)),
          height_(plan.scheme->axes[0].index), width_(plan.scheme->axes[1].index) {
        const Index tile = points_ * groups_ * (chunks_ * columns_ + streams_ * rows_) * Index{sizeof(T)};
        const Index sums = point_sums() * points_ * Index{sizeof(T)};
        alone_ = sums <= kOwnSums;
        // Rounds and shares decide how sums are grouped, so they follow from sizes and the workspace, not from threads:
        // three quarters are for points, a part of the rest for the sums of shares.
        const Index room = Memory::within(plan.workspace.bytes / 4 * 3);
        const Index room_of_shares = plan.workspace.bytes / 16 * 3 / (elements_ * Index{sizeof(T)});
        const Index round = alone_ ? std::clamp(kOwnBytes / tile, kFewestOwnTiles, kMostOwnTiles)
                                   : std::max(kRoundBytes / tile, std::min(kMostRoundBytes / tile, kEnoughTiles) + 1);
        rounds_ = ceil_div(tiles_, std::clamp<Index>((room - (alone_ ? sums : 0)) / tile, 1, round));
        // The more sums a share has, the more tiles are to be worth them.
        const Index fewest =
            alone_ ? std::clamp(sums / kSumsPerTile, kFewestOwnTiles, kMostOwnTiles) : kFewestTilesPerShare;
        shares_ =
            std::clamp<Index>((alone_ ? tiles_ : ceil_div(tiles_, rounds_)) / fewest, 1,
                              std::clamp<Index>(room_of_shares, 1, ceil_div(kEnoughTasks, alone_ ? 1 : blocks())));
        const Index points = ceil_div(tiles_, rounds_) * tile;
        const Index added = shares_ > 1 ? shares_ * elements_ * Index{sizeof(T)} : 0;
        most_threads_ = alone_ ? plan.workspace.threads(points + sums, added)
                               : plan.workspace.threads(points_ * kRows * kColumns * Index{sizeof(T)}, points + added);
        for (Index stream = 0; stream < streams_; ++stream)
            for (Index chunk = 0; chunk < chunks_; ++chunk)
                for (Index point = 0; point < points_; ++point)
                    live_.push_back(lines_.live({stream, chunk}, point));
        const bool four = std::max(lines_.height.form().points, lines_.width.form().points) == 4;
        step_ = chain(rows_, columns_, sizeof(T)) / (four ? 4 : 8);
        sums_ = static_cast<T *>(filter.data);
        std::copy_n(filter.stride + 1, 3, stride_);
        if (shares_ > 1 || !direct_) {
            sums_ = own_sums_.emplace(shares_ * elements_).get();
            stride_[2] = filter.shape[4];
            stride_[1] = rows_ * stride_[2];
            stride_[0] = filter.shape[2] * stride_[1];
        }
    }

    bool run(Poll poll) {
        if (alone_)
            parallel_for(shares_, [&](Index share) { compute(share); }, poll, most_threads_);
        else {
            const Index most = ceil_div(tiles_, rounds_);
            const Buffer<T> points(most * (source_points() + target_points()));
            for (Index n = 0; n < rounds_ && finite_; ++n) {
                const Index first = n * tiles_ / rounds_;
                const Round round{first, (n + 1) * tiles_ / rounds_ - first, points.get(),
                                  points.get() + most * source_points()};
                parallel_for(
                    ceil_div(round.count, kTransformed),
                    [&](Index task) {
                        const Index tile = task * kTransformed;
                        transform(round, {tile, std::min(round.count, tile + kTransformed)});
                    },
                    poll);
                parallel_for(
                    blocks() * shares_,
                    [&](Index task) {
                        if (interrupted())
                            return;
                        const Index share = task % shares_;
                        const Block block = block_of(task / shares_);
                        const Buffer<T> sums(points_ * block.size());
                        std::fill_n(sums.get(), points_ * block.size(), T{});
                        multiply(round, {share * round.count / shares_, (share + 1) * round.count / shares_}, block,
                                 sums.get());
                        write(block, sums.get(), n == 0, share);
                    },
                    poll, most_threads_);
            }
        }
        if (own_sums_)
            add_up(plan_, sums_, shares_, filter_, poll);
        return finite_;
    }

  private:
    /// Tiles whose points exist at a time: of a block of channels all points, tile by tile, its channels together.
    struct Round {
        Index first, count;
        T *source, *target;
    };

    /// A part of the products: some of the channels of one group, which are counted through all groups.
    struct Block {
        Lines::Piece piece;
        Range rows, columns;
        Index size() const { return rows.count() * columns.count(); }
    };
    Index blocks() const { return streams_ * chunks_ * groups_ * row_blocks_ * column_blocks_; }
    Block block_of(Index index) const {
        const Index matrix = index / column_blocks_ / row_blocks_, group = matrix % groups_;
        return {lines_.piece(matrix / groups_), rows(group * row_blocks_ + index / column_blocks_ % row_blocks_),
                columns(group * column_blocks_ + index % column_blocks_)};
    }
    Index point_sums() const { return streams_ * chunks_ * groups_ * rows_ * columns_; }
    /// Of one tile.
    Index source_points() const { return points_ * chunks_ * groups_ * columns_; }
    Index target_points() const { return points_ * streams_ * groups_ * rows_; }

    /// The channels of a block of all groups.
    Range rows(Index block) const {
        const Index group = block / row_blocks_ * rows_, n = block % row_blocks_;
        return {group + n * rows_ / row_blocks_, group + (n + 1) * rows_ / row_blocks_};
    }
    Range columns(Index block) const {
        const Index group = block / column_blocks_ * columns_, n = block % column_blocks_;
        return {group + n * kColumns, group + std::min(columns_, (n + 1) * kColumns)};
    }

    /// A block's values at a point.
    T *source(const Round &round, Index chunk, Range channels, Index point) const {
        return round.source +
               ((chunk * groups_ * columns_ + channels.first) * points_ + point * channels.count()) * round.count;
    }
    T *target(const Round &round, Index stream, Range channels, Index point) const {
        return round.target +
               ((stream * groups_ * rows_ + channels.first) * points_ + point * channels.count()) * round.count;
    }

    /// All that is to be done with a share of the tiles.
    void compute(Index share) {
        const Index begin = share * tiles_ / shares_, end = (share + 1) * tiles_ / shares_;
        const Index rounds = ceil_div(end - begin, ceil_div(tiles_, rounds_)), most = ceil_div(end - begin, rounds);
        const Buffer<T> points(most * (source_points() + target_points()));
        const Buffer<T> sums(points_ * point_sums());
        std::fill_n(sums.get(), points_ * point_sums(), T{});
        const auto each_block = [&](auto body) {
            Index before = 0;
            for (Index index = 0; index < blocks(); ++index) {
                const Block block = block_of(index);
                body(block, sums.get() + points_ * before);
                before += block.size();
            }
        };
        for (Index n = 0; n < rounds; ++n) {
            if (interrupted())
                return;
            const Index first = begin + n * (end - begin) / rounds;
            const Round round{first, begin + (n + 1) * (end - begin) / rounds - first, points.get(),
                              points.get() + most * source_points()};
            transform(round, {0, round.count});
            each_block([&](const Block &block, T *at) { multiply(round, {0, round.count}, block, at); });
        }
        each_block([&](const Block &block, const T *at) { write(block, at, true, share); });
    }

    /// Whether a piece has a product at this point.
    bool live(const Lines::Piece &piece, Index point) const {
        return live_[static_cast<std::size_t>((piece.stream * chunks_ + piece.chunk) * points_ + point)];
    }
    bool any_live(Index stream, Index point) const {
        Index chunk = 0;
        while (chunk < chunks_ && !live({stream, chunk}, point))
            ++chunk;
        return chunk < chunks_;
    }

    /// Makes the points of some tiles.
    void transform(const Round &round, Range tiles) const {
        const T zeros[kColumns]{};
        alignas(64) T unused[kColumns];
        const T *cells[kMostPoints * kMostPoints], *in[kMostPoints * kMostPoints];
        T *out[kMostPoints * kMostPoints];
        // `count` cells of a tile, of which some do not exist, made points.
        const auto make = [&](Index count, Range channels, auto place, auto function) {
            for (Index i = 0; i < count; ++i)
                in[i] = cells[i] ? cells[i] + channels.first : zeros;
            for (Index point = 0; point < points_; ++point)
                out[point] = place(point);
            function({in, out, channels.count()});
        };
        const Line &height = lines_.height, &width = lines_.width;
        const Index h_cells = height.form().cells(), w_cells = width.form().cells(), w_points = width.form().points;
        for (Index tile = tiles.first; tile < tiles.last; ++tile) {
            const Lines::Place at = lines_.place(round.first + tile);
            const auto cell = [&](const backstride::Rows<const T> &rows, Index h, Index w) {
                return rows.data + at.image * rows.stride[0] + at.depth * rows.stride[1] + h * rows.stride[2] +
                       w * rows.stride[3];
            };
            for (Index chunk = 0; chunk < chunks_; ++chunk) {
                for (Index i = 0; i < points_; ++i) {
                    const Index h = height.source_cell(0, chunk / width.chunks(), at.height, i / w_points),
                                w = width.source_cell(0, chunk % width.chunks(), at.width, i % w_points);
                    cells[i] = lines_.source_has(h, w) ? cell(input_.rows(), h, w) : nullptr;
                }
                for (Index block = 0; block < groups_ * column_blocks_; ++block) {
                    const Range channels = columns(block);
                    make(
                        points_, channels,
                        [&](Index point) { return source(round, chunk, channels, point) + tile * channels.count(); },
                        functions_.source[height_][width_]);
                }
            }
            for (Index stream = 0; stream < streams_; ++stream) {
                for (Index i = 0; i < h_cells * w_cells; ++i) {
                    const Index h = height.target_cell(stream / width.streams(), at.height, i / w_cells),
                                w = width.target_cell(stream % width.streams(), at.width, i % w_cells);
                    cells[i] = lines_.target_has(h, w) ? cell(output_.rows(), h, w) : nullptr;
                }
                for (Index block = 0; block < groups_ * row_blocks_; ++block) {
                    const Range channels = rows(block);
                    make(
                        h_cells * w_cells, channels,
                        [&](Index point) {
                            return any_live(stream, point)
                                       ? target(round, stream, channels, point) + tile * channels.count()
                                       : unused;
                        },
                        functions_.cells[height_][width_]);
                }
            }
        }
    }

    /// Adds a block's products at all points, for some of the round's tiles, to its sums.
    void multiply(const Round &round, Range tiles, const Block &block, T *sums) const {
        const Index height = block.rows.count(), width = block.columns.count();
        for (Index point = 0; point < points_; ++point)
            if (live(block.piece, point))
                for (Index first = tiles.first; first < tiles.last; first += step_)
                    multiply(target(round, block.piece.stream, block.rows, point) + first * height, height,
                             source(round, block.piece.chunk, block.columns, point) + first * width, width,
                             std::min(step_, tiles.last - first), sums + point * block.size());
    }

    /// Adds to c the products of a, `depth` times `rows`, and b, `depth` times `columns`.
    void multiply(const T *a, Index rows, const T *b, Index columns, Index depth, T *c) const {
        const Segment segment{0, 0};
        Tile<T> tile{};
        tile.a_row = 1;
        tile.a_step = rows;
        tile.b_step = tile.c_row = columns;
        tile.segments = &segment;
        tile.count = tile.taps = 1;
        tile.depth = depth;
        const Element element = sum_of(plan_.element);
        const Index widest = choose_kernel(plan_.isa, element, kColumns).columns;
        for (Index column = 0; column < columns; column += widest) {
            tile.columns = static_cast<int>(std::min(widest, columns - column));
            const Kernel &kernel = choose_kernel(plan_.isa, element, tile.columns);
            tile.b = b + column;
            const Index pieces = ceil_div(rows, kernel.rows);
            for (Index piece = 0; piece < pieces; ++piece) {
                const Index row = piece * rows / pieces;
                tile.a = a + row;
                tile.c = c + row * columns + column;
                functions<T>(kernel).outer[tile.columns < kernel.columns][(piece + 1) * rows / pieces - row](tile);
            }
        }
    }

    /// Makes taps of a block's sums, and adds them to those of its share, unless they are the first.
    void write(const Block &block, const T *sums, bool first, Index share) {
        for (Index row = 0; row < block.rows.count(); ++row)
            write(block, sums + row * block.columns.count(), first,
                  sums_ + share * elements_ + (block.rows.first % rows_ + row) * stride_[2] + block.columns.first);
    }

    /// The same for one output channel.
    void write(const Block &block, const T *sums, bool first, T *to) {
        const auto [stream, chunk] = block.piece;
        const Index columns = block.columns.count();
        alignas(64) T scratch[kMostPoints * kMostPoints * kColumns];
        const T *in[kMostPoints * kMostPoints];
        T *out[kMostPoints * kMostPoints], *place[kMostPoints * kMostPoints];
        for (Index point = 0; point < points_; ++point)
            in[point] = sums + point * block.size();
        const Line &height = lines_.height, &width = lines_.width;
        const Index w_taps = width.form().taps, taps = height.form().taps * w_taps;
        for (Index tap = 0; tap < taps; ++tap) {
            const Index h = height.filter_cell(stream / width.streams(), chunk / width.chunks(), tap / w_taps);
            const Index w = width.filter_cell(stream % width.streams(), chunk % width.chunks(), tap % w_taps);
            place[tap] = h < 0 || w < 0 ? nullptr : to + h * stride_[0] + w * stride_[1];
            out[tap] = first && place[tap] ? place[tap] : scratch + tap * kColumns;
        }
        if (!functions_.taps[height_][width_]({in, out, columns}))
            finite_ = false;
        for (Index tap = 0; tap < taps; ++tap)
            if (place[tap] && out[tap] != place[tap])
                for (Index i = 0; i < columns; ++i)
                    place[tap][i] += out[tap][i];
    }

    const Plan &plan_;
    const View &filter_;
    const Readable<T> input_, output_;
    const Lines lines_;
    const Index points_, streams_, chunks_, tiles_, groups_;
    const Index rows_, columns_; // channels of the output and of the input, of one group
    const Index row_blocks_, column_blocks_, elements_;
    const bool direct_; // whether sums may be the result
    const CombineFunctions<T> &functions_;
    const int height_, width_; // forms
    bool alone_;               // whether each thread makes points for itself, of a share of the tiles
    Index rounds_, shares_, most_threads_;
    // Tiles whose products make one chain of additions. Products of points are larger than their sums, so that chains
    // as long as those of plain sums would have larger errors.
    Index step_;
    std::vector<bool> live_;
    std::optional<Buffer<T>> own_sums_;
    T *sums_; // of the first share; stride_ along height, width and output channels
    Index stride_[3];
    std::atomic<bool> finite_ = true;
};

} // namespace

template <class T>
bool winograd_outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll) {
    return Outer<T>(plan, input, output, filter, poll).run(poll);
}

template bool winograd_outer<float>(const Plan &, const View &, const View &, const View &, Poll);
template bool winograd_outer<double>(const Plan &, const View &, const View &, const View &, Poll);

} // namespace backstride
