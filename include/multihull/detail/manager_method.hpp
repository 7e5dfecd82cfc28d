// How a C++ class is reached in a manager's server: its methods as functions over Objects, which travel to the server's process.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/callable.hpp>
#include <multihull/detail/manager_type.hpp>
#include <multihull/detail/token.hpp>
#include <multihull/future.hpp>
#include <multihull/object_conversion.hpp>

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {

/// Calls a method of an instance, or makes one: with as many arguments as it has parameters.
using MethodThunk = Reply (*)(void* instance, std::span<Object> args, CallContext& context);
using MakeThunk = std::shared_ptr<void> (*)(std::span<Object> args);

/// One method that clients may call. A function pointer and names: it travels to the server's process.
struct ManagerMethod {
    std::string name;
    std::vector<std::string> parameters;    ///< For arguments that are given by name.
    MethodThunk call;
    std::size_t parameter_count;
};
struct ManagerConstructor {
    std::vector<std::string> parameters;
    MakeThunk make;
    std::size_t parameter_count;
};

/// A class, as BaseManager::register_type() was given it.
struct RegisteredType {
    std::string name;
    ManagerConstructor constructor{};
    std::vector<ManagerMethod> methods{};
    bool thread_safe = false;
    bool keeps_proxies = true;
};

/// A function for updates in one step, as BaseManager::register_function() was given it.
using UpdateThunk = Object (*)(Object&& old, std::span<const Object> args);
struct RegisteredFunction {
    std::string name;
    UpdateThunk call;
};

/// One object for all clients, as BaseManager::register_object() was given it.
struct RegisteredObject {
    std::string name;
    std::string type;
    Object args;
};

/// The server's side of a registered class.
ManagerType manager_type_of(const RegisteredType& type);
/// The server's side of a registered object: a type of which there is one instance. Throws Error when nothing is registered as its type.
ManagerType manager_type_of(const RegisteredObject& object, const ManagerTypes& types);

template <class T>
inline constexpr bool kFuture = false;
template <class T>
inline constexpr bool kFuture<Future<T>> = true;

/// Lets the call wait for the future, and answers it then.
template <class T>
Reply answer_later(Future<T> future, CallContext& context) {
    std::shared_ptr<ParkedCall> parked = context.park(std::numeric_limits<std::int64_t>::max(), {});
    future.add_done_callback([parked](Future<T> done) {
        Answer answer;
        try {
            if constexpr (std::is_void_v<T>) {
                done.get();
                answer = Object();
            } else {
                answer = to_object(done.get());
            }
        } catch (...) {
            answer = std::current_exception();
        }
        if (parked->claim()) parked->answer(std::move(answer));
    });
    return Parked{};
}

template <class Call>
Reply reply_of(Call call, CallContext& context) {
    using Result = decltype(call());
    if constexpr (std::is_void_v<Result>) {
        call();
        return Object();
    } else if constexpr (kFuture<std::remove_cvref_t<Result>>) {
        return answer_later(call(), context);
    } else {
        return to_object(call());
    }
}

template <class Signature>
struct MethodCall;

template <class... P>
struct MethodCall<Parameters<P...>> {
    static constexpr std::size_t kCount = sizeof...(P);

    template <class Function>
    static auto call(Function&& function, [[maybe_unused]] std::span<Object> args) {
        (require_parameter<P>(), ...);
        return call_indexed(std::forward<Function>(function), args, std::index_sequence_for<P...>());
    }
    template <class T>
    static std::shared_ptr<void> make(std::span<Object> args) {
        return call(
            [](auto&&... values) -> std::shared_ptr<void> {
                return std::make_shared<T>(std::forward<decltype(values)>(values)...);
            },
            args);
    }

private:
    template <class Function, std::size_t... kIndex>
    static auto call_indexed(Function&& function, [[maybe_unused]] std::span<Object> args,
                             std::index_sequence<kIndex...>) {
        std::tuple<Holder<P>...> held{from_object<Holder<P>>(args[kIndex])...};
        return function(pass<P>(std::get<kIndex>(held))...);
    }
};

// The class and parameters of `&T::method`, or of a function whose first parameter is a T&.
template <class Function>
struct MethodSignature;
template <class C, class R, class... P>
struct MethodSignature<R (C::*)(P...)> {
    using Class = C;
    using Type = Parameters<P...>;
};
template <class C, class R, class... P>
struct MethodSignature<R (C::*)(P...) const> : MethodSignature<R (C::*)(P...)> {};
template <class C, class R, class... P>
struct MethodSignature<R (C::*)(P...) noexcept> : MethodSignature<R (C::*)(P...)> {};
template <class C, class R, class... P>
struct MethodSignature<R (C::*)(P...) const noexcept> : MethodSignature<R (C::*)(P...)> {};
template <class R, class C, class... P>
struct MethodSignature<R (*)(C&, P...)> : MethodSignature<R (std::remove_const_t<C>::*)(P...)> {};

template <class T, auto kMethod>
Reply call_method(void* instance, std::span<Object> args, CallContext& context) {
    using Signature = typename MethodSignature<decltype(kMethod)>::Type;
    return MethodCall<Signature>::call(
        [&](auto&&... values) {
            return reply_of(
                [&]() -> decltype(auto) {
                    return std::invoke(kMethod, *static_cast<T*>(instance), std::forward<decltype(values)>(values)...);
                },
                context);
        },
        args);
}

template <auto kFunction, class Signature = typename SignatureOf<decltype(kFunction)>::Type>
struct UpdateCall;
template <auto kFunction, class Old, class... P>
struct UpdateCall<kFunction, Parameters<Old, P...>> {
    static Object call(Object&& old, std::span<const Object> args) {
        if (args.size() != sizeof...(P)) throw_wrong_size(args.size(), sizeof...(P));
        return indexed(std::move(old), args, std::index_sequence_for<P...>());
    }

private:
    template <std::size_t... kIndex>
    static Object indexed(Object&& old, [[maybe_unused]] std::span<const Object> args, std::index_sequence<kIndex...>) {
        std::tuple<Holder<Old>, Holder<P>...> held{from_object<Holder<Old>>(old),
                                                   from_object<Holder<P>>(args[kIndex])...};
        return to_object(kFunction(pass<Old>(std::get<0>(held)), pass<P>(std::get<kIndex + 1>(held))...));
    }
};

}    // namespace detail

