// SPDX-License-Identifier: Apache-2.0
// What is done to sums while they are in the cache: a bias for each channel, and an activation.
#pragma once

#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/kernel.h"

namespace backstride {

/// T is the type of the sums, which are rounded to that of the result after this.
template <class T> class Epilogue {
  public:
    /// Leaves sums as they are.
    Epilogue() = default;

    /// `bias` has an entry for each channel of the result. The functions are those of the kernel's instruction set.
    Epilogue(const Kernel &kernel, Activation activation, double parameter, std::vector<T> bias)
        : function_(functions<T>(kernel).epilogue[static_cast<int>(activation)]), parameter_(parameter),
          bias_(std::move(bias)) {
        if (!function_)
            throw std::invalid_argument("these elements have no such activation");
    }

    /// Whether it leaves sums as they are.
    bool empty() const { return !function_; }

    /// That of a layer which has all channels so many times.
    Epilogue repeated(Index times) const {
        Epilogue result = *this;
        for (Index i = 1; i < times; ++i)
            result.bias_.insert(result.bias_.end(), bias_.begin(), bias_.end());
        return result;
    }

    /// Of a matrix whose columns are the channels from `channel` on.
    void on_columns(T *c, Index c_row, Index rows, Index columns, Index channel) const {
        if (function_)
            function_({c, c_row, rows, columns, bias_.data() + channel, 0, 1, parameter_});
    }

    /// Of a matrix whose rows are.
    void on_rows(T *c, Index c_row, Index rows, Index columns, Index channel) const {
        if (function_)
            function_({c, c_row, rows, columns, bias_.data() + channel, 1, 0, parameter_});
    }

  private:
    void (*function_)(const Sums<T> &) = nullptr;
    double parameter_ = 0;
    std::vector<T> bias_;
};

} // namespace backstride
