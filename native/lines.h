// SPDX-License-Identifier: Apache-2.0
// How Winograd's algorithm cuts a layer into streams and tiles.
#pragma once

#include <algorithm>

#include "plan.h"

namespace backstride {

/// One axis of a layer, cut into streams, chunks and tiles.
///
/// With s the stride and p the pad, tap t of stream j < min(s, kernel) is filter cell j + t * s. The result's cell
/// s * q + j - p is stream j at position q, and reads source cells q, q - 1, q - 2 ... by its taps. In the input
/// gradient the source has the streams, and its cells s * (q + t) + j - p are read by the taps of stream j at
/// position q of the result.
///
/// Streams of more taps than the form has are a sum of chunks of as many, but for the last. Each reads source cells of
/// its own: it has its window on the taps, in which the last has zeros on both sides, if it has less by two.
class Line {
  public:
    Line(Operand wrt, const Axis &axis, Scheme::Along along)
        : axis_(axis), along_(along), transposed_(wrt == Operand::output), taps_(ceil_div(axis.kernel, axis.stride)),
          chunks_(ceil_div(taps_, form().taps)), full_(axis.kernel - (taps_ - 1) * axis.stride) {
        positions_ = {0, axis.input};
        if (transposed_) {
            // Later streams have earlier positions, but for a shift of those that are not full.
            positions_ = {axis.output, 0};
            for (const Index j : {Index{0}, full_ - 1, std::min(full_, streams() - 1), streams() - 1}) {
                const Index shift = shifted(j);
                positions_.first = std::min(positions_.first, ceil_div(axis.pad - j, axis.stride) + shift);
                positions_.last =
                    std::max(positions_.last, floor_div(axis.output - 1 + axis.pad - j, axis.stride) + shift + 1);
            }
        }
    }

    const Form &form() const { return along_.form(); }
    Index streams() const { return std::min(axis_.stride, axis_.kernel); }
    Index chunks() const { return chunks_; }
    Index tiles() const { return ceil_div(positions_.count(), form().cells()); }
    Index positions() const { return positions_.count(); }
    Index source_length() const { return transposed_ ? axis_.input : axis_.output; }
    Index target_length() const { return transposed_ ? axis_.output : axis_.input; }
    /// From a cell of a stream to the next.
    Index target_step() const { return transposed_ ? axis_.stride : 1; }

    /// Whether a chunk of a stream has products at this point: without its first tap it has none at 0, the first point,
    /// without its last none at infinity, the last.
    bool live(Index stream, Index chunk, Index point) const {
        const auto has = [&](Index n) { return filter_cell(stream, chunk, n) >= 0; };
        const Index last = form().taps - 1;
        if (point == 0)
            return has(0);
        if (point == form().points - 1)
            return has(last);
        Index n = 0;
        while (n < last && !has(n))
            ++n;
        return has(n);
    }
    /// How many chunks of all streams have.
    Index live(Index point) const {
        Index count = 0;
        for (Index chunk = 0; chunk < chunks_; ++chunk)
            count += live(0, chunk, point) * full_ + live(streams() - 1, chunk, point) * (streams() - full_);
        return count;
    }

    /// The filter cell of the n-th tap in a chunk of a stream, in the order of the source's cells; -1 is a zero.
    Index filter_cell(Index stream, Index chunk, Index n) const {
        const Index tap = window(chunk) + (transposed_ ? form().taps - 1 - n : n);
        const Index cell = stream + (tap - shifted(stream)) * axis_.stride;
        return tap >= chunk * form().taps && tap >= shifted(stream) && cell < axis_.kernel ? cell : -1;
    }

    /// The n-th source cell that a chunk reads for a tile; it may not exist.
    Index source_cell(Index stream, Index chunk, Index tile, Index n) const {
        const Index position = positions_.first + tile * form().cells() + n;
        return transposed_ ? position - form().taps + 1 - window(chunk)
                           : (position + window(chunk)) * axis_.stride + stream - axis_.pad;
    }

