// Delayed calls on their way to a worker process.
//
// Three ways: all that a call holds travels as bytes; or the worker is a snapshot of this program that has the function, at the same
// address, and only the arguments travel; or it has the whole call, and a number travels.
#pragma once

#include <multihull/delayed.hpp>
#include <multihull/detail/map.hpp>

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::detail {

template <class C>
class WireCall;

template <class F, class P>
inline constexpr bool kParametersTravel = false;
template <class F, class... P>
inline constexpr bool kParametersTravel<F, Parameters<P...>> = (Parameter<P> && ...);

template <class Value>
consteval bool result_travels() {
    if constexpr (std::is_void_v<Value>) {
        return true;
    } else {
        return Travels<Value>;
    }
}

/// What is known of a call's type when the program is compiled.
template <class C>
struct CallTraits;
template <class F, class... Args>
struct CallTraits<DelayedCall<F, Args...>> {
    using Call = DelayedCall<F, Args...>;
    static constexpr bool kArgumentsTravel = kParametersTravel<F, typename ParametersOf<F, Args...>::Type>;
    static constexpr bool kFunctionTravels = kTravellingCallable<F>;
    static constexpr bool kResultTravels = result_travels<typename Call::Value>();
    /// The function can travel to a snapshot that was taken before this call was made.
    static constexpr bool kPlainFunction = std::is_trivially_copyable_v<F>;

    // Whether what travels is called as the call itself is, and answers the same.
    static consteval bool same_result() {
        if constexpr (kArgumentsTravel) {
            return std::is_same_v<typename InvocationOf<F, Args...>::Value, typename Call::Value>;
        } else {
            return false;
        }
    }
    static constexpr bool kLazy = kArgumentsTravel && same_result();
    static constexpr bool kTravels = kFunctionTravels && kLazy;
};

template <class F, class... Args>
class WireCall<DelayedCall<F, Args...>> {
    using Call = DelayedCall<F, Args...>;
    using I = InvocationOf<F, Args...>;

public:
    using Holders = typename I::Holders;

    /// `by_address`: the worker has the function where it is here.
    WireCall(Call call, bool by_address) : call_(std::move(call)), by_address_(by_address) {}

    typename I::Result run() { return I::call(function_ != nullptr ? *function_ : *own_, *arguments_); }

    void encode_to(Writer& writer) {
        F& function = call_->function().get();
        if constexpr (kTravellingCallable<F>) {
            encode_callable(writer, function);
        } else {
            writer.put(static_cast<std::uint8_t>(by_address_));
            if (by_address_) {
                writer.put(reinterpret_cast<std::uintptr_t>(std::addressof(function)));
            } else if constexpr (CallTraits<Call>::kPlainFunction) {
                writer.write(std::addressof(function), sizeof(F));
            }
        }
        Holders holders = make_input<Holders, true>(std::move(call_->arguments()));
        encode(writer, holders);
    }
    static WireCall decode_from(Reader& reader) {
        WireCall call;
        if constexpr (kTravellingCallable<F>) {
            call.own_.emplace(decode_callable<F>(reader));
        } else if (reader.get<std::uint8_t>() != 0) {
            call.function_ = reinterpret_cast<F*>(reader.get<std::uintptr_t>());
        } else if constexpr (CallTraits<Call>::kPlainFunction) {
            alignas(F) std::byte bytes[sizeof(F)];
            std::memcpy(bytes, reader.view(sizeof(F)).data(), sizeof(F));
            call.own_.emplace(*std::launder(reinterpret_cast<F*>(bytes)));
        }
        call.arguments_.emplace(I::decode_arguments(reader));
        return call;
    }

private:
    WireCall() = default;

    // Here.
    std::optional<Call> call_;
    bool by_address_ = false;
    // There.
    std::optional<F> own_;
    F* function_ = nullptr;
    std::optional<typename I::Arrived> arguments_;
};

/// Runs a call that has travelled.
template <class C>
struct RunWireCall {
    typename C::Value operator()(WireCall<C> call) const { return call.run(); }
};

/// Runs one of the calls that a snapshot has.
template <class C>
struct RunPreparedCall {
    std::uint64_t calls;    // the address of a std::vector<C>

    typename C::Value operator()(std::uint64_t index) const {
        return std::move((*reinterpret_cast<std::vector<C>*>(calls))[index])();
    }
};

template <class F, class... Args>
struct CallableInside<RunWireCall<DelayedCall<F, Args...>>> {
    using Type = F;
};
template <class F, class... Args>
struct CallableInside<RunPreparedCall<DelayedCall<F, Args...>>> {
    using Type = F;
};

template <class C>
std::uint64_t address_of(std::vector<C>& calls) noexcept {
    return reinterpret_cast<std::uintptr_t>(&calls);
}

}    // namespace multihull::detail

namespace multihull {

template <class C>
struct Codec<detail::WireCall<C>> {
    static void encode(detail::Writer& writer, detail::WireCall<C>& call) { call.encode_to(writer); }
    static detail::WireCall<C> decode(detail::Reader& reader) { return detail::WireCall<C>::decode_from(reader); }
};

}    // namespace multihull