/// One method for BaseManager::register_type(): `method<&Counter::add>("add", {"amount"})`, or a function whose first parameter is a
/// `Counter&`. The parameters' names, where they are given, let Python pass arguments by name.
template <auto kMethod>
struct method {
    std::string name;
    std::vector<std::string> parameters{};

    // NOLINTNEXTLINE(google-explicit-constructor)
    method(std::string method_name, std::vector<std::string> parameter_names = {})
        : name(std::move(method_name)), parameters(std::move(parameter_names)) {}

    template <class T>
    void add_to(detail::RegisteredType& type) const {
        using Signature = typename detail::MethodSignature<decltype(kMethod)>::Type;
        type.methods.push_back({name, parameters, &detail::call_method<T, kMethod>, Signature::kCount});
    }
};

/// What clients make an instance of: `constructor<int, std::string>({"size", "name"})`. Without one: the default constructor.
template <class... P>
struct constructor {
    std::vector<std::string> parameters{};

    constructor(std::vector<std::string> parameter_names = {}) : parameters(std::move(parameter_names)) {}

    template <class T>
    void add_to(detail::RegisteredType& type) const {
        type.constructor = {parameters, &detail::MethodCall<detail::Parameters<P...>>::template make<T>, sizeof...(P)};
    }
};

namespace detail {

/// A function pointer of this program: as a token.
template <class Pointer>
void encode_pointer(Writer& writer, Pointer function) {
    writer.put(token_of(reinterpret_cast<const void*>(function)));
}
template <class Pointer>
Pointer decode_pointer(Reader& reader) {
    return reinterpret_cast<Pointer>(const_cast<void*>(code_of(reader.get<Token>())));
}

}    // namespace detail

template <>
struct Codec<detail::RegisteredType> {
    static void encode(detail::Writer& writer, const detail::RegisteredType& type);
    static detail::RegisteredType decode(detail::Reader& reader);
};
template <>
struct Codec<detail::RegisteredFunction> {
    static void encode(detail::Writer& writer, const detail::RegisteredFunction& function);
    static detail::RegisteredFunction decode(detail::Reader& reader);
};

}    // namespace multihull
