// SPDX-License-Identifier: Apache-2.0
// The one file that knows Python: check, view, let go of the GIL, call.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include <unistd.h>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "call.h"
#include "cost.h"
#ifdef BACKSTRIDE_JAX
#include "jax.h"
#endif
#include "memory.h"
#include "packed.h"
#include "plan.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace backstride {
namespace {

/// Takes the GIL, or never returns. While Python shuts down it ends threads that ask for the GIL by unwinding their
/// stacks, which frames of C++ do not survive; such a thread stops here instead and goes when the process does.
template <class Take> auto take_gil(Take take) {
    try {
        return take();
    } catch (...) {
        for (;;)
            pause();
    }
}

/// Does something long without the GIL.
template <class Work> void unlocked(Work work) {
    std::exception_ptr thrown;
    PyThreadState *const thread = PyEval_SaveThread();
    try {
        work();
    } catch (...) {
        thrown = std::current_exception();
    }
    take_gil([&] { PyEval_RestoreThread(thread); });
    if (thrown)
        std::rethrow_exception(thrown);
}

/// The Poll of calls from Python. What a signal handler raises stays set until the call returns.
bool signalled() {
    const PyGILState_STATE state = take_gil(PyGILState_Ensure);
    const bool raised = PyErr_CheckSignals() != 0;
    PyGILState_Release(state);
    return raised;
}

/// An array that Python lends while this lives, by its buffer protocol: in half the time that DLPack takes.
class Lent {
  public:
    Lent(nb::handle array, bool writable) {
        if (PyObject_GetBuffer(array.ptr(), &buffer_, writable ? PyBUF_STRIDED : PyBUF_STRIDED_RO) != 0)
            throw nb::python_error();
        bool whole = buffer_.ndim <= kMostDimensions; // strides, of elements
        for (int i = 0; whole && i < buffer_.ndim; ++i) {
            shape_[i] = buffer_.shape[i];
            stride_[i] = buffer_.strides[i] / buffer_.itemsize;
            whole = shape_[i] <= 1 || buffer_.strides[i] % buffer_.itemsize == 0;
        }
        if (!whole) {
            PyBuffer_Release(&buffer_);
            throw std::invalid_argument("array has too many dimensions or is not aligned");
        }
    }
    ~Lent() { PyBuffer_Release(&buffer_); }
    Lent(const Lent &) = delete;
    Lent &operator=(const Lent &) = delete;

    Array array() const {
        const auto dimensions = static_cast<std::size_t>(buffer_.ndim);
        return {buffer_.buf, {shape_, dimensions}, {stride_, dimensions}, Index{buffer_.itemsize}};
    }
    /// As the core sees it. Python has checked it; a slip there must not become a wild pointer.
    View view(const Call &call, Operand operand) const { return call.view(array(), operand); }

  private:
    static constexpr int kMostDimensions = 5;
    Py_buffer buffer_;
    Index shape_[kMostDimensions], stride_[kMostDimensions]; // in elements
};

class BoundPlan {
  public:
    BoundPlan(std::string_view wrt, std::string_view element, const std::vector<Index> &axes, Index batch,
              Index in_channels, Index out_channels, Index groups, bool channels_first, std::string_view precision,
              bool packed, std::string_view algorithm, std::string_view kernel, Index workspace, bool binding,
              std::string_view isa)
        : call_({wrt,
                 element,
                 axes,
                 batch,
                 in_channels,
                 out_channels,
                 groups,
                 channels_first,
                 precision,
                 packed,
                 algorithm,
                 kernel,
                 {workspace, binding},
                 isa}),
          packed_(packed) {}

    void run(nb::handle first, nb::handle second, nb::handle result, int borrowed) const {
        const Lent a(first, false), b(second, false), c(result, true);
        const View x = a.view(call_, call_.first()), y = b.view(call_, call_.second()), z = c.view(call_, plan().wrt);
        const Borrowed threads(borrowed);
        unlocked([&] { backstride::run(plan(), x, y, z, signalled); });
    }

    std::string_view kernel() const { return kernel_name(plan()); }
    std::string_view algorithm() const { return algorithm_name(plan()); }

    /// By the name of the algorithm, what the model expects of those that can compute it: nanoseconds of one thread.
    std::vector<std::pair<std::string_view, double>> costs() const {
        std::vector<std::pair<std::string_view, double>> result;
        for (const Algorithm algorithm : kAlgorithms) {
            Plan plan = call_.plan();
            plan.algorithm = algorithm;
            if (const double time = cost(plan, algorithm, packed_); std::isfinite(time))
                result.emplace_back(algorithm_name(plan), time);
        }
        return result;
    }
    const Call &call() const { return call_; }
    const Plan &plan() const { return call_.plan(); }

