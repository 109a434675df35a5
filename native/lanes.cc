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
constexpr Index kFewestPositions = 64, kEnoughPositions = 512, kMostPositions = 4096;
constexpr Index kEnoughTasks = 32;
constexpr Index kLine = 64;

/// How the result is cut. Along the width, with s the stride, p the pad and q a position, stream j < s of position q is
/// the result's cell s * q + j - p, and its tap t, which is tap j + t * s of the filter, reads source cell q - t. So
/// all streams read the same cells, and all have the same taps but for the last one, which the first streams have.
struct Cut {
    Index streams, taps, last;          // per position: streams, and streams of the last tap, of one group
    Index first, positions;             // of a row of the result
    Index images, pitch;                // rows of several images stand side by side, so far apart
    Index block, blocks;                // or else a long row is cut into blocks of positions
    Index slots[2], channel, slot_size; // the ring of source rows: along depth and height; in elements
    Index rows, row_blocks, image_blocks;
};

/// Rows of the source between the first and the last that one row of the result reads.
Index span(const Axis &axis) { return std::min(axis.input, (axis.kernel - 1) * axis.dilation / axis.stride + 1); }

Cut cut(const Geometry &geometry, Index size) {
    const auto &[d, h, w] = geometry.axes;
    const Index columns = geometry.out_channels / geometry.groups, depth = geometry.in_channels / geometry.groups;
    Cut cut{};
    cut.streams = w.stride * columns;
    cut.taps = ceil_div(w.kernel, w.stride);
    cut.last = (w.kernel - (cut.taps - 1) * w.stride) * columns;
    cut.first = ceil_div(w.pad - w.stride + 1, w.stride);
    cut.positions = floor_div(w.output - 1 + w.pad, w.stride) - cut.first + 1;
    cut.slots[0] = span(d);
    cut.slots[1] = span(h);

    const Index slots = cut.slots[0] * cut.slots[1], line = kLine / size;
    const Index most = std::clamp(kRingBytes / (slots * depth * size), kFewestPositions, kMostPositions);
    cut.blocks = ceil_div(cut.positions, most);
    cut.block = ceil_div(cut.positions, cut.blocks);
    cut.pitch = cut.block + cut.taps - 1;
    cut.images =
        cut.blocks > 1 ? 1 : std::clamp<Index>(std::min(most, kEnoughPositions) / cut.pitch, 1, geometry.batch);
    cut.image_blocks = ceil_div(geometry.batch, cut.images);
    // An odd number of cache lines from channel to channel, for vectors that read beyond the last position too.
    cut.channel = (ceil_div(cut.images * cut.pitch + kMostVectors * line, line) | 1) * line;
    cut.slot_size = depth * cut.channel;

    const Index others = geometry.groups * cut.image_blocks * cut.blocks * d.output;
    const Index fewest = std::min(h.output, 2 * h.stride * cut.slots[1]); // else rows are copied too often
    cut.rows = std::max(fewest, ceil_div(h.output, ceil_div(kEnoughTasks, others)));
    cut.row_blocks = ceil_div(h.output, cut.rows);
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
          functions_(stripe_functions<T>(plan.isa)), cut_(cut(plan.geometry, sizeof(T))),
          depth_(plan.geometry.in_channels / plan.geometry.groups),
          columns_(plan.geometry.out_channels / plan.geometry.groups) {}

    void run(Poll poll) const {
        const Index tasks =
            plan_.geometry.groups * cut_.image_blocks * cut_.blocks * plan_.geometry.axes[0].output * cut_.row_blocks;
        const Index ring = Memory::rounded(cut_.slots[0] * cut_.slots[1] * cut_.slot_size * Index{sizeof(T)});
        plan_.workspace.admit(ring);
        parallel_for(tasks, [this](Index task) { compute(task); }, poll, plan_.workspace.threads(ring));
    }

  private:
    /// What one task works on, and its ring of source rows with channels apart and pixels together.
    struct Work {
        Index group, image, images, position, positions, depth;
        Buffer<T> ring;
        std::vector<Index> held; // which source row each slot holds
        std::vector<Segment> segments;
    };

    void compute(Index task) const {
        const auto &axes = plan_.geometry.axes;
        Index rest = task;
        const auto next = [&](Index count) {
            const Index index = rest % count;
            rest /= count;
            return index;
        };
        const Index row_block = next(cut_.row_blocks), depth = next(axes[0].output), block = next(cut_.blocks),
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
        const Index first = row_block * cut_.rows, last = std::min(first + cut_.rows, axes[1].output);
        for (Index row = first; row < last; ++row) {
            if (interrupted())
                return;
            gather_rows(work, row);
            compute_row(work, row);
        }
    }

    /// Lists the source rows that this row of the result reads, with their taps, after bringing them into the ring.
    void gather_rows(Work &work, Index row) const {
        const Axis &d = plan_.geometry.axes[0], &h = plan_.geometry.axes[1];
        work.segments.clear();
        for (Index kd = 0; kd < d.kernel; ++kd)
            if (const Index depth = source_cell(d, work.depth, kd); depth >= 0)
                for (Index kh = 0; kh < h.kernel; ++kh)
                    if (const Index height = source_cell(h, row, kh); height >= 0) {
                        const Index slot = depth % cut_.slots[0] * cut_.slots[1] + height % cut_.slots[1];
                        Index &held = work.held[static_cast<std::size_t>(slot)];
                        if (held != depth * h.input + height) {
                            copy_row(work, depth, height, work.ring.get() + slot * cut_.slot_size, held < 0);
                            held = depth * h.input + height;
                        }
                        work.segments.push_back({slot * cut_.slot_size, kd * h.kernel + kh});
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

    void compute_row(const Work &work, Index row) const {
        const Index positions = (work.images - 1) * cut_.pitch + work.positions;
        const Index width = functions_.width, vectors = ceil_div(positions, width);
        const Index pieces = ceil_div(vectors, functions_.vectors[cut_.streams]);
        alignas(kLine) T scratch[kMostScratch];
        Stripe<T> stripe{};
        stripe.a_step = cut_.channel;
        stripe.b = filter_.group(work.group);
        stripe.b_segment = filter_.segment_size();
        stripe.segments = work.segments.data();
        stripe.count = static_cast<Index>(work.segments.size());
        stripe.depth = depth_;
        stripe.taps = cut_.taps;
        stripe.last = static_cast<int>(cut_.last);
        stripe.c = scratch;
        for (Index piece = 0; piece < pieces; ++piece) {
            const Index first = piece * vectors / pieces * width, last = (piece + 1) * vectors / pieces * width;
            stripe.a = work.ring.get() + first + cut_.taps - 1;
            stripe.c_row = last - first;
            functions_.sum[cut_.streams][(last - first) / width](stripe);
            for (Index phase = 0; phase < cut_.streams / columns_; ++phase)
                epilogue_.on_rows(scratch + phase * columns_ * stripe.c_row, stripe.c_row, columns_, stripe.c_row,
                                  work.group * columns_);
            write(work, row, scratch, first, std::min(last, positions));
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
    const Cut cut_;
    const Index depth_, columns_;
};

} // namespace

template <class T>
PackedStripes<T>::PackedStripes(const Plan &plan, const View &filter, Poll poll)
    : groups_(plan.geometry.groups), rows_(filter.shape[0] * filter.shape[1]),
      segment_(filter.shape[2] * filter.shape[3] * filter.shape[4] / groups_), data_(groups_ * rows_ * segment_) {
    const Index kh = filter.shape[1], kw = filter.shape[2], columns = filter.shape[3],
                depth = filter.shape[4] / groups_;
    const Index stride = plan.geometry.axes[2].stride, taps = ceil_div(kw, stride);
    visit(plan.element, [&](auto value) {
        using S = decltype(value);
        if constexpr (std::is_same_v<typename Sum<S>::type, T>) {
            const S *data = static_cast<const S *>(filter.data);
            parallel_for(
                groups_ * rows_,
                [&](Index task) {
                    const Index group = task / rows_, d = task % rows_ / kh, h = task % kh;
                    const S *row =
                        data + d * filter.stride[0] + h * filter.stride[1] + group * depth * filter.stride[4];
                    T *to = data_.get() + task * segment_;
                    for (Index t = 0; t < taps; ++t)
                        for (Index c = 0; c < depth; ++c)
                            for (Index w = t * stride; w < std::min((t + 1) * stride, kw); ++w)
                                for (Index o = 0; o < columns; ++o)
                                    *to++ =
                                        widen(row[w * filter.stride[2] + o * filter.stride[3] + c * filter.stride[4]]);
                },
                poll);
        }
    });
}

template <class T> bool PackedStripes<T>::finite() const {
    return std::all_of(data_.get(), data_.get() + groups_ * rows_ * segment_,
                       [](T weight) { return std::isfinite(weight); });
}

bool lanes_fit(const Plan &plan) {
    if (!layer_fits(plan))
        return false;
    const Index size = size_of(sum_of(plan.element));
    const Cut parts = cut(plan.geometry, size);
    return parts.slots[0] * parts.slots[1] <= kMostRingBytes / size / parts.slot_size;
}

double lanes_filled(const Plan &plan) {
    const bool wide = sum_of(plan.element) == Element::float64;
    const Index width = wide ? stripe_functions<double>(plan.isa).width : stripe_functions<float>(plan.isa).width;
    const Cut parts = cut(plan.geometry, size_of(sum_of(plan.element)));
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
