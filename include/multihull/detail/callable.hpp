// Calls that travel: a function, its arguments, and the thunk that runs them in another process.
//
// Templates turn values into bytes and back; everything else is compiled once.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/task_context.hpp>
#include <multihull/detail/token.hpp>

#include <functional>
#include <memory>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::detail {

template <class T>
inline constexpr bool kFunctionPointer = std::is_pointer_v<T> && std::is_function_v<std::remove_pointer_t<T>>;

template <class F>
inline constexpr bool kEmptyCallable = std::is_class_v<F> && std::is_empty_v<F> && std::is_default_constructible_v<F>;

// How a callable travels: as a token, as nothing at all, or as a value of its own.
template <class F>
consteval void require_callable() {
    if constexpr (!kFunctionPointer<F> && !kEmptyCallable<F>) {
        static_assert(
            Travels<F>,
            "multihull: this callable can't travel to another process: a closure with captures (or std::function, or a "
            "bound member function) refers to this process's memory; pass what it captures as arguments, make it a "
            "struct whose fields can travel, or use multihull::Parallel, whose workers start from a snapshot");
    }
}

template <class F>
inline constexpr bool kTravellingCallable = kFunctionPointer<F> || kEmptyCallable<F> || Travels<F>;

template <class F>
void encode_callable(Writer& writer, const F& function) {
    if constexpr (kFunctionPointer<F>) {
        writer.put(token_of(reinterpret_cast<const void*>(function)));
    } else if constexpr (!kEmptyCallable<F>) {
        encode(writer, function);
    }
}

template <class F>
F decode_callable(Reader& reader) {
    if constexpr (kFunctionPointer<F>) {
        return reinterpret_cast<F>(const_cast<void*>(code_of(decode<Token>(reader))));
    } else if constexpr (kEmptyCallable<F>) {
        return F{};
    } else {
        return decode<F>(reader);
    }
}

template <class... P>
struct Parameters {
    static constexpr std::size_t kCount = sizeof...(P);
};

template <class T>
struct SignatureOf {};
template <class R, class... P>
struct SignatureOf<R (*)(P...)> {
    using Type = Parameters<P...>;
};
template <class R, class... P>
struct SignatureOf<R (*)(P...) noexcept> {
    using Type = Parameters<P...>;
};
template <class C, class R, class... P>
struct SignatureOf<R (C::*)(P...)> : SignatureOf<R (*)(P...)> {};
template <class C, class R, class... P>
struct SignatureOf<R (C::*)(P...) const> : SignatureOf<R (*)(P...)> {};
template <class C, class R, class... P>
struct SignatureOf<R (C::*)(P...) noexcept> : SignatureOf<R (*)(P...)> {};
template <class C, class R, class... P>
struct SignatureOf<R (C::*)(P...) const noexcept> : SignatureOf<R (*)(P...)> {};

// The parameters of a callable called with these arguments: its own where it has one signature, else what the arguments decay to.
template <class F, class... Args>
struct ParametersOf {
    using Type = Parameters<std::decay_t<Args>...>;
};
template <class F, class... Args>
    requires(kFunctionPointer<F> && SignatureOf<F>::Type::kCount == sizeof...(Args))
struct ParametersOf<F, Args...> {
    using Type = typename SignatureOf<F>::Type;
};
template <class F, class... Args>
    requires(std::is_class_v<F> && requires { &F::operator(); } &&
             SignatureOf<decltype(&F::operator())>::Type::kCount == sizeof...(Args))
struct ParametersOf<F, Args...> {
    using Type = typename SignatureOf<decltype(&F::operator())>::Type;
};

// Gives a travelled value to its parameter: views look at it, everything else takes it.
template <class P, class H>
decltype(auto) pass(H& holder) {
    if constexpr (std::is_same_v<std::decay_t<P>, const char*>) {
        return holder.c_str();
    } else if constexpr (kViewsElements<P>) {
        return static_cast<std::decay_t<P>>(holder);
    } else if constexpr (std::is_lvalue_reference_v<P> || !std::is_same_v<std::decay_t<P>, H>) {
        return static_cast<H&>(holder);
    } else {
        return static_cast<H&&>(holder);
    }
}

template <class F, class Parameters>
struct Invocation;

template <class F, class... P>
struct Invocation<F, Parameters<P...>> {
    using Holders = std::tuple<Holder<P>...>;
    using Arrived = std::tuple<typename ArrivedAs<P>::Type...>;
    using Result = std::invoke_result_t<F&, decltype(pass<P>(std::declval<Holder<P>&>()))...>;
    using Value = std::conditional_t<std::is_void_v<Result>, void, std::remove_cvref_t<Result>>;

    static consteval void check() {
        require_callable<F>();
        (require_parameter<P>(), ...);
        (require_travels<Holder<P>>(), ...);
    }
    static consteval bool travels() { return kTravellingCallable<F> && (Travels<Holder<P>> && ...); }