  private:
    Call call_;
    bool packed_;
};

/// A packed filter with bias and activation, for all plans that differ from this one in batch and lengths alone.
class BoundPacked {
  public:
    BoundPacked(const BoundPlan &bound, nb::handle filters, nb::handle bias, std::string_view activation,
                double parameter)
        : plan_(bound.plan()), packed_(pack(plan_, Lent(filters, false).view(bound.call(), Operand::filter), bias,
                                            named<Activation>(kActivationNames, activation), parameter)) {}

    void run(const BoundPlan &bound, nb::handle input, nb::handle result, int borrowed) const {
        if (!same_layer(bound.plan(), plan_))
            throw std::invalid_argument("the filter is packed for another layer");
        const Lent a(input, false), b(result, true);
        const View x = a.view(bound.call(), Operand::input), y = b.view(bound.call(), Operand::output);
        const Borrowed threads(borrowed);
        unlocked([&] { std::visit([&](const auto &packed) { packed.run(bound.plan(), x, y, signalled); }, packed_); });
    }

    /// Of those that may do the work; lengths decide which.
    std::vector<std::string_view> kernels() const {
        Plan plan = plan_;
        std::vector<std::string_view> names;
        for (const Algorithm algorithm :
             {Algorithm::tiles, Algorithm::lanes, Algorithm::merged, Algorithm::matrix, Algorithm::winograd}) {
            plan.algorithm = algorithm;
            if (std::visit([&](const auto &packed) { return packed.algorithm(plan); }, packed_) == algorithm)
                names.push_back(kernel_name(plan));
        }
        return names;
    }

    Index bytes() const {
        return std::visit([](const auto &packed) { return packed.bytes(); }, packed_);
    }

  private:
    using AnyPacked = std::variant<Packed<float>, Packed<double>, Packed<std::uint32_t>, Packed<std::uint64_t>>;

    static AnyPacked pack(const Plan &plan, const View &filter, nb::handle bias, Activation activation,
                          double parameter) {
        std::optional<Lent> row;
        if (!bias.is_none())
            row.emplace(bias, false);
        std::optional<AnyPacked> result;
        unlocked([&] {
            visit(plan.element, [&](auto value) {
                using S = decltype(value);
                using T = typename Sum<S>::type;
                Packed<T> packed(plan, filter, true, signalled);
                if (row || activation != Activation::none)
                    packed.epilogue = {*plan.kernel, activation, parameter,
                                       entries<S>(plan.isa, row, plan.geometry.out_channels)};
                result.emplace(std::move(packed));
            });
        });
        return *std::move(result);
    }

    /// A bias of elements S, in the type of the sums.
    template <class S>
    static std::vector<typename Sum<S>::type> entries(Isa isa, const std::optional<Lent> &bias, Index count) {
        std::vector<typename Sum<S>::type> result(static_cast<std::size_t>(count));
        if (!bias)
            return result;
        const Array row = bias->array();
        if (row.shape.size() != 1 || row.item_size != sizeof(S) || row.shape[0] != count)
            throw std::invalid_argument("bias does not match the plan's channels or element type");
        copy_matrix(isa, static_cast<const S *>(row.data), 0, row.stride[0], 1, count, result.data(), count);
        return result;
    }

