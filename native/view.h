// SPDX-License-Identifier: Apache-2.0
// Arrays as the core sees them: a pointer and five strides.
#pragma once

#include "element.h"

namespace backstride {

/// A five-dimensional strided array, strides counted in elements and of any sign. Inputs and outputs are
/// [batch, depth, height, width, channel] whatever their layout in memory; filters are
/// [depth, height, width, out channel, in channel]. Lower ranks have leading axes of length 1.
struct View {
    void *data;
    Index shape[5];
    Index stride[5];
};

/// Contiguous memory of the same shape.
inline View contiguous(View view, void *data) {
    view.data = data;
    Index step = 1;
    for (int i = 4; i >= 0; --i) {
        view.stride[i] = step;
        step *= view.shape[i];
    }
    return view;
}

/// The same, for arrays whose last axis is contiguous and whose elements are the kernels' own type.
template <class T> struct Rows {
    T *data;
    Index stride[4];
};

} // namespace backstride
