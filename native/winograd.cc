// SPDX-License-Identifier: Apache-2.0
#include "winograd.h"

#include <algorithm>
#include <atomic>
#include <numeric>

namespace backstride {
namespace {

/// Tiles of one product.
struct Sizes {
    Index fewest, usual, most;
};
constexpr Sizes kByVectors = {14, 56, 112}, kByUnit = {2 * kMatrixRows, 64, 256};
// The points that a thread makes for itself, which are to stay in a second-level cache, or that all make for all: more
// for a filter that is so large that each round reads it from memory.
constexpr Index kOwnBytes = 512 << 10, kSharedBytes = 8 << 20, kMostSharedBytes = 16 << 20;
// The points of a thread with their sums, and the filter, which stay in the cache of a processor with a matrix unit;
// and the former if the filter does not. In turns, 121 to 1024 tiles of 16 points, 256 and 512 channels: 4 MB took 1.1
// to 1.2 times as long, 16 MB up to 1.3 times, and parts of 128 columns, with sums that stay in the cache, 1.1 to 1.4
// times.
constexpr Index kNearBytes = 1536 << 10, kFarBytes = 8 << 20;
// With fewer tiles for each thread it pays to make their points together, and to bring the filter once.
constexpr Index kFewestOwn = 56;
// Of some of the depth of the tiles of one point, which stays there while all columns meet it.
constexpr Index kCachedDepth = 1 << 20;
constexpr Index kEnoughTasks = 16;
// Streams may be cut into so many chunks, each of which has points of its own.
constexpr Index kMostChunks = 8;
// Cells that are listed at a time, to be computed anew.
constexpr std::size_t kMostListed = 512;
// Bytes, so that neighbours in one direction do not fall into one set of the first-level cache.
constexpr Index kRowPadding = 64, kPointPadding = 320;

/// How an axis is computed in so many points with the fewest products, if it has more than one tap.
std::optional<Scheme::Along> along_axis(Operand wrt, const Axis &axis, int points) {
    const Index taps = ceil_div(axis.kernel, axis.stride);
    if (taps == 1)
        return Scheme::Along{0, false};
    std::optional<Scheme::Along> best;
    double fewest = 0;
    for (int index = kFormCount - 1; index > 0; --index)
        for (const bool late : {false, true}) {
            const Line line(Lines::of(wrt), axis, {index, late});
            if (kForms[index].points != points || line.chunks() > kMostChunks || (late && wrt == Operand::input))
                continue;
            double products = 0;
            for (Index point = 0; point < points; ++point)
                products += static_cast<double>(line.live(point));
            products *= static_cast<double>(line.positions()) / line.form().cells();
            if (!best || products < fewest) {
                best = {index, late};
                fewest = products;
            }
        }
    return best;
}

} // namespace

std::optional<Scheme> make_scheme(const Plan &plan, int points) {
    const Element sum = sum_of(plan.element);
    const Axis &depth = plan.geometry.axes[0];
    if (plan.channelwise || (sum != Element::float32 && sum != Element::float64) || depth.kernel != 1 ||
        depth.stride != 1 || depth.pad != 0 || depth.input != depth.output)
        return {};
    Scheme scheme{};
    for (int i : {0, 1}) {
        const Axis &axis = plan.geometry.axes[i + 1];
        // Streams of no tap would have to be filled.
        if ((axis.kernel > 1 && axis.dilation > 1) || (plan.wrt != Operand::input && axis.kernel < axis.stride))
            return {};
        // Six points have 4.6 times the error of the short sums of streams of one tap.
        if (points == 6 && axis.kernel > 1 && axis.kernel < 2 * axis.stride)
            return {};
        const auto along = along_axis(plan.wrt, axis, points);
        if (!along)
            return {};
        scheme.axes[i] = *along;
    }
    if (scheme.axes[0].index == 0 && scheme.axes[1].index == 0)
        return {};
    return scheme;
}

Work work_of(const Plan &plan, const Scheme &scheme) {
    const Lines lines(plan, scheme);
    const Channels channels(plan);
    double live = 0;
    for (Index point = 0; point < lines.points(); ++point)
        live += static_cast<double>(lines.live(point));
    const auto real = [](Index value) { return static_cast<double>(value); };
    const double tiles = real(lines.all_tiles());
    const double groups = real(plan.geometry.groups), matrix = real(channels.depth) * real(channels.columns);
    const double points = tiles * groups * real(lines.points()), streams = real(lines.streams());
    const Division division(plan, lines, channels);
    return {tiles,
            tiles * live * groups * matrix,
            points * real(channels.depth) * real(lines.planes()),
            points * real(channels.columns) * (lines.transposed ? streams : 1),
            live * groups * matrix,
            real(division.together * channels.columns) / real(division.cuts),
            real(division.cuts * division.streams) / real(division.together),
            real(lines.planes() * lines.points())};
}

namespace {

/// A call, in which points are kept as Factor: T, or Bfloat in three planes for a matrix unit.
template <class T, class Factor> class Winograd {
    static constexpr bool kUnit = !std::is_same_v<T, Factor>;
    static constexpr Sizes kSizes = kUnit ? kByUnit : kByVectors;
    using Part = typename PackedPoints<T>::Part;

  public:
    Winograd(const Plan &plan, const View &source, const PackedPoints<T> &filter, const Epilogue<T> &epilogue,
             const View &target)
        : plan_(plan), source_(source), target_(target), filter_(filter), epilogue_(epilogue),
          lines_(plan, filter.scheme()), channels_(plan), points_(lines_.points()), planes_(lines_.planes()),
          tiles_(lines_.all_tiles()), chunks_(channels_.depth),
          row_(kUnit ? plan.geometry.groups * pixel_size() : padded<T>(source.shape[4], kRowPadding)),
          readable_(in_place<T>(source, plan.element)), direct_(in_place<T>(target, plan.element)),
          streaming_(direct_ && epilogue.empty() && streamed<T>(target, plan.element, common_channels())),
          zeros_(static_cast<std::size_t>(std::max(source.shape[4], Division::kMostColumns))),
          functions_(combine_functions<T>(plan.isa)), unit_(matrix_functions(plan.isa)),
          height_(filter.scheme().axes[0].index), width_(filter.scheme().axes[1].index) {
        cut();
    }

    void run(const std::function<void(const std::vector<Cells> &)> &again, Poll poll) {
        std::vector<std::atomic<bool>> suspect(static_cast<std::size_t>(tiles_));
        suspect_ = suspect.data();
        if (alone_)
            parallel_for(
                rounds(),
                [&](Index task) {
                    // One piece of memory: smaller ones would come from the system each time.
                    const Index all = planes_ * points_ * point_ * Index{sizeof(Factor)};
                    const Memory memory(all + sums_size(round_) * Index{sizeof(T)});
                    T *const sums = reinterpret_cast<T *>(static_cast<char *>(memory.data()) + all);
                    const Round round = round_at(task, static_cast<Factor *>(memory.data()));
                    read(round, round.read);
                    for (Index tile = 0; tile < round.count; ++tile)
                        for (Index plane = 0; plane < planes_; ++plane)
                            transform(round, tile, plane);
                    for (Index matrix = 0; matrix < matrices(); ++matrix)
                        multiply(round, {0, round.count}, matrix, sums);
                    write(round, round.written);
                },
                poll, most_threads_);
        else {
            const Buffer<Factor> points(planes_ * points_ * point_);
            for (Index n = 0; n < rounds(); ++n) {
                const Round round = round_at(n, points.get());
                if (!readable_)
                    in_pieces(round.read, [&](const Box &box) { read(round, box); }, poll);
                parallel_for(
                    round.count * planes_,
                    [&](Index task) { transform(round, task % round.count, task / round.count); }, poll);
                const Index block = whole_units(ceil_div(round.count, ceil_div(round.count, block_)));
                const Index blocks = ceil_div(round.count, block);
                parallel_for(
                    blocks * matrices(),
                    [&](Index task) {
                        const Index first = task % blocks * block;
                        const Range tiles{first, std::min(first + block, round.count)};
                        const Buffer<T> sums(sums_size(tiles.count()));
                        multiply(round, tiles, task / blocks, sums.get());
                    },
                    poll, most_threads_);
                if (!direct_)
                    in_pieces(round.written, [&](const Box &box) { write(round, box); }, poll);
            }
        }
        std::vector<Cells> cells;
        for (Index tile = 0; tile < tiles_; ++tile) {
            if (suspect[static_cast<std::size_t>(tile)])
                list(tile, cells);
            if (!cells.empty() && (cells.size() >= kMostListed || tile == tiles_ - 1)) {
                again(cells);
                cells.clear();
            }
        }
    }

  private:
    /// Elements of which `padding` bytes are padding.
    template <class Element> static constexpr Index padded(Index count, Index padding) {
        return count + padding / Index{sizeof(Element)};
    }
    /// From the sums of so many tiles at one point to those at the next; and all that any part may have.
    Index point_sums(Index tiles, Index columns) const {
        return padded<T>(whole_pieces(tiles) * columns, kPointPadding);
    }
    Index sums_size(Index tiles) const { return points_ * point_sums(tiles, most_columns_); }
    /// Where the points of a tile begin: those for the unit in pieces of tiles, as the unit reads them.
    Index start_of(Index tile) const { return tile / rows_ * rows_ * row_ + tile % rows_ * chunks_.each; }
    /// From the sums of a tile to those of the next, which do not begin in the same sets of the cache.
    static Index sums_row(const Part &part) { return part.most_columns + (kUnit ? kHalfPanel : 0); }
    /// So many tiles with those that the unit multiplies with them.
    Index whole_pieces(Index tiles) const { return ceil_div(tiles, rows_) * rows_; }
    /// So many tiles with those that are multiplied in the time that these take.
    Index together(Index tiles) const { return kUnit ? ceil_div(tiles, 2 * rows_) * 2 * rows_ : tiles; }
    /// What blocks of so many tiles are a multiple of, and so many tiles in such units: blocks that are as even as can
    /// be are no larger.
    Index unit_of_tiles(Index block) const { return !kUnit ? 1 : block >= 2 * rows_ ? 2 * rows_ : rows_; }
    Index whole_units(Index tiles) const { return ceil_div(tiles, unit_of_tiles(block_)) * unit_of_tiles(block_); }
    /// Elements of a group's channels of a tile at one point, for the unit.
    Index pixel_size() const { return kPlanes * chunks_.depth(); }

    /// All parts have a multiple of so many channels.
    Index common_channels() const {
        Index channels = channels_.columns;
        for (const Part &part : filter_.parts())
            channels = std::gcd(channels, part.channels);
        return channels;
    }

    /// Tiles whose points exist at a time, and what they read and write of the source and the result: windows on these,
    /// or on copies of the boxes.
    struct Round {
        Index first, count;
        Factor *points;
        Box read, written;
        std::optional<Buffer<T>> source_copy, target_copy;
        Window<T> source, target;
    };

    Index rounds() const { return tiles_ / span_ * ceil_div(span_, round_); }

    Round round_at(Index n, Factor *points) const {
        const Index in_span = ceil_div(span_, round_), first = n % in_span * round_;
        Round round{n / in_span * span_ + first, std::min(round_, span_ - first), points, {}, {}, {}, {}, {}, {}};
        const Lines::Place from = lines_.place(round.first), to = lines_.place(round.first + round.count - 1);
        const Range images = {from.image, to.image + 1}, depths = {from.depth, to.depth + 1};
        const Range heights = {from.height, to.height + 1}, widths = {from.width, to.width + 1};
        round.read = {{images,
                       depths,
                       lines_.height.source_cells(heights),
                       lines_.width.source_cells(widths),
                       {0, source_.shape[4]}}};
        round.written = {{images,
                          depths,
                          lines_.height.target_cells(heights),
                          lines_.width.target_cells(widths),
                          {0, target_.shape[4]}}};
        const auto open = [](const View &array, bool in_place, const Box &box, std::optional<Buffer<T>> &copy) {
            return in_place ? window<T>(array) : window(copy.emplace(cells_of(box)).get(), box);
        };
        round.source = open(source_, readable_, round.read, round.source_copy);
        round.target = open(target_, direct_, round.written, round.target_copy);
        return round;
    }

    /// Copies a part of what the round reads, and of what it has written, unless that is in place.
    void read(const Round &round, const Box &box) const {
        if (!readable_)
            load(plan_.element, plan_.isa, source_, box, round.source);
    }
    void write(const Round &round, const Box &box) const {
        if (!direct_)
            store(round.target, box, {1, 1, 1}, plan_.element, plan_.isa, target_);
    }

    /// Calls `each` with parts of a box, cut along its longest axis but for the channels.
    template <class Each> static void in_pieces(const Box &box, Each each, Poll poll) {
        std::size_t along = 0;
        for (std::size_t i = 1; i < 4; ++i)
            if (box[i].count() > box[along].count())
                along = i;
        const Range all = box[along];
        const Index pieces = std::min(all.count(), kEnoughTasks);
        parallel_for(
            pieces,
            [&](Index task) {
                Box piece = box;
                piece[along] = {all.first + task * all.count() / pieces, all.first + (task + 1) * all.count() / pieces};
                each(piece);
            },
            poll);
    }

    /// Chooses how many tiles are worked on at a time: by each thread for itself, with all of the filter, or by all
    /// threads for all, each with its part of the filter. Nothing here changes a bit of the result.
    void cut() {
        const Index tile = planes_ * points_ * row_ * Index{sizeof(Factor)};
        // The workspace: a tile's points with copies of what it reads and writes, its sums at all points, and padding.
        for (const Part &part : filter_.parts())
            most_columns_ = std::max(most_columns_, sums_row(part));
        const Line &height = lines_.height, &width = lines_.width;
        const Index read = readable_ ? 0 : height.most_source_cells() * width.most_source_cells() * source_.shape[4];
        const Index written = direct_ ? 0 : height.most_target_cells() * width.most_target_cells() * target_.shape[4];
        const Index copied = (read + written) * Index{sizeof(T)}, sums = points_ * most_columns_ * Index{sizeof(T)};
        const Index padding = (planes_ + 1) * points_ * kPointPadding;
        const Workspace &workspace = plan_.workspace;
        const auto least = [&] { return tiles_ + rows_ * (tile + copied + sums) + padding; };
        for (rows_ = kUnit ? kMatrixRows : 1; rows_ > 1 && 2 * least() > workspace.bytes; rows_ /= 2) {
        }
        workspace.admit(least());
        // For points and sums each; as much again is left to allocators, which were seen to waste 40 % and more.
        const Index quarter = std::max<Index>(0, workspace.bytes - tiles_) / 4, share = quarter / threads();
        const auto most = [&](Index room, Index each) {
            return std::max<Index>(1, (Memory::within(room) - padding) / each / rows_) * rows_;
        };

        const Index most_own = most(2 * share, tile + copied + sums);
        const Index shared = std::clamp(filter_.bytes() / 4, kSharedBytes, kMostSharedBytes);
        const Index all = std::min(std::max(shared / tile, kSizes.usual), most(quarter, tile + copied));
        const Index own = std::min(own_tiles(tile, sums, copied), most_own);
        alone_ = own >= kSizes.fewest && (kUnit ? tiles_ >= kFewestOwn * threads() : reads_less(tile, own, all));
        Index rounds = ceil_div(tiles_, alone_ ? own : all);
        if (kUnit && alone_ && rounds < kEnoughTasks)
            rounds = ceil_div(rounds, threads()) * threads();
        round_ = std::min(together(ceil_div(tiles_, rounds)), std::max(alone_ ? own : all, Index{1}));
        cut_boxes();
        const Index tasks = kUnit ? 2 * threads() : kEnoughTasks;
        block_ =
            std::min(std::clamp(round_ / ceil_div(tasks, matrices()), kSizes.fewest, kSizes.usual), most(share, sums));
        block_ = std::max(block_ / unit_of_tiles(block_), Index{1}) * unit_of_tiles(block_);
        point_ = padded<Factor>(whole_pieces(round_) * row_, kPointPadding);
        most_threads_ = workspace.threads(padding + whole_pieces(std::min(block_, round_)) * sums, 3 * quarter);
    }

    /// Tiles that a thread makes for itself, by the bytes of their points, their sums and their copies.
    Index own_tiles(Index tile, Index sums, Index copied) const {
        if (!kUnit)
            return std::min(std::clamp(kOwnBytes / tile, kSizes.fewest, kSizes.most), ceil_div(tiles_, kEnoughTasks));
        // Beyond the cache copies do not matter, as long as the workspace has room for them.
        const Index room =
            filter_.bytes() <= kNearBytes ? kNearBytes / (tile + sums + copied) : kFarBytes / (tile + sums);
        return std::min(std::clamp(room / kSizes.fewest * kSizes.fewest, kSizes.usual, kSizes.most),
                        together(ceil_div(tiles_, threads())));
    }
    /// Whether less is read from beyond the second-level cache if each thread makes points for itself.
    bool reads_less(Index tile, Index own, Index all) const {
        const auto real = [](Index value) { return static_cast<double>(value); };
        const double filter = real(filter_.bytes());
        const double alone = filter_.bytes() <= kOwnBytes ? filter : filter * real(ceil_div(tiles_, own));
        return alone < filter * real(ceil_div(tiles_, all)) + real(tiles_) * real(tile) * real(1 + matrices());
    }

    /// Where arrays are copied, makes rounds whole images, or whole rows of tiles of one, or parts of one row.
    void cut_boxes() {
        span_ = tiles_;
        if (readable_ && direct_)
            return;
        Index unit = lines_.tiles();
        span_ = plan_.geometry.axes[0].input > 1 ? plan_.geometry.axes[0].input * unit : tiles_;
        for (const Index smaller : {lines_.width.tiles(), Index{1}})
            if (round_ < unit) {
                span_ = unit;
                unit = smaller;
            }
        const Index units = span_ / unit;
        round_ = ceil_div(units, ceil_div(units, round_ / unit)) * unit;
    }

    /// Parts of the filter of all groups.
    Index matrices() const { return plan_.geometry.groups * static_cast<Index>(filter_.parts().size()); }

    /// Makes the points of one plane of the source in the round's tile.
    void transform(const Round &round, Index tile, Index plane) const {
        const Lines::Place at = lines_.place(round.first + tile);
        const Index height = lines_.height.form().points, width = lines_.width.form().points;
        const Index streams = lines_.width.streams(), chunks = lines_.width.chunks();
        const auto [stream, chunk] = lines_.piece(plane);
        const T *in[kMostPoints * kMostPoints];
        for (Index i = 0; i < height; ++i) {
            const Index h = lines_.height.source_cell(stream / streams, chunk / chunks, at.height, i);
            for (Index j = 0; j < width; ++j) {
                const Index w = lines_.width.source_cell(stream % streams, chunk % chunks, at.width, j);
                in[i * width + j] =
                    lines_.source_has(h, w) ? round.source.at({at.image, at.depth, h, w, 0}) : zeros_.data();
            }
        }
        Factor *const to = round.points + plane * points_ * point_ + start_of(tile);
        if constexpr (kUnit)
            transform_planes(in, to);
        else {
            T *out[kMostPoints * kMostPoints];
            for (Index point = 0; point < points_; ++point)
                out[point] = to + point * point_;
            functions_.source[height_][width_]({in, out, source_.shape[4]});
        }
    }

    /// The same for the unit, some channels at a time, which a first-level cache holds.
    void transform_planes(const T *const *source, Factor *to) const {
        constexpr Index kChannels = 128;
        alignas(64) T values[kMostPoints * kMostPoints * kChannels];
        const T *in[kMostPoints * kMostPoints];
        T *out[kMostPoints * kMostPoints];
        for (Index point = 0; point < points_; ++point)
            out[point] = values + point * kChannels;
        for (Index group = 0; group < plan_.geometry.groups; ++group)
            for (Index first = 0; first < channels_.depth; first += kChannels) {
                const Index count = std::min(kChannels, channels_.depth - first);
                for (Index point = 0; point < points_; ++point)
                    in[point] = source[point] == zeros_.data() ? source[point]
                                                               : source[point] + group * channels_.depth + first;
                functions_.source[height_][width_]({in, out, count});
                unit_->split(values, kChannels, points_, count, chunks_.each,
                             to + (group * pixel_size() + first * kPlanes) * rows_, point_, chunks_.each * rows_, 0);
            }
    }

    /// Multiplies the points of some of the round's tiles with one part of the filter, and makes results of them.
    void multiply(const Round &round, Range tiles, Index matrix, T *sums) const {
        if (interrupted())
            return;
        const auto &parts = filter_.parts();
        const Index group = matrix / static_cast<Index>(parts.size());
        const auto &part = parts[static_cast<std::size_t>(matrix % static_cast<Index>(parts.size()))];
        const Index columns = sums_row(part), point_sums = this->point_sums(tiles.count(), columns);
        if constexpr (kUnit)
            multiply_planes(round, group, part, tiles, sums, point_sums);
        else
            for (Index point = 0; point < points_; ++point)
                multiply_point(round, group, part, point, tiles, sums + point * point_sums);
        for (Index tile = tiles.first; tile < tiles.last; ++tile)
            for (Index n = 0; n < part.streams; ++n)
                write(round, tile, group, part, n, sums + (tile - tiles.first) * columns, point_sums);
    }

    void multiply_planes(const Round &round, Index group, const Part &part, Range tiles, T *sums,
                         Index point_sums) const {
        const Segment whole{0, 0};
        Pairs pairs{};
        pairs.segments = &whole;
        pairs.count = 1;
        pairs.rows = static_cast<int>(rows_);
        pairs.planes = kPlanes;
        pairs.chunk = chunks_.each;
        pairs.a_row = chunks_.each;
        pairs.a_plane = rows_ * chunks_.each;
        pairs.a_chunk = kPlanes * pairs.a_plane;
        pairs.c_row = sums_row(part);
        unit_->begin(pairs.rows, pairs.chunk);
        // All columns meet some of the depth of all tiles, which stays in the cache, then the next.
        const Index chunk_size = kPlanes * chunks_.each,
                    chunk_bytes = whole_pieces(tiles.count()) * chunk_size * Index{sizeof(Factor)};
        const Index cuts = ceil_div(chunks_.count, std::max<Index>(1, kCachedDepth / chunk_bytes));
        for (Index index = 0; index < points_; ++index) {
            const auto &point = part.points[static_cast<std::size_t>(index)];
            const Factor *const a = round.points + index * point_ + group * pixel_size() * rows_;
            const Index depth = static_cast<Index>(point.planes.size()) * chunks_.count;
            for (Index cut = 0; cut < cuts * static_cast<Index>(point.planes.size()); ++cut) {
                const Index segment = cut / cuts, from = cut % cuts * chunks_.count / cuts;
                const Index plane = point.planes[static_cast<std::size_t>(segment)];
                pairs.chunks = (cut % cuts + 1) * chunks_.count / cuts - from;
                pairs.continued = cut > 0;
                for (Index column = 0; column < point.columns; column += kMatrixColumns) {
                    pairs.halves = point.columns - column > kHalfPanel ? 2 : 1;
                    pairs.b =
                        filter_.template panels<Factor>(group, point) +
                        (column * depth + pairs.halves * kHalfPanel * (segment * chunks_.count + from)) * chunk_size;
                    for (Index tile = tiles.first; tile < tiles.last; tile += 2 * rows_) {
                        pairs.lines = tile + rows_ < tiles.last ? 2 : 1;
                        for (int line = 0; line < pairs.lines; ++line) {
                            const Index first = tile + line * rows_;
                            pairs.a[line] = a + plane * points_ * point_ + start_of(first) + from * rows_ * chunk_size;
                            pairs.c[line] = sums + index * point_sums + (first - tiles.first) * pairs.c_row + column;
                        }
                        unit_->multiply(pairs);
                    }
                }
            }
        }
        unit_->end();
    }

    void multiply_point(const Round &round, Index group, const Part &part, Index index, Range tiles, T *sums) const {
        const auto &point = part.points[static_cast<std::size_t>(index)];
        std::vector<Segment> segments;
        for (const Index plane : point.planes)
            segments.push_back({plane * points_ * point_, static_cast<Index>(segments.size())});
        const Kernel &widest = filter_.kernel();
        Tile<T> tile{};
        tile.segments = segments.data();
        tile.count = static_cast<Index>(segments.size());
        tile.a_row = row_;
        tile.a_step = 1;
        tile.taps = 1;
        tile.depth = channels_.depth;
        tile.c_row = sums_row(part);
        for (Index column = 0; column < point.columns; column += widest.columns) {
            tile.columns = static_cast<int>(std::min<Index>(widest.columns, point.columns - column));
            const Kernel &kernel = choose_kernel(widest.isa, widest.element, tile.columns);
            tile.b = filter_.template panels<T>(group, point) + column * tile.count * tile.depth;
            tile.b_step = tile.columns;
            tile.b_segment = tile.depth * tile.columns;
            const Index pieces = ceil_div(tiles.count(), kernel.rows);
            for (Index piece = 0; piece < pieces; ++piece) {
                // The panels of all points of a part follow one another.
                tile.fetch(tile.count * tile.b_segment, piece, std::min(pieces, kFetchingTiles));
                const Index begin = piece * tiles.count() / pieces, end = (piece + 1) * tiles.count() / pieces;
                tile.a = round.points + index * point_ + (tiles.first + begin) * row_ + group * channels_.depth;
                tile.c = sums + begin * tile.c_row + column;
                functions<T>(kernel).dense[tile.columns < kernel.columns][end - begin](tile);
            }
        }
    }

    /// Makes a tile of one stream of the result.
    void write(const Round &round, Index tile, Index group, const Part &part, Index n, const T *sums,
               Index sums_point) const {
        const Index stream = part.first_stream + n;
        const T *in[kMostPoints * kMostPoints];
        for (Index point = 0; point < points_; ++point) {
            const Index column = part.points[static_cast<std::size_t>(point)].first_column[static_cast<std::size_t>(n)];
            in[point] = column < 0 ? zeros_.data() : sums + point * sums_point + column;
        }
        alignas(64) T scratch[Division::kMostColumns]; // for all cells that do not exist
        T *out[kMostPoints * kMostPoints];
        const Lines::Place at = lines_.place(round.first + tile);
        const Index channel = group * channels_.columns + part.first_channel;
        const Index width = lines_.width.form().cells(), cells = lines_.height.form().cells() * width;
        for (Index i = 0; i < cells; ++i) {
            const Index h = lines_.height.target_cell(stream / lines_.width.streams(), at.height, i / width);
            const Index w = lines_.width.target_cell(stream % lines_.width.streams(), at.width, i % width);
            out[i] = lines_.target_has(h, w) ? round.target.at({at.image, at.depth, h, w, channel}) : scratch;
        }
        if (!functions_.target[height_][width_]({in, out, part.channels, streaming_}))
            suspect_[round.first + tile] = true;
        for (Index i = 0; i < cells; ++i)
            if (out[i] != scratch)
                epilogue_.on_columns(out[i], part.channels, 1, part.channels, channel);
    }

    /// Lists the cells of a tile.
    void list(Index tile, std::vector<Cells> &cells) const {
        const Lines::Place at = lines_.place(tile);
        const Index streams = plan_.wrt == Operand::output ? lines_.streams() : 1;
        for (Index stream = 0; stream < streams; ++stream) {
            Cells of{{at.image, at.depth, 0, 0}, {at.image + 1, at.depth + 1, 0, 0}, {1, 1, 1, 1}};
            cut(lines_.height, stream / lines_.width.streams(), at.height, 2, of);
            cut(lines_.width, stream % lines_.width.streams(), at.width, 3, of);
            if (of.first[2] < of.last[2] && of.first[3] < of.last[3])
                cells.push_back(of);
        }
    }
    static void cut(const Line &line, Index stream, Index tile, int axis, Cells &cells) {
        Index n = 0;
        while (n < line.form().cells() && line.target_cell(stream, tile, n) < 0)
            ++n;
        cells.first[axis] = line.target_cell(stream, tile, n);
        cells.last[axis] = std::min(line.target_cell(stream, tile, line.form().cells() - 1) + 1, line.target_length());
        cells.step[axis] = line.target_step();
    }

    const Plan &plan_;
    const View &source_, &target_;
    const PackedPoints<T> &filter_;
    const Epilogue<T> &epilogue_;
    const Lines lines_;
    const Channels channels_;
    const Index points_, planes_, tiles_;
    const Chunks chunks_;                      // of the depth, for the unit
    const Index row_;                          // from a tile at one point to the next
    const bool readable_, direct_, streaming_; // whether the source and the result are in place
    const std::vector<T> zeros_;
    const CombineFunctions<T> &functions_;
    const MatrixFunctions *const unit_; // or null
    const int height_, width_;          // forms
    bool alone_;                        // whether each thread makes points for itself
    Index rows_;                        // tiles of a piece, which the unit multiplies together
    Index round_, block_;               // tiles of a round, and of one product
    Index span_;                        // tiles that rounds divide
    Index most_columns_ = 0, most_threads_;
    Index point_; // from the round's tiles at one point to those at the next
    std::atomic<bool> *suspect_ = nullptr;
};

} // namespace

template <class T>
void winograd(const Plan &plan, const View &source, const PackedPoints<T> &filter, const Epilogue<T> &epilogue,
              const View &target, const std::function<void(const std::vector<Cells> &)> &again, Poll poll) {
    if constexpr (std::is_same_v<T, float>)
        if (filter.by_unit())
            return Winograd<T, Bfloat>(plan, source, filter, epilogue, target).run(again, poll);
    Winograd<T, T>(plan, source, filter, epilogue, target).run(again, poll);
}

#define INSTANTIATE(T)                                                                                                 \
    template void winograd(const Plan &, const View &, const PackedPoints<T> &, const Epilogue<T> &, const View &,     \
                           const std::function<void(const std::vector<Cells> &)> &, Poll);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

} // namespace backstride
