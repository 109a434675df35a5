// SPDX-License-Identifier: Apache-2.0
#include "pack.h"

#include <algorithm>
#include <cstdlib>

namespace backstride {
namespace {

/// Calls body(index, data) with the elements of `data` read as the storage type, when their sums are kept in T.
template <class T, class Body> void visit_as(Element element, const void *data, Body &&body) {
    visit(element, [&](auto value) {
        using S = decltype(value);
        if constexpr (std::is_same_v<typename Sum<S>::type, T>)
            body(static_cast<const S *>(data));
    });
}

constexpr Index kPieceRows = 16, kPieceColumns = 32;

// Elements of a filter that are packed in the time in which another thread would begin to help.
constexpr Index kFewestPacked = 16 << 10;

/// to[c * to_row + r] = from[r * from_row + c], so few columns at a time that caches can take in their lines.
template <class S, class T>
void store_transposed(Isa isa, const T *from, Index from_row, Index rows, Index columns, S *to, Index to_row,
                      bool streaming) {
    constexpr Index kColumns = 16, kRows = 64;
    for (Index c = 0; c < columns; c += kColumns) {
        const Index width = std::min(kColumns, columns - c);
        if constexpr (std::is_same_v<S, T>)
            moves<T>(isa).transpose(from + c, from_row, rows, width, to + c * to_row, to_row, streaming);
        else
            for (Index r = 0; r < rows; r += kRows) {
                T piece[kColumns * kRows];
                const Index height = std::min(kRows, rows - r);
                moves<T>(isa).transpose(from + r * from_row + c, from_row, height, width, piece, kRows, false);
                moves<S>(isa).store(piece, kRows, width, height, to + c * to_row + r, to_row, streaming);
            }
    }
}

struct Rectangle {
    Index heights, widths;
};

/// Rows of a box; those that follow one another in memory count as one.
template <class T> Rectangle joined_rows(const View &view, const Window<T> &window, const Box &box) {
    const Index heights = box[2].count(), widths = box[3].count();
    return view.stride[2] == widths * view.stride[3] && window.stride[2] == widths * window.stride[3]
               ? Rectangle{1, heights * widths}
               : Rectangle{heights, widths};
}

/// From the first element to that of a cell.
Index offset_of(const View &view, const Index (&cell)[5]) {
    Index offset = 0;
    for (int i = 0; i < 5; ++i)
        offset += cell[i] * view.stride[i];
    return offset;
}

/// to[r * place.row + c * place.column] = from[r * from_row + c], neighbours in the result one after the other.
template <class S, class T>
void scatter(const T *from, Index from_row, Index rows, Index columns, S *to, const Place &place) {
    if (std::abs(place.column) <= std::abs(place.row)) {
        for (Index r = 0; r < rows; ++r)
            for (Index c = 0; c < columns; ++c)
                to[r * place.row + c * place.column] = static_cast<S>(from[r * from_row + c]);
    } else {
        for (Index c = 0; c < columns; ++c)
            for (Index r = 0; r < rows; ++r)
                to[r * place.row + c * place.column] = static_cast<S>(from[r * from_row + c]);
    }
}

} // namespace

template <class T> Readable<T>::Readable(const View &view, Element element, Isa isa, Poll poll) {
    if (in_place<T>(view, element)) {
        rows_.data = static_cast<const T *>(view.data);
        std::copy_n(view.stride, 4, rows_.stride);
        return;
    }
    const auto [batch, depth, height, width, channels] = view.shape;
    copy_ = std::make_unique<Buffer<T>>(batch * depth * height * width * channels);
    rows_ = {copy_->get(), {depth * height * width * channels, height * width * channels, width * channels, channels}};

    // One piece of a row at a time, about 64 KiB.
    const Index piece = std::max<Index>(16, 16384 / channels);
    const Index pieces = (width + piece - 1) / piece;
    parallel_for(
        batch * depth * height * pieces,
        [&](Index task) {
            const Index row = task / pieces, first = task % pieces * piece;
            const Index h = row % height, d = row / height % depth, n = row / height / depth;
            const Box box = {
                {{n, n + 1}, {d, d + 1}, {h, h + 1}, {first, std::min(first + piece, width)}, {0, channels}}};
            load(element, isa, view, box, window(copy_->get() + (row * width + first) * channels, box));
        },
        poll);
}

template <class T>
PackedFilter<T>::PackedFilter(const View &filter, Element element, Index groups, int depth_axis, Index width, Isa isa)
    : filter_(filter), element_(element), depth_axis_(depth_axis), isa_(isa), groups_(groups),
      taps_(filter.shape[0] * filter.shape[1] * filter.shape[2]),
      depth_(depth_axis == 4 ? filter.shape[4] / groups : filter.shape[3]),
      columns_(depth_axis == 4 ? filter.shape[3] : filter.shape[4] / groups), width_(width) {}

template <class T> void PackedFilter<T>::pack(Poll poll) {
    data_.emplace(groups_ * taps_ * depth_ * columns_);
    const Index panels = ceil_div(columns_, width_), matrices = groups_ * panels * taps_;
    const Index tasks = ceil_div(matrices, std::max<Index>(1, kFewestPacked / (depth_ * std::min(width_, columns_))));
    parallel_for(
        tasks,
        [&](Index task) {
            for (Index i = task * matrices / tasks; i < (task + 1) * matrices / tasks; ++i) {
                const Index tap = i % taps_, index = i / taps_ % panels, group = i / taps_ / panels;
                pack_tap(group, index, tap, const_cast<T *>(this->tap(group, index, tap, nullptr)));
            }
        },
        poll);
}

template <class T> const T *PackedFilter<T>::panel(Index group, Index index, T *room) const {
    if (data_)
        return data_->get() + (group * columns_ + index * width_) * taps_ * depth_;
    for (Index tap = 0; tap < taps_; ++tap)
        pack_tap(group, index, tap, room + tap * depth_ * columns(index));
    return room;
}

template <class T> const T *PackedFilter<T>::tap(Index group, Index index, Index tap, T *room) const {
    if (data_)
        return panel(group, index, nullptr) + tap * depth_ * columns(index);
    pack_tap(group, index, tap, room);
    return room;
}

template <class T> void PackedFilter<T>::pack_tap(Index group, Index index, Index tap, T *to) const {
    const Index depth_stride = filter_.stride[depth_axis_], column_stride = filter_.stride[7 - depth_axis_];
    const Index w = tap % filter_.shape[2], h = tap / filter_.shape[2] % filter_.shape[1];
    const Index d = tap / filter_.shape[2] / filter_.shape[1];
    visit_as<T>(element_, filter_.data, [&](const auto *data) {
        const auto *from = data + d * filter_.stride[0] + h * filter_.stride[1] + w * filter_.stride[2] +
                           group * (filter_.shape[4] / groups_) * filter_.stride[4] + index * width_ * column_stride;
        copy_matrix(isa_, from, depth_stride, column_stride, depth_, columns(index), to, columns(index));
    });
}

PackedPairs::PackedPairs(const View &filter, Element element, Index groups, int depth_axis, Isa isa)
    : filter_(filter, element, groups, depth_axis, kMatrixColumns, isa), unit_(*matrix_functions(isa)),
      planes_(element == Element::bfloat16 ? 1 : kPlanes), groups_(groups),
      taps_(filter.shape[0] * filter.shape[1] * filter.shape[2]),
      depth_(depth_axis == 4 ? filter.shape[4] / groups : filter.shape[3]),
      columns_(depth_axis == 4 ? filter.shape[3] : filter.shape[4] / groups), chunks_(depth_) {}

void PackedPairs::pack(Poll poll) {
    data_.emplace(groups_ * group_size());
    const Index panels = ceil_div(columns_, kMatrixColumns);
    parallel_for(
        groups_ * panels * taps_,
        [&](Index task) {
            const Index tap = task % taps_, index = task / taps_ % panels, group = task / taps_ / panels;
            const Bfloat *to = panel(group, index, nullptr) + tap * tap_size(index);
            pack_tap(group, index, tap, const_cast<Bfloat *>(to));
        },
        poll);
}

Index PackedPairs::panels_together() const {
    constexpr Index kRoom = 1 << 20;
    const Index tap = most_halves() * half() * Index{sizeof(Bfloat)};
    return taps_ * tap <= kCachedPanel ? 1 : std::max<Index>(1, kRoom / tap);
}

const Bfloat *PackedPairs::panel(Index group, Index index, Bfloat *room) const {
    if (data_)
        return data_->get() + group * group_size() + index * 2 * taps_ * half();
    for (Index tap = 0; tap < taps_; ++tap)
        pack_tap(group, index, tap, room + tap * tap_size(index));
    return room;
}

void make_pairs(const MatrixFunctions &unit, const float *rows, Index row, Index depth, Index columns, Index chunk,
                int planes, Bfloat *to) {
    const Index halves = ceil_div(columns, kMatrixHalf), half_size = chunk * kMatrixHalf, plane = halves * half_size;
    for (Index k = 0; k < depth; k += 2)
        for (Index half = 0; half < halves; ++half) {
            const float *const even = rows + k * row + half * kMatrixHalf;
            Bfloat *const pairs = to + k / chunk * planes * plane + half * half_size + k % chunk * kMatrixHalf;
            unit.pair(even, even + row, static_cast<int>(std::min<Index>(kMatrixHalf, columns - half * kMatrixHalf)),
                      planes, pairs, plane);
        }
}

void PackedPairs::pack_tap(Index group, Index index, Index tap, Bfloat *to) const {
    const Index columns = this->columns(index), depth = chunks_.depth();
    const Buffer<float> room(depth * columns);
    std::fill(room.get() + depth_ * columns, room.get() + depth * columns, 0.0f);
    const float *const rows = filter_.tap(group, index, tap, room.get());
    make_pairs(unit_, rows, columns, depth, columns, chunks_.each, planes_, to);
}

template <class T>
void load(Element element, Isa isa, const Place &place, Index rows, Index columns, T *to, Index to_row) {
    visit_as<T>(element, place.data,
                [&](const auto *data) { copy_matrix(isa, data, place.row, place.column, rows, columns, to, to_row); });
}

template <class T> void load(Element element, Isa isa, const View &view, const Box &box, const Window<T> &to) {
    const auto [heights, widths] = joined_rows(view, to, box);
    for (Index n = box[0].first; n < box[0].last; ++n)
        for (Index d = box[1].first; d < box[1].last; ++d)
            for (Index h = box[2].first; h < box[2].first + heights; ++h) {
                const Index cell[5] = {n, d, h, box[3].first, box[4].first};
                load(element, isa, {at(view, element, offset_of(view, cell)), view.stride[3], view.stride[4]}, widths,
                     box[4].count(), to.at(cell), to.stride[3]);
            }
}

namespace {

/// Gives the cells of a box that are not in the other one zeros.
void clear_around(const Box &box, const Box &inside, const Window<Bfloat> &to) {
    const auto clear = [&](Index n, Index d, Index h, Range cells) {
        if (cells.count() > 0)
            std::fill_n(to.at({n, d, h, cells.first, box[4].first}), cells.count() * to.stride[3], Bfloat{});
    };
    for (Index n = box[0].first; n < box[0].last; ++n)
        for (Index d = box[1].first; d < box[1].last; ++d)
            for (Index h = box[2].first; h < box[2].last; ++h) {
                const bool within =
                    d >= inside[1].first && d < inside[1].last && h >= inside[2].first && h < inside[2].last;
                // Of a box that misses the other one along the width, the other's end is beyond it.
                clear(n, d, h, {box[3].first, within ? std::min(inside[3].first, box[3].last) : box[3].last});
                if (within)
                    clear(n, d, h, {std::max(inside[3].last, box[3].first), box[3].last});
            }
}

} // namespace

void load_pairs(Element element, Isa isa, const View &view, const Box &all, Index chunk, const Window<Bfloat> &to) {
    Box box = all;
    for (std::size_t i : {1, 2, 3})
        box[i] = {std::clamp<Index>(all[i].first, 0, view.shape[i]), std::clamp<Index>(all[i].last, 0, view.shape[i])};
    if (cells_of(box) < cells_of(all))
        clear_around(all, box, to);
    const bool whole = element == Element::bfloat16;
    const Index planes = whole ? 1 : kPlanes, all_channels = box[4].count();
    // Else a chunk of channels is brought together and widened for all cells before the next: with channels first it is
    // cells that are neighbours in memory.
    const bool ready = element != Element::float16 && (view.stride[4] == 1 || all_channels == 1);
    const Index most = ready ? all_channels : std::min(chunk, all_channels);
    const Buffer<float> room(ready ? 1 : kPairCells * most);
    const auto load_row = [&](const Box &row, Index next) {
        const Index cells = row[3].count(), channels = row[4].count(), padded = ceil_div(channels, chunk) * chunk;
        const Index cell[5] = {row[0].first, row[1].first, row[2].first, row[3].first, row[4].first},
                    first[5] = {cell[0], cell[1], cell[2], cell[3], box[4].first};
        const void *from = at(view, element, offset_of(view, cell));
        Index step = view.stride[3];
        Bfloat *place = to.at(first) + (cell[4] - first[4]) * planes;
        if (!ready) {
            load(element, isa, view, row, window(room.get(), row));
            from = room.get();
            step = channels;
        }
        if (!whole)
            return matrix_functions(isa)->split(static_cast<const float *>(from), step, cells, channels, chunk, place,
                                                to.stride[3], chunk, ready ? next : 0);
        if (!ready)
            moves<Bfloat>(isa).store(room.get(), channels, cells, channels, place, to.stride[3], false);
        for (Index w = 0; w < cells; ++w, place += to.stride[3]) {
            if (ready)
                std::copy_n(static_cast<const Bfloat *>(from) + w * step, channels, place);
            std::fill_n(place + channels, padded - channels, Bfloat{});
        }
    };
    const auto [heights, widths] = joined_rows(view, to, box);
    for (Index n = box[0].first; n < box[0].last; ++n)
        for (Index d = box[1].first; d < box[1].last; ++d)
            for (Index c = box[4].first; c < box[4].last; c += most)
                for (Index h = box[2].first; h < box[2].first + heights; ++h)
                    for (Index w = 0; w < widths; w += kPairCells) {
                        const Index last = std::min(w + kPairCells, widths);
                        load_row({{{n, n + 1},
                                   {d, d + 1},
                                   {h, h + 1},
                                   {box[3].first + w, box[3].first + last},
                                   {c, std::min(c + most, box[4].last)}}},
                                 last < widths ? (last - w) * view.stride[3] : view.stride[2] - w * view.stride[3]);
                    }
}

template <class T>
void store(const T *sums, Index sums_row, Index rows, Index columns, Element element, Isa isa, const Place &place,
           bool streaming) {
    visit_as<T>(element, place.data, [&](const auto *data) {
        using S = std::remove_cvref_t<decltype(*data)>;
        S *to = const_cast<S *>(data);
        if constexpr (std::is_floating_point_v<T>) {
            if (place.column == 1 || columns == 1)
                return moves<S>(isa).store(sums, sums_row, rows, columns, to, place.row, streaming);
            if (place.row == 1)
                return store_transposed(isa, sums, sums_row, rows, columns, to, place.column, streaming);
        }
        if constexpr (std::is_floating_point_v<T> && !std::is_same_v<S, T>) {
            // Rounded by vectors, then dealt out.
            S piece[kPieceRows * kPieceColumns];
            for (Index r = 0; r < rows; r += kPieceRows)
                for (Index c = 0; c < columns; c += kPieceColumns) {
                    const Index height = std::min(kPieceRows, rows - r), width = std::min(kPieceColumns, columns - c);
                    moves<S>(isa).store(sums + r * sums_row + c, sums_row, height, width, piece, width, false);
                    scatter(piece, width, height, width, to + r * place.row + c * place.column, place);
                }
        } else
            scatter(sums, sums_row, rows, columns, to, place);
    });
}

template <class T>
void store(const Window<T> &from, const Box &box, const std::array<Index, 3> &step, Element element, Isa isa,
           const View &view) {
    const bool streaming = outgrows_caches(view, element), all = step == std::array<Index, 3>{1, 1, 1};
    const auto [heights, widths] = all ? joined_rows(view, from, box) : Rectangle{box[2].count(), box[3].count()};
    for (Index n = box[0].first; n < box[0].last; ++n)
        for (Index d = box[1].first; d < box[1].last; d += step[0])
            for (Index h = box[2].first; h < box[2].first + heights; h += step[1]) {
                const Index cell[5] = {n, d, h, box[3].first, box[4].first};
                store(from.at(cell), step[2] * from.stride[3], ceil_div(widths, step[2]), box[4].count(), element, isa,
                      {at(view, element, offset_of(view, cell)), step[2] * view.stride[3], view.stride[4]}, streaming);
            }
}

#define INSTANTIATE(T)                                                                                                 \
    template class Readable<T>;                                                                                        \
    template class PackedFilter<T>;                                                                                    \
    template void load(Element, Isa, const Place &, Index, Index, T *, Index);                                         \
    template void load(Element, Isa, const View &, const Box &, const Window<T> &);                                    \
    template void store(const Window<T> &, const Box &, const std::array<Index, 3> &, Element, Isa, const View &);     \
    template void store(const T *, Index, Index, Index, Element, Isa, const Place &, bool);
BACKSTRIDE_EACH_SUM(INSTANTIATE)
#undef INSTANTIATE

} // namespace backstride
