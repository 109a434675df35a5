// SPDX-License-Identifier: Apache-2.0
#include "lanes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "pack.h"

namespace backstride {
namespace {

// The rows of the source that a row of the result reads stay in a second-level cache.
constexpr Index kRingBytes = 384 << 10, kMostRingBytes = 2 << 20;
constexpr Index kFewestPositions = 64, kEnoughPositions = 160, kMostPositions = 4096;
constexpr Index kEnoughTasks = 32;
constexpr Index kLine = 64;

/// The streams along height or width. With s the stride, p the pad and q a position, stream j < s of position q is the
/// result's cell s * q + j - p, and its tap t, which is tap j + t * s of the filter, reads source cell q - t. So all
/// streams read the same cells, and all have the same taps but for the last one, which the first streams have.
///
/// With a dilation there is one stream instead, whose positions are p more than the cells, and whose taps are those of
/// the filter.
struct Streams {
    explicit Streams(const Axis &of)
        : axis(of), count(of.dilation == 1 ? of.stride : 1), taps(ceil_div(of.kernel, count)),
          last(of.kernel - (taps - 1) * count),
          positions{floor_div(of.pad, count), floor_div(of.output - 1 + of.pad, count) + 1} {}

    Index cell(Index position, Index stream) const { return position * count + stream - axis.pad; }
    /// The source cell that a tap reads, or -1.
    Index source(Index position, Index tap) const {
        const Index distance = (position - tap * axis.dilation) * count;
        return distance >= 0 && distance % axis.stride == 0 && distance / axis.stride < axis.input
                   ? distance / axis.stride
                   : -1;
    }

