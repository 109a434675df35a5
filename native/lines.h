// SPDX-License-Identifier: Apache-2.0
// How Winograd's algorithm cuts a layer into streams and tiles.
#pragma once

#include <algorithm>

#include "plan.h"

namespace backstride {

/// One axis of a layer, cut into streams and tiles.
///
/// With s the stride and p the pad, tap t of stream j < min(s, kernel) is filter cell j + t * s. The result's cell
/// s * q + j - p is stream j at position q, and reads source cells q, q - 1, q - 2 ... by its taps. In the input
/// gradient the source has the streams, and its cells s * (q + t) + j - p are read by the taps of stream j at
/// position q of the result.
class Line {
  public:
    Line(Operand wrt, const Axis &axis, Scheme::Along along)
        : axis_(axis), along_(along), transposed_(wrt == Operand::output),
          full_(std::clamp<Index>(axis.kernel - (form().taps - 1) * axis.stride, 0, streams())) {
        positions_ = {0, axis.input};
        if (transposed_) {
            // Later streams have earlier positions, but for a shift of those that are not full.
            positions_ = {axis.output, 0};
            for (const Index j : {Index{0}, full_ - 1, full_, streams() - 1}) {
                if (j < 0 || j >= streams())
                    continue;
                const Index shift = shifted(j);
                positions_.first = std::min(positions_.first, ceil_div(axis.pad - j, axis.stride) + shift);
                positions_.last =
                    std::max(positions_.last, floor_div(axis.output - 1 + axis.pad - j, axis.stride) + shift + 1);
            }
        }
    }

    const Form &form() const { return along_.form(); }
    Index streams() const { return std::min(axis_.stride, axis_.kernel); }
    Index tiles() const { return ceil_div(positions_.count(), form().cells()); }
    Index positions() const { return positions_.count(); }
    Index source_length() const { return transposed_ ? axis_.input : axis_.output; }
    Index target_length() const { return transposed_ ? axis_.output : axis_.input; }
    /// From a cell of a stream to the next.
    Index target_step() const { return transposed_ ? axis_.stride : 1; }

    /// Whether a stream has products at this point: all but those whose first or last tap is zero have at every one.
    bool live(Index stream, Index point) const {
        return stream < full_ || point != (along_.late ? form().points - 1 : 0);
    }
    /// How many streams have.
    Index live(Index point) const { return live(full_, point) ? streams() : full_; }

    /// The filter cell of a stream's n-th tap, in the order of the source's cells; -1 is a zero.
    Index filter_cell(Index stream, Index n) const {
        const Index tap = transposed_ ? form().taps - 1 - n - shifted(stream) : n;
        const Index cell = stream + tap * axis_.stride;
        return tap >= 0 && cell < axis_.kernel ? cell : -1;
    }

    /// The n-th source cell of a tile; it may not exist.
    Index source_cell(Index stream, Index tile, Index n) const {
        const Index position = positions_.first + tile * form().cells() + n;
        return transposed_ ? position - form().taps + 1 : position * axis_.stride + stream - axis_.pad;
    }

    /// The n-th cell of a tile of the result; it may not exist.
    Index target_cell(Index stream, Index tile, Index n) const {
        const Index position = positions_.first + tile * form().cells() + n;
        return transposed_ ? (position - shifted(stream)) * axis_.stride + stream - axis_.pad : position;
    }

    /// The source cells that tiles read, and the cells of the result that they have, as far as they exist. The latter
    /// are all streams of some positions: those that are shifted, if any are, and after them the others.
    Range source_cells(Range tiles) const {
        const Index last = source_cell(transposed_ ? 0 : streams() - 1, tiles.last - 1, form().points - 1);
        return existing({source_cell(0, tiles.first, 0), last + 1}, source_length());
    }
    Range target_cells(Range tiles) const {
        const Index stream = transposed_ && along_.late && full_ < streams() ? full_ : 0;
        return existing({target_cell(stream, tiles.first, 0), target_cell(stream, tiles.last, 0)}, target_length());
    }

    /// How many cells of the source one tile reads at most, and how many of the result it makes.
    Index most_source_cells() const {
        return transposed_ ? form().points : (form().points - 1) * axis_.stride + streams();
    }
    Index most_target_cells() const { return transposed_ ? (form().cells() + 1) * axis_.stride : form().cells(); }

  private:
    Index shifted(Index stream) const { return along_.late && stream >= full_; }
    static Range existing(Range cells, Index length) {
        return {std::clamp<Index>(cells.first, 0, length), std::clamp<Index>(cells.last, 0, length)};
    }

    Axis axis_;
    Scheme::Along along_;
    bool transposed_;
    Index full_; // streams with as many taps as the form, which are the first
    Range positions_;
};

/// Both axes of a layer, whose streams, points and tiles are counted along the width first.
struct Lines {
    Lines(const Plan &plan, const Scheme &scheme)
        : batch(plan.geometry.batch), depth(plan.geometry.axes[0].input),
          height(of(plan.wrt), plan.geometry.axes[1], scheme.axes[0]),
          width(of(plan.wrt), plan.geometry.axes[2], scheme.axes[1]) {}

    /// The operation whose streams and tiles these are: the filter gradient has those of the transposed convolution.
    static Operand of(Operand wrt) { return wrt == Operand::input ? wrt : Operand::output; }

    Index streams() const { return height.streams() * width.streams(); }
    Index points() const { return Index{height.form().points} * width.form().points; }
    /// Of one plane, and of all planes of all images.
    Index tiles() const { return height.tiles() * width.tiles(); }
    Index all_tiles() const { return batch * depth * tiles(); }

    /// Where a tile is.
    struct Place {
        Index image, depth, height, width;
    };
    Place place(Index tile) const {
        const Index plane = tile / tiles();
        return {plane / depth, plane % depth, tile % tiles() / width.tiles(), tile % width.tiles()};
    }

    /// Whether cells of the height and the width exist.
    bool source_has(Index h, Index w) const {
        return h >= 0 && h < height.source_length() && w >= 0 && w < width.source_length();
    }
    bool target_has(Index h, Index w) const {
        return h >= 0 && h < height.target_length() && w >= 0 && w < width.target_length();
    }

    /// Whether a stream has a product at this point.
    bool live(Index stream, Index point) const {
        return height.live(stream / width.streams(), point / width.form().points) &&
               width.live(stream % width.streams(), point % width.form().points);
    }
    /// How many streams have.
    Index live(Index point) const {
        return height.live(point / width.form().points) * width.live(point % width.form().points);
    }

    Index batch, depth;
    Line height, width;
};

} // namespace backstride
