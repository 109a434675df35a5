// SPDX-License-Identifier: Apache-2.0
#include "points.h"

#include <atomic>

namespace backstride {

bool by_unit(const Plan &plan) {
    return sum_of(plan.element) == Element::float32 && plan.wrt != Operand::filter && matrix_functions(plan.isa) &&
           matrix_unit_granted();
}

namespace {

/// Transforms a filter and puts its values in order.
template <class T> class Packer {
    using Part = typename PackedPoints<T>::Part;

  public:
    Packer(const Plan &plan, const Scheme &scheme, const View &filter)
        : plan_(plan), filter_(filter), lines_(plan, scheme), channels_(plan), points_(lines_.points()),
          taps_(Index{lines_.height.form().taps} * lines_.width.form().taps), by_unit_(by_unit(plan)),
          chunks_(channels_.depth),
          width_(by_unit_ ? kMatrixColumns : choose_kernel(plan.isa, sum_of(plan.element), Division::kColumns).columns),
          transform_(combine_functions<T>(plan.isa).filter[scheme.axes[0].index][scheme.axes[1].index]) {}

    /// The parts of a group, which take `size` elements.
    std::vector<Part> cut(Index &size) const {
        const auto [all, streams, cuts] = Division(plan_, lines_, channels_);
        std::vector<Part> parts;
        for (Index stream = 0; stream < all; stream += streams)
            for (Index i = 0; i < cuts; ++i) {
                const Index first = cut_at(i, cuts), last = cut_at(i + 1, cuts);
                Part part{stream, std::min(streams, all - stream), first, last - first, 0, {}};
                const Index columns = by_unit_ ? whole_halves(part.channels) : part.channels;
                for (Index index = 0; index < points_; ++index) {
                    typename Part::Point point{size, 0, {}, {}};
                    for (Index n = 0; n < part.streams; ++n) {
                        bool live = false;
                        for (Index plane = 0; plane < lines_.planes(); ++plane)
                            if (lines_.live(lines_.transposed ? Lines::Piece{stream + n, plane} : lines_.piece(plane),
                                            index)) {
                                live = true;
                                if (std::ranges::find(point.planes, plane) == point.planes.end())
                                    point.planes.push_back(plane);
                            }
                        point.first_column.push_back(live ? point.columns : -1);
                        point.columns += live ? columns : 0;
                    }
                    part.most_columns = std::max(part.most_columns, point.columns);
                    size += point.columns * depth_size() * static_cast<Index>(point.planes.size());
                    part.points.push_back(std::move(point));
                }
                parts.push_back(std::move(part));
            }
        return parts;
    }

    /// Packs all groups to `to`; whether all values are finite.
    bool pack(const std::vector<Part> &parts, Index size, void *to, Poll poll) const {
        const Index out_channels = filter_.shape[3], in_channels = filter_.shape[4] / plan_.geometry.groups;
        const Index rows = ceil_div(out_channels, kRows), columns = ceil_div(in_channels, kChannels);
        const Index pieces = lines_.streams() * lines_.chunks();
        std::atomic<bool> finite = true;
        parallel_for(
            plan_.geometry.groups * pieces * rows * columns,
            [&](Index task) {
                const Index row = task / columns % rows * kRows, column = task % columns * kChannels;
                const Block block{task / columns / rows / pieces,
                                  lines_.piece(task / columns / rows % pieces),
                                  {row, std::min(row + kRows, out_channels)},
                                  {column, std::min(column + kChannels, in_channels)}};
                std::vector<T> values(static_cast<std::size_t>(points_ * kRows * kChannels));
                if (!transform(block, values.data()))
                    finite = false;
                for (Index point = 0; point < points_; ++point)
                    for (const Part &part : parts)
                        place(block, part, point, values.data() + point * kRows * kChannels, block.group * size, to);
            },
            poll);
        return finite;
    }

  private:
    static constexpr Index kRows = kHalfPanel, kChannels = 64;
    static constexpr T kZeros[kHalfPanel] = {};

    Index depth_size() const { return by_unit_ ? kPlanes * chunks_.depth() : channels_.depth; }
    Index cut_at(Index cut, Index cuts) const {
        return std::min(channels_.columns, whole_halves(cut * channels_.columns / cuts));
    }

    /// Up to kRows x kChannels filters of one piece: output channels and input channels of a group.
    struct Block {
        Index group;
        Lines::Piece piece;
        Range out, in;
    };

    /// The values at all points, in matrices of kRows x kChannels; whether they are finite.
    bool transform(const Block &block, T *values) const {
        std::vector<T> scratch(static_cast<std::size_t>((taps_ + 1) * kChannels));
        const T *const zeros = scratch.data() + taps_ * kChannels;
        const T *in[kMostPoints * kMostPoints];
        T *out[kMostPoints * kMostPoints];
        bool finite = true;
        const Line &height = lines_.height, &width = lines_.width;
        const auto [stream, chunk] = block.piece;
        for (Index row = 0; row < block.out.count(); ++row) {
            for (Index tap = 0; tap < taps_; ++tap) {
                const Index h =
                    height.filter_cell(stream / width.streams(), chunk / width.chunks(), tap / width.form().taps);
                const Index w =
                    width.filter_cell(stream % width.streams(), chunk % width.chunks(), tap % width.form().taps);
                in[tap] = zeros;
                if (h < 0 || w < 0)
                    continue;
                const Index channel = block.group * (filter_.shape[4] / plan_.geometry.groups) + block.in.first;
                const Index offset = h * filter_.stride[1] + w * filter_.stride[2] +
                                     (block.out.first + row) * filter_.stride[3] + channel * filter_.stride[4];
                T *const cell = scratch.data() + tap * kChannels;
                load(plan_.element, plan_.isa, {at(filter_, plan_.element, offset), 0, filter_.stride[4]}, 1,
                     block.in.count(), cell, kChannels);
                in[tap] = cell;
            }
            for (Index point = 0; point < points_; ++point)
                out[point] = values + (point * kRows + row) * kChannels;
            finite = transform_({in, out, block.in.count()}) && finite;
        }
        return finite;
    }

    /// Copies what a part has of a block's values at one point, which are zeros around those of the filter, to its
    /// panels in the group that begins with this element.
    void place(const Block &block, const Part &part, Index index, const T *values, Index first, void *to) const {
        const Index stream = lines_.transposed ? block.piece.stream - part.first_stream : 0;
        const auto &point = part.points[static_cast<std::size_t>(index)];
        const auto plane = std::ranges::find(point.planes, lines_.plane(block.piece));
        if (stream < 0 || stream >= part.streams || plane == point.planes.end())
            return;
        const Index own = point.first_column[static_cast<std::size_t>(stream)];
        if (own < 0)
            return;
        const Index segment = plane - point.planes.begin(), segments = static_cast<Index>(point.planes.size());
        const Range columns = lines_.transposed ? block.out : block.in;
        const Index last = std::min(columns.last, part.first_channel + part.channels);
        for (Index channel = std::max(columns.first, part.first_channel); channel < last;) {
            const Index column = own + channel - part.first_channel;
            const Index panel = column / width_ * width_, panel_columns = std::min(width_, point.columns - panel);
            const Index at = first + point.offset + (panel * segments + segment * panel_columns) * depth_size();
            const Columns some{channel - columns.first, std::min(last - channel, panel + panel_columns - column),
                               column - panel, panel_columns};
            if (by_unit_)
                pair(block, values, some, static_cast<Bfloat *>(to) + at);
            else
                copy(block, values, some, static_cast<T *>(to) + at);
            channel += some.count;
        }
    }

    /// Columns of a block, counted from its first, that have a place in a panel.
    struct Columns {
        Index first, count, place, of_panel;
    };
    void copy(const Block &block, const T *values, const Columns &columns, T *to) const {
        const Index depth = (lines_.transposed ? block.in : block.out).first;
        T *const at = to + depth * columns.of_panel + columns.place;
        if (lines_.transposed)
            moves<T>(plan_.isa).transpose(values + columns.first * kChannels, kChannels, columns.count,
                                          block.in.count(), at, columns.of_panel, false);
        else
            moves<T>(plan_.isa).load(values + columns.first, kChannels, block.out.count(), columns.count, at,
                                     columns.of_panel);
    }
    /// The same for a matrix unit, with zeros after the last columns and the last of the depth.
    void pair(const Block &block, const T *values, const Columns &columns, Bfloat *to) const {
        if constexpr (std::is_same_v<T, float>) {
            const MatrixFunctions &unit = *matrix_functions(plan_.isa);
            const Range depth = lines_.transposed ? block.in : block.out;
            const Index last = depth.last == channels_.depth ? chunks_.depth() : depth.last;
            const Index chunk = chunks_.each, plane = columns.of_panel * chunk;
            T turned[kChannels * kHalfPanel];
            for (Index column = 0; column < columns.count; column += kHalfPanel) {
                const T *rows = values + columns.first + column;
                Index row = kChannels, existing = kRows;
                if (lines_.transposed) {
                    moves<T>(plan_.isa).transpose(values + (columns.first + column) * kChannels, kChannels, kHalfPanel,
                                                  kChannels, turned, kHalfPanel, false);
                    rows = turned;
                    row = kHalfPanel;
                    existing = kChannels;
                }
                for (Index k = depth.first; k < last; k += 2) {
                    const T *const even = k - depth.first < existing ? rows + (k - depth.first) * row : kZeros;
                    const T *const odd = even == kZeros ? kZeros : even + row;
                    unit.pair(even, odd, kHalfPanel, kPlanes,
                              to + k / chunk * kPlanes * plane + (columns.place + column) * chunk +
                                  k % chunk * kHalfPanel,
                              plane);
                }
            }
        }
    }

    const Plan &plan_;
    const View &filter_;
    const Lines lines_;
    const Channels channels_;
    const Index points_, taps_;
    const bool by_unit_;
    const Chunks chunks_; // of the depth, for the unit
    const Index width_;   // of a panel
    const typename CombineFunctions<T>::Function transform_;
};

} // namespace

template <class T>
PackedPoints<T>::PackedPoints(const Plan &plan, const Scheme &scheme, const View &filter, Poll poll)
    : scheme_(scheme), by_unit_(backstride::by_unit(plan)),
      kernel_(&choose_kernel(plan.isa, sum_of(plan.element), Division::kColumns)), groups_(plan.geometry.groups) {
    const Packer<T> packer(plan, scheme, filter);
    parts_ = packer.cut(group_size_);
    data_.emplace(bytes());
    finite_ = packer.pack(parts_, group_size_, data_->get(), poll);
}

template class PackedPoints<float>;
template class PackedPoints<double>;

} // namespace backstride
