// SPDX-License-Identifier: Apache-2.0
// One of the three operations at fixed sizes.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "geometry.h"
#include "kernels/kernel.h"
#include "memory.h"
#include "threads.h"
#include "view.h"

namespace backstride {

/// How far results may be from those of plain sums: bit for bit the same; at most 1.25 times their rounding error, in
/// the root of the mean square; at most 4 times.
enum class Precision { strict, standard, fast };
constexpr std::string_view kPrecisionNames[] = {"strict", "default", "fast"};

/// How a result is computed: tiles of channels by gather.h or, of the filter, by outer.h; with pixels in the lanes; tap
/// by tap by scatter.h; by tiles of phases and channels; the filter with several taps in one tile; by a matrix unit; by
/// Winograd's algorithm.
enum class Algorithm { tiles, lanes, scatter, merged, taps, matrix, winograd };
constexpr std::string_view kAlgorithmNames[] = {"tiles",  "lanes",     "scatter",   "merged",   "taps",
                                                "matrix", "winograd3", "winograd4", "winograd6"};

constexpr Algorithm kAlgorithms[] = {Algorithm::tiles, Algorithm::lanes,  Algorithm::scatter, Algorithm::merged,
                                     Algorithm::taps,  Algorithm::matrix, Algorithm::winograd};

/// How Winograd's algorithm computes a layer. Along an axis with stride s, stream j < min(s, kernel) has taps j, j + s,
/// j + 2 * s ... of the filter. Streams of one tap less than the form has are given a zero, as the first or, if they
/// are `late`, as the last that is read: so their products vanish at one point, 0 or infinity, and are left out.
struct Scheme {
    struct Along {
        int index; // of its form
        bool late;
        const Form &form() const { return kForms[index]; }
    };
    Along axes[2]; // height and width
};

/// What a call needs to know besides its arrays: the derivative by `wrt` of F(input, filter, output), see Axis, and
/// how to compute it. Bits depend on the geometry, the element type, the instruction set and the algorithm.
struct Plan {
    Operand wrt;
    Element element;
    Geometry geometry;
    const Kernel *kernel;
    const Kernel *tail; // for the last panel of columns, which is narrower
    Isa isa;
    Precision precision = Precision::strict;
    bool channels_first = false; // whether that is how input and output are in memory
    bool channelwise = false;    // whether every channel has a filter of its own, so that channels are columns
    Algorithm algorithm = Algorithm::tiles;
    bool fixed = false;                // whether the algorithm was asked for, rather than chosen by its cost
    std::optional<Scheme> scheme = {}; // of Winograd's algorithm, if the layer has one, used or not
    Workspace workspace = {};
};

/// Channels of one group: those that are summed over, and those of the result.
struct Channels {
    explicit Channels(const Plan &plan);
    Index depth, columns;
};

/// The element type of sums of `element`.
Element sum_of(Element element);

/// What a plan may depend on besides the sizes.
struct Choice {
    Isa isa;
    Precision precision;
    bool packed; // whether the filter is packed already
    bool channels_first;
    // Unless they are empty, this algorithm or this kernel is taken whatever the cost, where it can be.
    std::string_view algorithm, kernel;
    Workspace workspace = {};
};
Plan make_plan(Operand wrt, Element element, const Geometry &geometry, const Choice &choice);

/// The plan by tiles of another geometry, whose channels may be others.
Plan tiled(const Plan &plan, const Geometry &geometry);

/// Whether a filter that is packed for all sizes is packed for this algorithm, too: if it is the best for large ones.
bool packs_for_any_sizes(const Plan &plan, Algorithm algorithm);

/// One of kAlgorithmNames.
std::string_view algorithm_name(const Plan &plan);

/// The name of the kernel that does the work.
std::string_view kernel_name(const Plan &plan);

/// Whether two plans differ in batch, lengths and what follows from them alone.
bool same_layer(const Plan &a, const Plan &b);

/// Computes `result` from the two other operands, in the order input, filter, output. No array may be empty.
/// Throws Stopped if `poll` stopped it, std::bad_alloc if memory is short; the result is then undefined.
void run(const Plan &plan, const View &first, const View &second, const View &result, Poll poll);

} // namespace backstride
