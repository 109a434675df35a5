// SPDX-License-Identifier: Apache-2.0
// The filter gradient: for every tap, the sum over pixels of outer products of output and input channels.
#pragma once

#include "plan.h"

namespace backstride {

/// `input` and `output` are the factors, `filter` is the result. T is the type of the sums.
template <class T> void outer(const Plan &plan, const View &input, const View &output, const View &filter, Poll poll);

/// How many pixels' products make one chain of additions in a matrix of so many rows and columns, of elements of so
/// many bytes. Chains are added up in memory.
Index chain(Index rows, Index columns, Index size);

/// Adds up `shares` contiguous filters of sums, always in the same order, and stores the result.
template <class T> void add_up(const Plan &plan, T *sums, Index shares, const View &filter, Poll poll);

} // namespace backstride