    Plan plan_;
    AnyPacked packed_;
};

/// The complementary error function, which NumPy lacks, in place.
template <class T> void erfc(const nb::ndarray<T, nb::ndim<1>, nb::c_contig> &x) {
    unlocked(
        [&] { std::transform(x.data(), x.data() + x.size(), x.data(), [](T value) { return std::erfc(value); }); });
}

/// The best rate of float32 multiply-adds that all threads together reach, in operations per second: the best of
/// some 2 ms stretches, since other programs can only make it worse.
double fma_peak() {
    constexpr Index kStretches = 20, kBurstsPerThread = 32, kSteps = 10'000;
    double best = 0;
    for (Index stretch = 0; stretch < kStretches; ++stretch) {
        std::vector<double> operations(static_cast<std::size_t>(kBurstsPerThread * threads()));
        const auto burst = [&](Index i) { operations[static_cast<std::size_t>(i)] = fma_burst(active_isa(), kSteps); };
        const auto start = std::chrono::steady_clock::now();
        parallel_for(static_cast<Index>(operations.size()), burst, signalled);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        best = std::max(best, std::accumulate(operations.begin(), operations.end(), 0.0) / time.count());
    }
    return best;
}

} // namespace

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false); // a daemon thread's call may hold a plan while Python shuts down
    nb::register_exception_translator([](const std::exception_ptr &thrown, void *) {
        try {
            std::rethrow_exception(thrown);
        } catch (const Stopped &) {
            // What the signal handler raised is set already.
        }
    });

    m.doc() = "The compiled core of backstride: the three operations on arrays that the package has checked.";

    nb::class_<BoundPlan>(m, "Plan")
        .def(nb::init<std::string_view, std::string_view, const std::vector<Index> &, Index, Index, Index, Index, bool,
                      std::string_view, bool, std::string_view, std::string_view, Index, bool, std::string_view>(),
             "wrt"_a, "element"_a, "axes"_a, "batch"_a, "in_channels"_a, "out_channels"_a, "groups"_a,
             "channels_first"_a, "precision"_a = "strict", "packed"_a = false, "algorithm"_a = "", "kernel"_a = "",
             "workspace"_a = Workspace{}.bytes, "binding"_a = false, "isa"_a = "")
        .def("run", &BoundPlan::run, "first"_a, "second"_a, "result"_a, "borrowed"_a = 0)
        .def_prop_ro("kernel", &BoundPlan::kernel)
        .def_prop_ro("algorithm", &BoundPlan::algorithm)
        .def("costs", &BoundPlan::costs);

    nb::class_<BoundPacked>(m, "Packed")
        .def(nb::init<const BoundPlan &, nb::handle, nb::handle, std::string_view, double>(), "plan"_a, "filters"_a,
             "bias"_a.none(), "activation"_a, "parameter"_a)
        .def("run", &BoundPacked::run, "plan"_a, "input"_a, "result"_a, "borrowed"_a = 0)
        .def_prop_ro("kernels", &BoundPacked::kernels)
        .def_prop_ro("bytes", &BoundPacked::bytes);

    m.def("kernels", [] {
        nb::list result;
        for (const Kernel &kernel : kernels())
            if (kernel.isa <= best_isa())
                result.append(nb::make_tuple(kernel.name, kIsaNames[static_cast<int>(kernel.isa)],
                                             kElementNames[static_cast<int>(kernel.element)], kernel.rows,
                                             kernel.columns));
        for (const LayerKernel &kernel : layer_kernels())
            if (kernel.isa <= best_isa())
                result.append(nb::make_tuple(kernel.name, kIsaNames[static_cast<int>(kernel.isa)],
                                             kElementNames[static_cast<int>(kernel.element)], 0, 0));
        return result;
    });
    nb::list algorithms;
    for (const std::string_view name : kAlgorithmNames)
        algorithms.append(name);
    m.attr("ALGORITHMS") = nb::tuple(algorithms);
    nb::list isas;
    for (const std::string_view name : kIsaNames)
        isas.append(name);
    m.attr("ISAS") = nb::tuple(isas);
    m.def("isa", [] { return kIsaNames[static_cast<int>(active_isa())]; });
    m.def("lower_isa", [](std::string_view name) { lower_isa(named<Isa>(kIsaNames, name)); }, "name"_a);
    m.def("threads", threads);
    m.def("set_threads", set_threads, "count"_a);
    m.def("lend", [](std::uintptr_t crew) { lend(reinterpret_cast<Crew>(crew)); }, "crew"_a);
    m.def("physical_memory", physical_memory);
    m.def(
        "result",
        [](Index bytes) {
            auto memory = std::make_unique<Memory>(bytes);
            void *const data = memory->data();
            nb::capsule owner(memory.get(), [](void *of) noexcept { delete static_cast<Memory *>(of); });
            memory.release();
            return nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>(data, {static_cast<std::size_t>(bytes)}, owner);
        },
        "bytes"_a);
    m.def("release_results", Memory::release);
    m.def("erfc", erfc<float>, "x"_a.noconvert());
    m.def("erfc", erfc<double>, "x"_a.noconvert());
    m.def("xla_target", []() -> nb::object {
#ifdef BACKSTRIDE_JAX
        const XlaTarget target = xla_target();
        nb::dict stages;
        stages["instantiate"] = nb::capsule(target.instantiate);
        stages["execute"] = nb::capsule(target.execute);
        return nb::make_tuple(stages, nb::make_tuple(target.major, target.minor));
#else
        return nb::none();
#endif
    });
    m.def("fma_peak", [] {
        double rate;
        unlocked([&] { rate = fma_peak(); });
        return rate;
    });
}

} // namespace backstride
