// SPDX-License-Identifier: Apache-2.0
// Sizes of one transposed convolution, and which taps reach which positions.
#pragma once

#include <functional>

#include "element.h"

namespace backstride {

/// One spatial axis: output[i * stride + k * dilation - pad] += input[i] * filter[k].
struct Axis {
    Index input, kernel, output, stride, dilation, pad;
};

enum class Operand { input, filter, output };

struct Geometry {
    Index batch, in_channels, out_channels, groups;
    Axis axes[3];
};

/// Consecutive positions along one axis of the result which the same taps reach. Position m (0 <= m < count)
/// is result cell `target + m * target_step`; its tap t (0 <= t < taps) is filter cell `kernel + t * kernel_step`
/// and multiplies source cell `source + m * source_step + t * source_tap`.
struct Run {
    Index target, target_step, count;
    Index source, source_step, source_tap;
    Index kernel, kernel_step, taps;
};

/// Cells first, first + 1 ... last - 1.
struct Range {
    Index first, last;
    Index count() const { return last - first; }
};

/// Of each axis (batch, depth, height, width) the cells first, first + step ... below last.
struct Cells {
    Index first[4], last[4], step[4];
};

/// Calls `each` with the runs that make up these cells of the result's axis: every cell that any tap reaches is in
/// exactly one. `wrt` says what the result is: the output (source: input) or the input (source: output).
void each_run(Operand wrt, const Axis &axis, Range cells, const std::function<void(const Run &)> &each);

/// The input cells [first, first + count) which tap k connects to an output cell that exists.
struct Reach {
    Index first, count;
};
Reach reach(const Axis &axis, Index k);

/// Pairs of an input cell and a tap that meet an output cell that exists.
double meetings(Axis axis);

/// The axis that tiles run along, and the others in order.
struct Along {
    int axis, others[3];
};
Along running_along(int axis);
/// That of the greatest count, the last of equals.
Along along_longest(const Index (&count)[4]);

/// How far apart neighbours are in memory; 0 where one stands alone, since then the step may be of any size.
inline Index distance(Index count, Index step, Index stride) { return count > 1 ? step * stride : 0; }

inline Index floor_div(Index a, Index b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
inline Index ceil_div(Index a, Index b) { return -floor_div(-a, b); }

} // namespace backstride