    /// The n-th cell of a tile of the result; it may not exist.
    Index target_cell(Index stream, Index tile, Index n) const {
        const Index position = positions_.first + tile * form().cells() + n;
        return transposed_ ? (position - shifted(stream)) * axis_.stride + stream - axis_.pad : position;
    }

    /// The source cells that tiles read, and the cells of the result that they have, as far as they exist. The latter
    /// are all streams of some positions: those that are shifted, if any are, and after them the others.
    Range source_cells(Range tiles) const {
        const Index first_chunk = transposed_ ? chunks_ - 1 : 0, last_chunk = transposed_ ? 0 : chunks_ - 1;
        const Index last = source_cell(transposed_ ? 0 : streams() - 1, last_chunk, tiles.last - 1, form().points - 1);
        return existing({source_cell(0, first_chunk, tiles.first, 0), last + 1}, source_length());
    }
    Range target_cells(Range tiles) const {
        const Index stream = transposed_ && along_.late && full_ < streams() ? full_ : 0;
        return existing({target_cell(stream, tiles.first, 0), target_cell(stream, tiles.last, 0)}, target_length());
    }

    /// How many cells of the source one tile reads at most, and how many of the result it makes.
    Index most_source_cells() const {
        const Index cells = form().points + window(chunks_ - 1);
        return transposed_ ? cells : (cells - 1) * axis_.stride + streams();
    }
    Index most_target_cells() const { return transposed_ ? (form().cells() + 1) * axis_.stride : form().cells(); }

  private:
    /// The first tap of a chunk's window.
    Index window(Index chunk) const {
        const Index missing = chunk == chunks_ - 1 ? chunks_ * form().taps - taps_ : 0;
        return chunk * form().taps - missing / 2;
    }
    Index shifted(Index stream) const { return along_.late && stream >= full_; }
    static Range existing(Range cells, Index length) {
        return {std::clamp<Index>(cells.first, 0, length), std::clamp<Index>(cells.last, 0, length)};
    }

    Axis axis_;
    Scheme::Along along_;
    bool transposed_;
    Index taps_, chunks_; // of the longest streams
    Index full_;          // streams with as many taps, which are the first
    Range positions_;
};

/// Both axes of a layer, whose streams, chunks, points and tiles are counted along the width first.
struct Lines {
    Lines(const Plan &plan, const Scheme &scheme)
        : transposed(plan.wrt != Operand::input), batch(plan.geometry.batch), depth(plan.geometry.axes[0].input),
          height(of(plan.wrt), plan.geometry.axes[1], scheme.axes[0]),
          width(of(plan.wrt), plan.geometry.axes[2], scheme.axes[1]) {}

    /// The operation whose streams and tiles these are: the filter gradient has those of the transposed convolution.
    static Operand of(Operand wrt) { return wrt == Operand::input ? wrt : Operand::output; }

    Index streams() const { return height.streams() * width.streams(); }
    Index chunks() const { return height.chunks() * width.chunks(); }
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

    /// Taps that read source cells of their own: a chunk of a stream.
    struct Piece {
        Index stream, chunk;
    };
    /// The pieces that the source is made points for: chunks serve all streams of the result, those of the source have
    /// their own.
    Index planes() const { return transposed ? chunks() : streams() * chunks(); }
    Piece piece(Index plane) const { return {plane / chunks(), plane % chunks()}; }
    Index plane(const Piece &piece) const { return transposed ? piece.chunk : piece.stream * chunks() + piece.chunk; }

    /// Whether a piece has a product at this point.
    bool live(const Piece &piece, Index point) const {
        return height.live(piece.stream / width.streams(), piece.chunk / width.chunks(), point / width.form().points) &&
               width.live(piece.stream % width.streams(), piece.chunk % width.chunks(), point % width.form().points);
    }
    /// How many have.
    Index live(Index point) const {
        return height.live(point / width.form().points) * width.live(point % width.form().points);
    }

    bool transposed;
    Index batch, depth;
    Line height, width;
};

} // namespace backstride
