// Calls that are made now and run later: what Parallel's loops are made of.
//
// Thread-safe as its function and arguments are.
#pragma once

#include <multihull/detail/callable.hpp>

#include <functional>
#include <memory>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multihull {

namespace detail {

/// A function object that many calls have in common: a small one of plain memory in each, any other once for all of them.
template <class F>
class SharedFunction {
public:
    static constexpr bool kInPlace = std::is_trivially_copyable_v<F> && sizeof(F) <= 64;

    explicit SharedFunction(F function) : SharedFunction(std::move(function), std::bool_constant<kInPlace>{}) {}

    F& get() noexcept {
        if constexpr (kInPlace) {
            return function_;
        } else {
            return *function_;
        }
    }
    /// Whether both call one and the same function.
    bool same(const SharedFunction& other) const noexcept {
        if constexpr (kFunctionPointer<F> || !kInPlace) {
            return function_ == other.function_;
        } else {
            return std::is_empty_v<F>;
        }
    }

private:
    SharedFunction(F&& function, std::true_type) : function_(std::move(function)) {}
    SharedFunction(F&& function, std::false_type) : function_(std::make_shared<F>(std::move(function))) {}

    std::conditional_t<kInPlace, F, std::shared_ptr<F>> function_;
};

}    // namespace detail

/// A function with its arguments, made by delayed().
template <class F, class... Args>
class DelayedCall {
public:
    using Function = F;
    using Arguments = std::tuple<Args...>;
    using Result = std::invoke_result_t<F&, Args...>;
    using Value = std::conditional_t<std::is_void_v<Result>, void, std::remove_cvref_t<Result>>;

    template <class... A>
    explicit DelayedCall(detail::SharedFunction<F> function, A&&... arguments)
        : function_(std::move(function)), arguments_(std::forward<A>(arguments)...) {}

    /// Calls the function, once: the arguments are given away.
    Result operator()() && {
        return std::apply([&](auto&... argument)
                              -> Result { return std::invoke(function_.get(), std::move(argument)...); },
                          arguments_);
    }

    detail::SharedFunction<F>& function() noexcept { return function_; }
    Arguments& arguments() noexcept { return arguments_; }

private:
    detail::SharedFunction<F> function_;
    Arguments arguments_;
};

/// Makes calls of a function; see delayed().
template <class F>
class Delayed {
public:
    explicit Delayed(F function) : function_(std::move(function)) {}

    template <class... A>
        requires std::is_invocable_v<F&, std::decay_t<A>...>
    DelayedCall<F, std::decay_t<A>...> operator()(A&&... arguments) const {
        return DelayedCall<F, std::decay_t<A>...>(function_, std::forward<A>(arguments)...);
    }

private:
    detail::SharedFunction<F> function_;
};

/// `delayed(f)(x, y)` is the call `f(x, y)`, to be run by Parallel: the arguments are copied into it, the function is shared by all
/// calls of one delayed(). `numbers | std::views::transform(delayed(f))` is a range of them.
template <class Function>
Delayed<std::decay_t<Function>> delayed(Function&& function) {
    return Delayed<std::decay_t<Function>>(std::forward<Function>(function));
}

namespace detail {

template <class C>
inline constexpr bool kIsDelayedCall = false;
template <class F, class... Args>
inline constexpr bool kIsDelayedCall<DelayedCall<F, Args...>> = true;

/// A range of calls made by delayed().
template <class Range>
concept DelayedCalls = std::ranges::input_range<Range> && kIsDelayedCall<std::ranges::range_value_t<Range>>;

}    // namespace detail

}    // namespace multihull
