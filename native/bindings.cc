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
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "cost.h"
#include "memory.h"
#include "packed.h"
#include "plan.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace backstride {
namespace {

using In = nb::ndarray<nb::ro>;
using Out = nb::ndarray<>;

// The instruction set for plans that name no kernel. Changed while the package is imported, then left alone.
Isa active_isa = best_isa();

constexpr std::string_view kOperands[] = {"input", "filter", "output"};
constexpr std::string_view kElements[] = {"float16", "bfloat16", "float32", "float64",
                                          "uint8",   "uint16",   "uint32",  "uint64"};

/// The enumerator that has this name.
template <class E, std::size_t N> E named(const std::string_view (&names)[N], std::string_view name) {
    for (std::size_t i = 0; i < N; ++i)
        if (names[i] == name)
            return static_cast<E>(i);
    throw std::invalid_argument("unknown name: " + std::string(name));
}

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

class BoundPlan {
  public:
    BoundPlan(std::string_view wrt, std::string_view element, const std::vector<std::array<Index, 6>> &axes,
              Index batch, Index in_channels, Index out_channels, Index groups, bool channels_first,
              std::string_view precision, bool packed, std::string_view algorithm, std::string_view kernel,
              Index workspace, bool binding)
        : rank_(static_cast<int>(axes.size())), channels_first_(channels_first), packed_(packed) {
        if (rank_ < 1 || rank_ > 3)
            throw std::invalid_argument("the core has one to three spatial axes");
        Geometry geometry{batch, in_channels, out_channels, groups, {}};
        for (int i = 0; i < 3; ++i) {
            const int given = i - (3 - rank_);
            if (given < 0)
                geometry.axes[i] = {1, 1, 1, 1, 1, 0};
            else {
                const auto [input, kernel_size, output, stride, dilation, pad] = axes[static_cast<std::size_t>(given)];
                geometry.axes[i] = {input, kernel_size, output, stride, dilation, pad};
            }
        }
        plan_ = make_plan(named<Operand>(kOperands, wrt), named<Element>(kElements, element), geometry,
                          {kernel.empty() ? active_isa : best_isa(),
                           named<Precision>(kPrecisionNames, precision),
                           packed,
                           channels_first,
                           algorithm,
                           kernel,
                           {workspace, binding}});
    }

    void run(const In &first, const In &second, const Out &result) const {
        const Operand a = plan_.wrt == Operand::input ? Operand::filter : Operand::input;
        const Operand b = plan_.wrt == Operand::output ? Operand::filter : Operand::output;
        const View x = view(first, a), y = view(second, b), z = view(result, plan_.wrt);
        unlocked([&] { backstride::run(plan_, x, y, z, signalled); });
    }

    std::string_view kernel() const { return kernel_name(plan_); }
    std::string_view algorithm() const { return algorithm_name(plan_); }

    /// By the name of the algorithm, what the model expects of those that can compute it: nanoseconds of one thread.
    std::vector<std::pair<std::string_view, double>> costs() const {
        std::vector<std::pair<std::string_view, double>> result;
        for (const Algorithm algorithm : kAlgorithms) {
            Plan plan = plan_;
            plan.algorithm = algorithm;
            if (const double time = cost(plan, algorithm, packed_); std::isfinite(time))
                result.emplace_back(algorithm_name(plan), time);
        }
        return result;
    }
    const Plan &plan() const { return plan_; }

    /// The array in the core's order of axes. Python has checked it; a slip there must not become a wild pointer.
    template <class Array> View view(const Array &array, Operand operand) const {
        const bool filter = operand == Operand::filter;
        View view{const_cast<void *>(static_cast<const void *>(array.data())), {1, 1, 1, 1, 1}, {0, 0, 0, 0, 0}};
        if (static_cast<int>(array.ndim()) != rank_ + 2 ||
            array.itemsize() != static_cast<std::size_t>(size_of(plan_.element)))
            throw std::invalid_argument("array does not match the plan's rank or element type");
        for (int i = 0; i < rank_ + 2; ++i) {
            const int to = filter                               ? i + 3 - rank_
                           : channels_first_ && i == 1          ? 4
                           : i == 0                             ? 0
                           : i == rank_ + 1 && !channels_first_ ? 4
                                                                : i - channels_first_ + 3 - rank_;
            view.shape[to] = static_cast<Index>(array.shape(static_cast<std::size_t>(i)));
            view.stride[to] = array.stride(static_cast<std::size_t>(i));
        }
        const Geometry &g = plan_.geometry;
        for (int i = 0; i < 3; ++i) {
            const Axis &axis = g.axes[i];
            const Index expected = filter ? axis.kernel : operand == Operand::input ? axis.input : axis.output;
            if (view.shape[filter ? i : i + 1] != expected)
                throw std::invalid_argument("array does not match the plan's lengths");
        }
        const bool fits = filter ? view.shape[3] == g.out_channels / g.groups && view.shape[4] == g.in_channels
                                 : view.shape[0] == g.batch &&
                                       view.shape[4] == (operand == Operand::input ? g.in_channels : g.out_channels);
        if (!fits)
            throw std::invalid_argument("array does not match the plan's batch or channels");
        return view;
    }