    const Axis axis;
    const Index count, taps, last; // how many streams, their taps, and how many streams have the last of these
    const Range positions;
};

/// How the result is cut.
struct Cut {
    Index streams, taps, last;          // along the width: streams, and streams of the last tap, with all columns
    Index rows, parts;                  // along the height: streams that are summed together, and how many such parts
    Index first, positions;             // of a row of the result
    Index images, pitch;                // rows of several images stand side by side, so far apart
    Index block, blocks;                // or else a long row is cut into blocks of positions
    Index slots[2], channel, slot_size; // the ring of source rows: along depth and height; in elements
    Index heights, height_blocks, image_blocks; // positions along the height
};

/// Rows of the source between the first and the last that one row of the result reads.
Index span(const Axis &axis) { return std::min(axis.input, (axis.kernel - 1) * axis.dilation / axis.stride + 1); }

/// How many of the streams along the height are summed together, each of which is `streams` along the width: pixels are
/// loaded once for all of them, as long as the registers have room for the sums of two vectors.
template <class T> Index rows_together(Isa isa, Index rows, Index streams) {
    Index together = 1;
    while (together < rows && (together + 1) * streams <= kMostStreams &&
           stripe_functions<T>(isa).vectors[(together + 1) * streams] >= 2)
        ++together;
    return ceil_div(rows, ceil_div(rows, together));
}

template <class T> Cut cut(const Plan &plan) {
    const Geometry &geometry = plan.geometry;
    const auto &[d, h, w] = geometry.axes;
    const Index columns = geometry.out_channels / geometry.groups, depth = geometry.in_channels / geometry.groups;
    constexpr Index size = sizeof(T);
    const Streams along(w), down(h);
    Cut cut{};
    cut.streams = along.count * columns;
    cut.taps = along.taps;
    cut.last = along.last * columns;
    cut.rows = rows_together<T>(plan.isa, down.count, cut.streams);
    cut.parts = ceil_div(down.count, cut.rows);
    cut.first = along.positions.first;
    cut.positions = along.positions.count();
    cut.slots[0] = span(d);
    cut.slots[1] = span(h);

    const Index slots = cut.slots[0] * cut.slots[1], line = kLine / size;
    const Index most = std::clamp(kRingBytes / (slots * depth * size), kFewestPositions, kMostPositions);
    cut.blocks = ceil_div(cut.positions, most);
    cut.block = ceil_div(cut.positions, cut.blocks);
    cut.pitch = cut.block + cut.taps - 1;
    const Index together =
        cut.blocks > 1 ? 1 : std::clamp<Index>(std::min(most, kEnoughPositions) / cut.pitch, 1, geometry.batch);
    cut.image_blocks = ceil_div(geometry.batch, together);
    cut.images = ceil_div(geometry.batch, cut.image_blocks);
    // An odd number of cache lines from channel to channel, for a vector that reads beyond the last position too.
    cut.channel = (ceil_div(cut.images * cut.pitch + line, line) | 1) * line;
    cut.slot_size = depth * cut.channel;

    const Index others = geometry.groups * cut.image_blocks * cut.blocks * d.output, heights = down.positions.count();
    const Index fewest = std::min(heights, 3 * cut.slots[1] * h.stride / down.count); // else rows are copied too often
    cut.heights = std::max(fewest, ceil_div(heights, ceil_div(kEnoughTasks, others)));
    cut.height_blocks = ceil_div(heights, cut.heights);
    return cut;
}

/// What lanes_fit asks of a layer, whatever its batch and lengths.
bool layer_fits(const Plan &plan) {
    const Element sum = sum_of(plan.element);
    const Axis &w = plan.geometry.axes[2];
    const Index columns = plan.geometry.out_channels / plan.geometry.groups;
    return plan.wrt == Operand::output && (sum == Element::float32 || sum == Element::float64) && w.dilation == 1 &&
           columns <= kMostStreams && w.stride <= kMostStreams / columns;
}

template <class T> class Lanes {
  public:
    Lanes(const Plan &plan, const View &source, const PackedStripes<T> &filter, const Epilogue<T> &epilogue,
          const View &target)
        : plan_(plan), source_(source), target_(target), filter_(filter), epilogue_(epilogue),
          functions_(stripe_functions<T>(plan.isa)), down_(plan.geometry.axes[1]), cut_(cut<T>(plan)),
          depth_(plan.geometry.in_channels / plan.geometry.groups),
          columns_(plan.geometry.out_channels / plan.geometry.groups) {}

    void run(Poll poll) const {
        const Index tasks = plan_.geometry.groups * cut_.image_blocks * cut_.blocks * plan_.geometry.axes[0].output *
                            cut_.height_blocks;
        const Index ring = Memory::rounded(cut_.slots[0] * cut_.slots[1] * cut_.slot_size * Index{sizeof(T)});
        plan_.workspace.admit(ring);
        parallel_for(tasks, [this](Index task) { compute(task); }, poll, plan_.workspace.threads(ring));
    }

  private:
    /// Where a source row is in the ring, and the taps along depth and height that read it.
    struct Row {
        Index offset, depth, tap;
    };

    /// What one task works on, and its ring of source rows with channels apart and pixels together.
    struct Work {
        Index group, image, images, position, positions, depth;
        Buffer<T> ring;
        std::vector<Index> held; // which source row each slot holds
        std::vector<Row> rows;
    };

    void compute(Index task) const {
        const auto &axes = plan_.geometry.axes;
        Index rest = task;
        const auto next = [&](Index count) {
            const Index index = rest % count;
            rest /= count;
            return index;
        };
        const Index height_block = next(cut_.height_blocks), depth = next(axes[0].output), block = next(cut_.blocks),
                    image = next(cut_.image_blocks) * cut_.images, group = rest;
        Work work{group,
                  image,
                  std::min(cut_.images, plan_.geometry.batch - image),
                  block * cut_.block,
                  std::min(cut_.block, cut_.positions - block * cut_.block),
                  depth,
                  Buffer<T>(cut_.slots[0] * cut_.slots[1] * cut_.slot_size),
                  std::vector<Index>(static_cast<std::size_t>(cut_.slots[0] * cut_.slots[1]), -1),
                  {}};
        const Index first = down_.positions.first + height_block * cut_.heights;
        const Index last = std::min(first + cut_.heights, down_.positions.last);
        for (Index position = first; position < last; ++position) {
            if (interrupted())
                return;
            gather_rows(work, position);
            for (Index part = 0; part < cut_.parts; ++part)
                compute_rows(work, position, {part * cut_.rows, std::min((part + 1) * cut_.rows, down_.count)});
        }
    }

    /// Lists the source rows that are read at this position along the height, after bringing them into the ring.
    void gather_rows(Work &work, Index position) const {
        const Axis &d = plan_.geometry.axes[0], &h = plan_.geometry.axes[1];
        work.rows.clear();
        for (Index kd = 0; kd < d.kernel; ++kd)
            if (const Index depth = source_cell(d, work.depth, kd); depth >= 0)
                for (Index tap = 0; tap < down_.taps; ++tap)
                    if (const Index height = down_.source(position, tap); height >= 0) {
                        const Index slot = depth % cut_.slots[0] * cut_.slots[1] + height % cut_.slots[1];
                        Index &held = work.held[static_cast<std::size_t>(slot)];
                        if (held != depth * h.input + height) {
                            copy_row(work, depth, height, work.ring.get() + slot * cut_.slot_size, held < 0);
                            held = depth * h.input + height;
                        }
                        work.rows.push_back({slot * cut_.slot_size, kd, tap});
                    }
    }

    /// The input cell that tap k connects with an output cell, or -1.
    static Index source_cell(const Axis &axis, Index output, Index k) {
        const Index distance = output + axis.pad - k * axis.dilation;
        return distance >= 0 && distance % axis.stride == 0 && distance / axis.stride < axis.input
                   ? distance / axis.stride
                   : -1;
    }

    /// A source row of each image, side by side: cell i stands at i - (first position - taps + 1), zeros beyond the
    /// edges.
    /// Those stay when another row of the task takes the place, so they are only written when it is `fresh`.
    void copy_row(const Work &work, Index depth, Index height, T *to, bool fresh) const {
        const Index before = cut_.first + work.position - (cut_.taps - 1);
        const Index first = std::max<Index>(before, 0);
        const Index last = std::min(before + cut_.pitch, plan_.geometry.axes[2].input);
        const Index cells = std::max<Index>(last - first, 0), left = std::min(first - before, cut_.pitch);
        for (Index n = 0; n < work.images; ++n) {
            T *image = to + n * cut_.pitch;
            const Index right = left + cells;
            const Index end = n + 1 < work.images ? cut_.pitch : cut_.channel - n * cut_.pitch;
            for (Index c = 0; c < depth_ && fresh; ++c) {
                std::fill(image + c * cut_.channel, image + c * cut_.channel + left, T{});
                std::fill(image + c * cut_.channel + right, image + c * cut_.channel + end, T{});
            }
            if (cells == 0)
                continue;
            const Index *stride = source_.stride;
            const Index offset = (work.image + n) * stride[0] + depth * stride[1] + height * stride[2] +
                                 first * stride[3] + work.group * depth_ * stride[4];
            visit(plan_.element, [&](auto value) {
                using S = decltype(value);
                if constexpr (std::is_same_v<typename Sum<S>::type, T>)
                    copy_matrix(plan_.isa, static_cast<const S *>(source_.data) + offset, stride[4], stride[3], depth_,
                                cells, image + left, cut_.channel);
            });
        }
    }

    /// Source rows, one after the other, whose taps the same streams have, so many along the height.
    struct Pass {
        Index streams;
        std::vector<Segment> segments;
    };

    /// What some streams sum, in the order of the taps. The first pass has all streams, if there is nothing to sum,
    /// too.
    std::vector<Pass> passes(const Work &work, Range streams) const {
        std::vector<Pass> passes = {{streams.count(), {}}};
        for (const Row &row : work.rows) {
            const Index most = row.tap + 1 < down_.taps ? down_.count : down_.last;
            const Index have = std::clamp<Index>(most - streams.first, 0, streams.count());
            if (have == 0)
                continue;
            if (have != passes.back().streams)
                passes.push_back({have, {}});
            passes.back().segments.push_back({row.offset, filter_.offset(row.depth, row.tap, streams.first)});
        }
        return passes;
    }

    /// Computes the rows of the result that some streams have at a position along the height.
    void compute_rows(const Work &work, Index position, Range streams) const {
        const Range rows = {0, plan_.geometry.axes[1].output};
        if (down_.cell(position, streams.last - 1) < rows.first || down_.cell(position, streams.first) >= rows.last)
            return;
        const Index positions = (work.images - 1) * cut_.pitch + work.positions;
        const Index width = functions_.width, vectors = ceil_div(positions, width);
        const Index pieces = ceil_div(vectors, functions_.vectors[cut_.rows * cut_.streams]);
        const std::vector<Pass> all = passes(work, streams);
        alignas(kLine) T sums[kMostScratch];
        for (Index piece = 0; piece < pieces; ++piece) {
            const Index first = piece * vectors / pieces * width, last = (piece + 1) * vectors / pieces * width;
            sum(work, all, {first, last}, sums);
            for (Index stream = streams.first; stream < streams.last; ++stream) {
                const Index row = down_.cell(position, stream), lanes = last - first;
                T *const of_row = sums + (stream - streams.first) * cut_.streams * lanes;
                if (row < rows.first || row >= rows.last)
                    continue;
                for (Index phase = 0; phase < cut_.streams / columns_; ++phase)
                    epilogue_.on_rows(of_row + phase * columns_ * lanes, lanes, columns_, lanes, work.group * columns_);
                write(work, row, of_row, first, std::min(last, positions));
            }
        }
    }

    /// Sums the passes in some lanes. A stream along the height has all its sums, along the width, together.
    void sum(const Work &work, const std::vector<Pass> &passes, Range lanes, T *sums) const {
        T *to[kMostStreams];
        Stripe<T> stripe{};
        stripe.a = work.ring.get() + lanes.first + cut_.taps - 1;
        stripe.a_step = cut_.channel;
        stripe.b = filter_.group(work.group);
        stripe.depth = depth_;
        stripe.taps = cut_.taps;
        stripe.c = to;
        for (const Pass &pass : passes) {
            const Index count = pass.streams * cut_.streams;
            for (Index n = 0; n < count; ++n)
                to[n] = sums + (n % pass.streams * cut_.streams + n / pass.streams) * lanes.count();
            stripe.segments = pass.segments.data();
            stripe.count = static_cast<Index>(pass.segments.size());
            stripe.last = static_cast<int>(pass.streams * cut_.last);
            functions_.sum[count][lanes.count() / functions_.width](stripe);
            stripe.continued = true;
        }
    }

    /// Stores the streams of positions [first, last) of the images side by side.
    void write(const Work &work, Index row, const T *sums, Index first, Index last) const {
        const Axis &w = plan_.geometry.axes[2];
        const Index *stride = target_.stride;
        const Index sums_row = ceil_div(last - first, functions_.width) * functions_.width;
        for (Index n = first / cut_.pitch; n * cut_.pitch < last; ++n) {
            const Index begin = std::max(first, n * cut_.pitch), end = std::min(last, n * cut_.pitch + work.positions);
            for (Index j = 0; j < w.stride && begin < end; ++j) {
                // Cell of lane m: origin + (m - begin) * stride.
                const Index origin = (cut_.first + work.position + begin - n * cut_.pitch) * w.stride + j - w.pad;
                const Index skip = std::max<Index>(0, ceil_div(-origin, w.stride));
                const Index count = std::min(end - begin, ceil_div(w.output - origin, w.stride)) - skip;
                if (count <= 0)
                    continue;
                const Index offset = (work.image + n) * stride[0] + work.depth * stride[1] + row * stride[2] +
                                     (origin + skip * w.stride) * stride[3] + work.group * columns_ * stride[4];
                for (Index o = 0; o < columns_; ++o)
                    store(sums + (j * columns_ + o) * sums_row + begin - first + skip, 0, 1, count, plan_.element,
                          plan_.isa, {at(target_, plan_.element, offset + o * stride[4]), 0, w.stride * stride[3]});
            }
        }
    }

    // Of the widest vectors; most_vectors() keeps streams times vectors within the registers.
    static constexpr Index kMostScratch = 32 * kLine / Index{sizeof(T)};

    const Plan &plan_;
    const View &source_, &target_;
    const PackedStripes<T> &filter_;
    const Epilogue<T> &epilogue_;
    const StripeFunctions<T> &functions_;
    const Streams down_;
    const Cut cut_;
    const Index depth_, columns_;
};

} // namespace

template <class T>
PackedStripes<T>::PackedStripes(const Plan &plan, const View &filter, Poll poll)
    : groups_(plan.geometry.groups), rows_(Streams(plan.geometry.axes[1]).count), height_(filter.shape[1]),
      row_(filter.shape[2] * filter.shape[3] * filter.shape[4] / groups_), group_(filter.shape[0] * height_ * row_),
      data_(groups_ * group_) {
    const Index depths = filter.shape[0], width = filter.shape[2], columns = filter.shape[3],
                depth = filter.shape[4] / groups_;
    const Streams down(plan.geometry.axes[1]), along(plan.geometry.axes[2]);
    const Index together = rows_together<T>(plan.isa, rows_, along.count * columns);
    const Index parts = ceil_div(std::min(rows_, height_), together); // the others have no taps
    visit(plan.element, [&](auto value) {
        using S = decltype(value);
        if constexpr (std::is_same_v<typename Sum<S>::type, T>) {
            const S *data = static_cast<const S *>(filter.data);
            parallel_for(
                groups_ * depths * down.taps * parts,
                [&](Index task) {
                    const Index part = task % parts, tap = task / parts % down.taps,
                                d = task / parts / down.taps % depths, group = task / parts / down.taps / depths;
                    const Index first = tap * rows_ + part * together;
                    const Index last = std::min({first + together, (tap + 1) * rows_, height_});
                    const S *from = data + d * filter.stride[0] + group * depth * filter.stride[4];
                    T *to = data_.get() + group * group_ + offset(d, tap, part * together);
                    for (Index t = 0; t < along.taps; ++t)
                        for (Index c = 0; c < depth; ++c)
                            for (Index w = t * along.count; w < std::min((t + 1) * along.count, width); ++w)
                                for (Index o = 0; o < columns; ++o)
                                    for (Index h = first; h < last; ++h)
                                        *to++ = widen(from[h * filter.stride[1] + w * filter.stride[2] +
                                                           o * filter.stride[3] + c * filter.stride[4]]);
                },
                poll);
        }
    });
}

template <class T> bool PackedStripes<T>::finite() const {
    return std::all_of(data_.get(), data_.get() + groups_ * group_, [](T weight) { return std::isfinite(weight); });
}

bool lanes_fit(const Plan &plan) {
    if (!layer_fits(plan))
        return false;
    const Index size = size_of(sum_of(plan.element));
    const Cut parts = size == 8 ? cut<double>(plan) : cut<float>(plan);
    return parts.slots[0] * parts.slots[1] <= kMostRingBytes / size / parts.slot_size;
}

double lanes_filled(const Plan &plan) {
    const bool wide = sum_of(plan.element) == Element::float64;
    const Index width = wide ? stripe_functions<double>(plan.isa).width : stripe_functions<float>(plan.isa).width;
    const Cut parts = wide ? cut<double>(plan) : cut<float>(plan);
    const Index used = parts.images * parts.block, pixels = ceil_div(parts.images * parts.pitch, width) * width;
    return static_cast<double>(used) / static_cast<double>(pixels);
}

template <class T>
void lanes(const Plan &plan, const View &source, const PackedStripes<T> &filter, const Epilogue<T> &epilogue,
           const View &target, Poll poll) {
    Lanes<T>(plan, source, filter, epilogue, target).run(poll);
}

#define INSTANTIATE(T)                                                                                                 \
    template class PackedStripes<T>;                                                                                   \
    template void lanes(const Plan &, const View &, const PackedStripes<T> &, const Epilogue<T> &, const View &, Poll);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

} // namespace backstride
