// SPDX-License-Identifier: Apache-2.0
#include "geometry.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

namespace backstride {
namespace {

constexpr Index kNever = std::numeric_limits<Index>::max();

using Each = std::function<void(const Run &)>;

/// The runs of one phase of the output: the cells r, r + stride, r + 2 * stride ...
///
/// Cell q of phase r is reached by the taps j with r + pad - j * dilation divisible by the stride. With
/// g = gcd(stride, dilation) these are j0, j0 + stride/g, j0 + 2 * stride/g ..., and tap j0 + t * stride/g reads
/// input cell q + shift - t * step, where shift = (r + pad - j0 * dilation) / stride and step = dilation/g.
/// As q grows, both the first and the last tap whose input cell exists move up.
void phase_runs(const Axis &axis, Index j0, Range cells, const Each &each) {
    const Index g = std::gcd(axis.stride, axis.dilation);
    const Index step = axis.dilation / g, kernel_step = axis.stride / g;
    const Index taps = ceil_div(axis.kernel - j0, kernel_step);
    const Index shift = -floor_div(j0 * axis.dilation - axis.pad, axis.stride);
    const Index phase = j0 * axis.dilation - axis.pad + shift * axis.stride;
    const Index end = ceil_div(cells.last - phase, axis.stride);
    // Before cell -shift no tap's input exists.
    for (Index q = std::max({Index{0}, ceil_div(cells.first - phase, axis.stride), -shift}); q < end;) {
        const Index first = std::max<Index>(0, ceil_div(q + shift - (axis.input - 1), step));
        if (first >= taps)
            return;
        const Index last = std::min(taps - 1, floor_div(q + shift, step));
        const Index first_moves = first * step + axis.input - shift;
        const Index last_moves = last < taps - 1 ? (last + 1) * step - shift : kNever;
        const Index next = std::min({end, first_moves, last_moves});
        if (first <= last)
            each({phase + q * axis.stride, axis.stride, next - q, q + shift - first * step, 1, -step,
                  j0 + first * kernel_step, kernel_step, last - first + 1});
        q = next;
    }
}

void output_runs(const Axis &axis, Range cells, const Each &each) {
    // The first stride/g taps stand in different phases; the phases of no tap are reached by none.
    const Index phases = std::min(axis.kernel, axis.stride / std::gcd(axis.stride, axis.dilation));
    for (Index j0 = 0; j0 < phases; ++j0)
        phase_runs(axis, j0, cells, each);
}

/// Input cell i is reached by the taps j whose output cell i * stride + j * dilation - pad exists. As i grows,
/// both the first and the last of them move down.
void input_runs(const Axis &axis, Range cells, const Each &each) {
    for (Index i = cells.first; i < cells.last;) {
        const Index base = i * axis.stride - axis.pad;
        const Index first = std::max<Index>(0, ceil_div(-base, axis.dilation));
        const Index last = std::min(axis.kernel - 1, floor_div(axis.output - 1 - base, axis.dilation));
        if (last < 0)
            return;
        const Index first_moves = first > 0 ? ceil_div(axis.pad - (first - 1) * axis.dilation, axis.stride) : kNever;
        const Index last_moves = floor_div(axis.output - 1 + axis.pad - last * axis.dilation, axis.stride) + 1;
        const Index next = std::min({cells.last, first_moves, last_moves});
        if (first <= last)
            each(
                {i, 1, next - i, base + first * axis.dilation, axis.stride, axis.dilation, first, 1, last - first + 1});
        i = next;
    }
}

} // namespace

void each_run(Operand wrt, const Axis &axis, Range cells, const Each &each) {
    if (wrt == Operand::output)
        output_runs(axis, cells, each);
    else
        input_runs(axis, cells, each);
}

Reach reach(const Axis &axis, Index k) {
    const Index base = k * axis.dilation - axis.pad;
    const Index first = std::max<Index>(0, ceil_div(-base, axis.stride));
    const Index last = std::min(axis.input - 1, floor_div(axis.output - 1 - base, axis.stride));
    return {first, std::max<Index>(0, last - first + 1)};
}

double meetings(Axis axis) {
    // Cells and taps are alike in that, so it counts along whichever are fewer.
    if (axis.kernel > axis.input) {
        std::swap(axis.kernel, axis.input);
        std::swap(axis.dilation, axis.stride);
    }
    double result = 0;
    for (Index k = 0; k < axis.kernel; ++k)
        result += static_cast<double>(reach(axis, k).count);
    return result;
}

Along running_along(int axis) {
    Along along{axis, {}};
    for (int i = 0, n = 0; i < 4; ++i)
        if (i != axis)
            along.others[n++] = i;
    return along;
}

Along along_longest(const Index (&count)[4]) {
    int longest = 3;
    for (int i : {2, 1, 0})
        if (count[i] > count[longest])
            longest = i;
    return running_along(longest);
}

} // namespace backstride
