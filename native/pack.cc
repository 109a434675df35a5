// SPDX-License-Identifier: Apache-2.0
#include "pack.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/kernel.h"

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

} // namespace

template <class T> Readable<T>::Readable(const View &view, Element element, Poll poll) {
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
    visit_as<T>(element, view.data, [&](const auto *data) {
        parallel_for(
            batch * depth * height * pieces,
            [&](Index task) {
                const Index row = task / pieces, first = task % pieces * piece;
                const Index h = row % height, d = row / height % depth, n = row / height / depth;
                const Index *stride = view.stride;
                copy_matrix(data + n * stride[0] + d * stride[1] + h * stride[2] + first * stride[3], stride[3],
                            stride[4], std::min(piece, width - first), channels,
                            copy_->get() + (row * width + first) * channels, channels);
            },
            poll);
    });
}

template <class T>
PackedFilter<T>::PackedFilter(const View &filter, Element element, Index groups, int depth_axis, Index width, Isa isa)
    : filter_(filter), element_(element), depth_axis_(depth_axis), isa_(isa), groups_(groups),
      taps_(filter.shape[0] * filter.shape[1] * filter.shape[2]),
      depth_(depth_axis == 4 ? filter.shape[4] / groups : filter.shape[3]),
      columns_(depth_axis == 4 ? filter.shape[3] : filter.shape[4] / groups), width_(width) {}

template <class T> void PackedFilter<T>::pack(Poll poll) {
    data_.emplace(groups_ * taps_ * depth_ * columns_);
    const Index panels = (columns_ + width_ - 1) / width_;
    parallel_for(
        groups_ * panels * taps_,
        [&](Index task) {
            const Index tap = task % taps_, index = task / taps_ % panels, group = task / taps_ / panels;
            pack_tap(group, index, tap, const_cast<T *>(panel(group, index, nullptr)));
        },
        poll);
}

template <class T> const T *PackedFilter<T>::panel(Index group, Index index, T *room) const {
    if (data_)
        return data_->get() + (group * columns_ + index * width_) * taps_ * depth_;
    for (Index tap = 0; tap < taps_; ++tap)
        pack_tap(group, index, tap, room);
    return room;
}

template <class T> void PackedFilter<T>::pack_tap(Index group, Index index, Index tap, T *panel) const {
    const Index depth_stride = filter_.stride[depth_axis_], column_stride = filter_.stride[7 - depth_axis_];
    const Index w = tap % filter_.shape[2], h = tap / filter_.shape[2] % filter_.shape[1];
    const Index d = tap / filter_.shape[2] / filter_.shape[1];
    T *to = panel + tap * depth_ * columns(index);
    visit_as<T>(element_, filter_.data, [&](const auto *data) {
        const auto *from = data + d * filter_.stride[0] + h * filter_.stride[1] + w * filter_.stride[2] +
                           group * (filter_.shape[4] / groups_) * filter_.stride[4] + index * width_ * column_stride;
        if constexpr (std::is_floating_point_v<T> && std::is_same_v<decltype(from), const T *>)
            if (depth_stride == 1) {
                stripe_functions<T>(isa_).transpose(from, column_stride, columns(index), depth_, to, columns(index));
                return;
            }
        copy_matrix(from, depth_stride, column_stride, depth_, columns(index), to, columns(index));
    });
}

template <class T>
void store(const T *sums, Index sums_row, Index rows, Index columns, Element element, const Place &place) {
    visit_as<T>(element, place.data, [&](const auto *data) {
        using S = std::remove_cvref_t<decltype(*data)>;
        S *to = const_cast<S *>(data);
        if (std::abs(place.column) <= std::abs(place.row)) {
            for (Index r = 0; r < rows; ++r)
                for (Index c = 0; c < columns; ++c)
                    to[r * place.row + c * place.column] = narrow<S>(sums[r * sums_row + c]);
        } else {
            for (Index c = 0; c < columns; ++c)
                for (Index r = 0; r < rows; ++r)
                    to[r * place.row + c * place.column] = narrow<S>(sums[r * sums_row + c]);
        }
    });
}

#define INSTANTIATE(T)                                                                                                 \
    template class Readable<T>;                                                                                        \
    template class PackedFilter<T>;                                                                                    \
    template void store(const T *, Index, Index, Index, Element, const Place &);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(std::uint32_t)
INSTANTIATE(std::uint64_t)
#undef INSTANTIATE

} // namespace backstride
