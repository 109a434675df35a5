// SPDX-License-Identifier: Apache-2.0
// The three operations as a target of XLA's foreign function interface. XLA asks for a state when it compiles or loads
// a computation, once for each place where it calls the target; so plans are made then, and a call only runs one.
#include "jax.h"

#include <array>
#include <exception>
#include <memory>
#include <new>
#include <string_view>

#include "xla/ffi/api/ffi.h"

#include "call.h"

namespace backstride {
namespace {

namespace ffi = xla::ffi;

struct State {
    static ffi::TypeId id;
    Call call;
};
ffi::TypeId State::id = {};
constexpr ffi::TypeInfo kStateInfo = ffi::MakeTypeInfo<State>();

/// An exception as an error of XLA, which no exception may pass through.
template <class Work> ffi::Error guarded(Work work) {
    try {
        work();
        return ffi::Error::Success();
    } catch (const std::bad_alloc &) {
        return {ffi::ErrorCode::kResourceExhausted, "backstride: out of memory"};
    } catch (const std::exception &error) {
        return ffi::Error::Internal(std::string("backstride: ") + error.what());
    }
}

ffi::ErrorOr<std::unique_ptr<State>> make_state(std::string_view wrt, std::string_view element,
                                                ffi::Span<const Index> axes, Index batch, Index in_channels,
                                                Index out_channels, Index groups, bool channels_first,
                                                std::string_view precision) {
    std::unique_ptr<State> state;
    const ffi::Error error = guarded([&] {
        state = std::make_unique<State>(State{Call({wrt,
                                                    element,
                                                    {axes.begin(), axes.size()},
                                                    batch,
                                                    in_channels,
                                                    out_channels,
                                                    groups,
                                                    channels_first,
                                                    precision})});
    });
    if (error.failure())
        return ffi::Unexpected(error);
    return state;
}

/// XLA's buffers lie as their dimensions say, the last one contiguous.
View view(const Call &call, const ffi::AnyBuffer &buffer, Operand operand) {
    constexpr std::size_t kMostDimensions = 5;
    const auto shape = buffer.dimensions();
    if (shape.size() > kMostDimensions)
        throw std::invalid_argument("array does not match the plan's rank");
    std::array<Index, kMostDimensions> stride{};
    Index step = 1;
    for (std::size_t i = shape.size(); i-- > 0; step *= shape[i])
        stride[i] = step;
    return call.view({buffer.untyped_data(),
                      {shape.begin(), shape.size()},
                      {stride.data(), shape.size()},
                      static_cast<Index>(ffi::ByteWidth(buffer.element_type()))},
                     operand);
}

ffi::Error execute(State *state, ffi::AnyBuffer first, ffi::AnyBuffer second, ffi::Result<ffi::AnyBuffer> result) {
    return guarded([&] {
        const Call &call = state->call;
        // XLA has no way to stop a computation that runs, so nobody is asked whether to.
        run(call.plan(), view(call, first, call.first()), view(call, second, call.second()),
            view(call, *result, call.plan().wrt), [] { return false; });
    });
}

XLA_FFI_DEFINE_HANDLER(kMakeState, make_state,
                       ffi::Ffi::BindInstantiate()
                           .Attr<std::string_view>("wrt")
                           .Attr<std::string_view>("element")
                           .Attr<ffi::Span<const Index>>("axes")
                           .Attr<Index>("batch")
                           .Attr<Index>("in_channels")
                           .Attr<Index>("out_channels")
                           .Attr<Index>("groups")
                           .Attr<bool>("channels_first")
                           .Attr<std::string_view>("precision"));
XLA_FFI_DEFINE_HANDLER(
    kExecute, execute,
    ffi::Ffi::Bind().Ctx<ffi::State<State>>().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>());

/// XLA asks every handler for its version when it registers it, and a handler that makes a state for the state's type,
/// which must be known by then. JAX registers types after handlers where no device is in use yet; so it is done here.
XLA_FFI_Error *instantiate(XLA_FFI_CallFrame *frame) {
    if (State::id == XLA_FFI_UNKNOWN_TYPE_ID)
        if (XLA_FFI_Error *const error =
                ffi::Ffi::RegisterTypeId(frame->api, "backstride_state", &State::id, &kStateInfo))
            return error;
    return kMakeState(frame);
}

} // namespace

XlaTarget xla_target() {
    return {reinterpret_cast<void *>(instantiate), reinterpret_cast<void *>(kExecute), XLA_FFI_API_MAJOR,
            XLA_FFI_API_MINOR};
}

} // namespace backstride