  private:
    Plan plan_;
    int rank_;
    bool channels_first_, packed_;
};

/// A packed filter with bias and activation, for all plans that differ from this one in batch and lengths alone.
class BoundPacked {
  public:
    BoundPacked(const BoundPlan &bound, const In &filters, const std::optional<In> &bias, std::string_view activation,
                double parameter)
        : plan_(bound.plan()), packed_(pack(plan_, bound.view(filters, Operand::filter), bias,
                                            named<Activation>(kActivationNames, activation), parameter)) {}

    void run(const BoundPlan &bound, const In &input, const Out &result) const {
        if (!same_layer(bound.plan(), plan_))
            throw std::invalid_argument("the filter is packed for another layer");
        const View x = bound.view(input, Operand::input), y = bound.view(result, Operand::output);
        unlocked([&] { std::visit([&](const auto &packed) { packed.run(bound.plan(), x, y, signalled); }, packed_); });
    }

    /// Of those that may do the work; lengths decide which.
    std::vector<std::string_view> kernels() const {
        Plan plan = plan_;
        std::vector<std::string_view> names;
        for (const Algorithm algorithm : {Algorithm::tiles, Algorithm::lanes, Algorithm::merged, Algorithm::winograd}) {
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

    static AnyPacked pack(const Plan &plan, const View &filter, const std::optional<In> &bias, Activation activation,
                          double parameter) {
        std::optional<AnyPacked> result;
        unlocked([&] {
            visit(plan.element, [&](auto value) {
                using S = decltype(value);
                using T = typename Sum<S>::type;
                Packed<T> packed(plan, filter, true, signalled);
                if (bias || activation != Activation::none)
                    packed.epilogue = {*plan.kernel, activation, parameter,
                                       entries<S>(plan.isa, bias, plan.geometry.out_channels)};
                result.emplace(std::move(packed));
            });
        });
        return *std::move(result);
    }

    /// A bias of elements S, in the type of the sums.
    template <class S>
    static std::vector<typename Sum<S>::type> entries(Isa isa, const std::optional<In> &bias, Index count) {
        std::vector<typename Sum<S>::type> result(static_cast<std::size_t>(count));
        if (!bias)
            return result;
        if (bias->ndim() != 1 || bias->itemsize() != sizeof(S) || static_cast<Index>(bias->shape(0)) != count)
            throw std::invalid_argument("bias does not match the plan's channels or element type");
        copy_matrix(isa, static_cast<const S *>(bias->data()), 0, bias->stride(0), 1, count, result.data(), count);
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
        const auto burst = [&](Index i) { operations[static_cast<std::size_t>(i)] = fma_burst(active_isa, kSteps); };
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
        .def(nb::init<std::string_view, std::string_view, const std::vector<std::array<Index, 6>> &, Index, Index,
                      Index, Index, bool, std::string_view, bool, std::string_view, std::string_view, Index, bool>(),
             "wrt"_a, "element"_a, "axes"_a, "batch"_a, "in_channels"_a, "out_channels"_a, "groups"_a,
             "channels_first"_a, "precision"_a = "strict", "packed"_a = false, "algorithm"_a = "", "kernel"_a = "",
             "workspace"_a = Workspace{}.bytes, "binding"_a = false)
        .def("run", &BoundPlan::run, "first"_a.noconvert(), "second"_a.noconvert(), "result"_a.noconvert())
        .def_prop_ro("kernel", &BoundPlan::kernel)
        .def_prop_ro("algorithm", &BoundPlan::algorithm)
        .def("costs", &BoundPlan::costs);

    nb::class_<BoundPacked>(m, "Packed")
        .def(nb::init<const BoundPlan &, const In &, const std::optional<In> &, std::string_view, double>(), "plan"_a,
             "filters"_a.noconvert(), "bias"_a.noconvert().none(), "activation"_a, "parameter"_a)
        .def("run", &BoundPacked::run, "plan"_a, "input"_a.noconvert(), "result"_a.noconvert())
        .def_prop_ro("kernels", &BoundPacked::kernels)
        .def_prop_ro("bytes", &BoundPacked::bytes);

    m.def("kernels", [] {
        nb::list result;
        for (const Kernel &kernel : kernels())
            if (kernel.isa <= best_isa())
                result.append(nb::make_tuple(kernel.name, kIsaNames[static_cast<int>(kernel.isa)],
                                             kElements[static_cast<int>(kernel.element)], kernel.rows, kernel.columns));
        for (const LayerKernel &kernel : layer_kernels())
            if (kernel.isa <= best_isa())
                result.append(nb::make_tuple(kernel.name, kIsaNames[static_cast<int>(kernel.isa)],
                                             kElements[static_cast<int>(kernel.element)], 0, 0));
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
    m.def("isa", [] { return kIsaNames[static_cast<int>(active_isa)]; });
    m.def(
        "lower_isa", [](std::string_view name) { active_isa = std::min(active_isa, named<Isa>(kIsaNames, name)); },
        "name"_a);
    m.def("threads", threads);
    m.def("set_threads", set_threads, "count"_a);
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
    m.def("fma_peak", [] {
        double rate;
        unlocked([&] { rate = fma_peak(); });
        return rate;
    });
}

} // namespace backstride
