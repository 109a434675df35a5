// SPDX-License-Identifier: Apache-2.0
// The core as Python and XLA call it: sizes by number, choices by name, arrays of one to three spatial axes.
#pragma once

#include <span>
#include <stdexcept>
#include <string>

#include "plan.h"

namespace backstride {

/// An array of a caller: where it is, its lengths, its strides and the size of its elements, in bytes.
struct Array {
    void *data;
    std::span<const Index> shape, stride; // strides in elements
    Index item_size;
};

constexpr std::string_view kOperandNames[] = {"input", "filter", "output"};
constexpr std::string_view kElementNames[] = {"float16", "bfloat16", "float32", "float64",
                                              "uint8",   "uint16",   "uint32",  "uint64"};

/// The enumerator that has this name.
template <class E, std::size_t N> E named(const std::string_view (&names)[N], std::string_view name) {
    for (std::size_t i = 0; i < N; ++i)
        if (names[i] == name)
            return static_cast<E>(i);
    throw std::invalid_argument("unknown name: " + std::string(name));
}

/// What a caller says of a plan.
struct Description {
    std::string_view wrt, element;
    std::span<const Index> axes; // of each axis: input, kernel, output, stride, dilation, pad
    Index batch, in_channels, out_channels, groups;
    bool channels_first;
    std::string_view precision;
    bool packed = false;
    std::string_view algorithm = {}, kernel = {};
    Workspace workspace = {};
    std::string_view isa = {};
};

/// A plan, and how the arrays of its callers lie. It is for the instruction set in use, unless a kernel or another set
/// is named; of one that the machine lacks, the richest that it has stands in.
class Call {
  public:
    explicit Call(const Description &description);

    /// `array` in the core's order of axes; throws if it is not of the plan's shape and element size.
    View view(const Array &array, Operand operand) const;

    /// The operands that the derivative takes, in their order.
    Operand first() const { return plan_.wrt == Operand::input ? Operand::filter : Operand::input; }
    Operand second() const { return plan_.wrt == Operand::output ? Operand::filter : Operand::output; }

    const Plan &plan() const { return plan_; }

  private:
    Plan plan_;
    int rank_;
    bool channels_first_;
};

} // namespace backstride