    /// Writes the arguments as the Holders that they would make.
    template <class... Args>
    static void encode_arguments(Writer& writer, Args&&... arguments) {
        if constexpr (((WrittenInPlace<P, Args&&> || LentInPlace<P, Args&&>) || ...)) {
            std::tuple<typename Leaving<P, Args&&>::Type...> parts(std::forward<Args>(arguments)...);
            const EncodeScope scope(writer);
            std::apply([&](auto&... part) { (encode_part<P>(writer, part), ...); }, parts);
        } else {
            Holders holders(std::forward<Args>(arguments)...);
            encode(writer, holders);
        }
    }
    /// The same, but for what is left out and moved into `lent`.
    template <class... Args>
    static void encode_arguments_around(Writer& writer, std::vector<LentBytes>& lent, Args&&... arguments) {
        if constexpr (((kKind<Holder<P>> == Kind::contiguous) || ...)) {
            std::tuple<typename Leaving<P, Args&&>::Type...> parts(std::forward<Args>(arguments)...);
            const EncodeScope scope(writer);
            std::apply([&](auto&... part) { (encode_part<P>(writer, part, &lent), ...); }, parts);
        } else {
            encode_arguments(writer, std::forward<Args>(arguments)...);
        }
    }
    static Arrived decode_arguments(Reader& reader) {
        if constexpr (std::is_same_v<Arrived, Holders>) {
            return decode<Holders>(reader);
        } else {
            const DecodeScope scope(reader);
            return Arrived{ArrivedAs<P>::decode(reader)...};    // in order: the standard says so for braces
        }
    }

    /// With Holders, or with what has Arrived of them.
    template <class Arguments>
    static Result call(F& function, Arguments& arguments) {
        return std::apply([&](auto&... argument) -> Result { return std::invoke(function, pass<P>(argument)...); },
                          arguments);
    }

private:
    template <class Parameter, class Part>
    static void encode_part(Writer& writer, Part& part, std::vector<LentBytes>* lent = nullptr) {
        if constexpr (kLentElements<Part>) {
            if (lent != nullptr) {
                encode_around(writer, part, *lent);
            } else {
                encode_contiguous(writer, part.elements);
            }
        } else if constexpr (!std::is_same_v<Part, Holder<Parameter>>) {
            encode_contiguous(writer, std::span(part.data(), part.size()));
        } else if (lent != nullptr) {
            encode_around(writer, part, *lent);
        } else {
            encode_value(writer, part);
        }
    }
};

template <class F, class... Args>
using InvocationOf = Invocation<F, typename ParametersOf<F, Args...>::Type>;

template <class F, class... Args>
using ResultOf = typename InvocationOf<F, Args...>::Value;

/// The callable that a user would name when asked what runs: of a wrapper of the library's, what it calls.
template <class F>
struct CallableInside {
    using Type = F;
};

// A thunk that calls an F, on the list of what workers may run for as long as the program refers to it.
template <Thunk kThunk, class F>
struct Registered {
    static inline const ThunkRegistration kRegistration{kThunk, typeid(typename CallableInside<F>::Type),
                                                        kFunctionPointer<F>};

    static Token token() {
        static_cast<void>(&kRegistration);
        static const Token token = token_of(reinterpret_cast<const void*>(kThunk));
        return token;
    }
};

// Runs one call: decodes function and arguments, leaves the encoded result.
template <class F, class I>
struct CallThunk {
    static void run(TaskContext& context) {
        Reader& reader = context.arguments();
        F function = decode_callable<F>(reader);
        auto arguments = I::decode_arguments(reader);
        if constexpr (std::is_void_v<typename I::Result>) {
            I::call(function, arguments);
            context.returned();
        } else {
            // What can only be moved leaves this process with the result, unless the function gave no more than a reference to it.
            std::conditional_t<std::is_reference_v<typename I::Result>, const typename I::Value&, typename I::Value>
                result = I::call(function, arguments);
            context.returned();
            encode(context.result(), result);
        }
    }
};

/// A call with its arguments, kept until it is sent; sent at most once where it holds something that can't be copied.
class CallBase {
public:
    virtual ~CallBase() = default;
    virtual Token token() const = 0;
    virtual void encode_to(Writer& writer) = 0;
};

template <class F, class I>
class BoundCall final : public CallBase {
public:
    template <class... Args>
    explicit BoundCall(F function, Args&&... arguments)
        : function_(std::move(function)), holders_(std::forward<Args>(arguments)...) {}

    Token token() const override { return Registered<&CallThunk<F, I>::run, F>::token(); }
    void encode_to(Writer& writer) override {
        encode_callable(writer, function_);
        encode(writer, holders_);
    }

private:
    F function_;
    typename I::Holders holders_;
};

template <class Function, class... Args>
std::unique_ptr<CallBase> make_call(Function function, Args&&... arguments) {
    using F = std::decay_t<Function>;
    using I = InvocationOf<F, Args...>;
    I::check();
    if constexpr (I::travels()) {
        return std::make_unique<BoundCall<F, I>>(std::move(function), std::forward<Args>(arguments)...);
    } else {
        return nullptr;
    }
}

}    // namespace multihull::detail
