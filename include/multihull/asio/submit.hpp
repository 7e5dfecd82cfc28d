// Tasks of pools and executors as asynchronous operations.
#pragma once

#include <multihull/asio/future.hpp>
#include <multihull/asio/futures.hpp>
#include <multihull/executor.hpp>
#include <multihull/pool.hpp>

#include <concepts>
#include <optional>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multihull::asio {

namespace detail {

struct NoOptions {};

// Pool says apply_async() where executors say submit().
template <class E, class Options, class... Call>
auto submit_to(E& executor, const Options& options, Call&&... call) {
    if constexpr (std::derived_from<E, multihull::Pool>) {
        if constexpr (std::same_as<Options, NoOptions>) {
            return executor.apply_async(std::forward<Call>(call)...);
        } else {
            return executor.apply_async(options, std::forward<Call>(call)...);
        }
    } else if constexpr (std::same_as<Options, NoOptions>) {
        return executor.submit(std::forward<Call>(call)...);
    } else {
        return executor.submit(options, std::forward<Call>(call)...);
    }
}

// Calls `start()` for what to wait for, and has what it throws arrive as everything else does.
template <class Source, class Handler, class Fallback, class Start>
void start_task(Handler&& handler, const Fallback& fallback, Start start) {
    std::optional<Source> source;
    try {
        source.emplace(start());
    } catch (...) {
        source.emplace(std::current_exception());
    }
    start_operation(std::move(*source), std::forward<Handler>(handler), fallback);
}

template <class TaskFuture>
using OwnedSource = FutureSource<typename TaskFuture::value_type, true>;

/// The executor of handlers that have none: that of the object an operation belongs to.
template <class Executor>
struct Fallback {
    using executor_type = Executor;
    executor_type get_executor() const noexcept { return executor; }
    Executor executor;
};

template <class E, class Executor, class Options>
struct SubmitInitiation : Fallback<Executor> {
    E* target;
    Options options;

    template <class Handler, class... Call>
    void operator()(Handler&& handler, Call&&... call) const {
        const auto start = [&] { return submit_to(*target, options, std::forward<Call>(call)...); };
        start_task<OwnedSource<decltype(start())>>(std::forward<Handler>(handler), this->executor, start);
    }
};

// The last of the arguments is the token; operations that begin later keep copies of the others.
template <class E, class Executor, class Options, class Function, class... Rest>
auto submit_with_token(E& target, const Executor& executor, const Options& options, Function&& function,
                       Rest&&... rest) {
    static_assert(sizeof...(Rest) > 0, "multihull: the last argument of async_submit() is a completion token");
    constexpr std::size_t kArguments = sizeof...(Rest) - 1;
    std::tuple<Rest&&...> all(std::forward<Rest>(rest)...);
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        using Token = std::tuple_element_t<kArguments, std::tuple<Rest...>>;
        using Task = decltype(submit_to(target, options, std::declval<std::decay_t<Function>>(),
                                        std::declval<std::decay_t<std::tuple_element_t<I, std::tuple<Rest...>>>>()...));
        return net::async_initiate<Token, Signature<typename Task::value_type>>(
            SubmitInitiation<E, Executor, Options>{{executor}, &target, options}, std::get<kArguments>(all),
            std::forward<Function>(function), std::get<I>(std::move(all))...);
    }(std::make_index_sequence<kArguments>());
}

template <bool kStar, class Executor>
struct MapInitiation : Fallback<Executor> {
    multihull::Pool* pool;
    TaskOptions options;

    template <class Handler, class Function, class Range>
    void operator()(Handler&& handler, Function&& function, Range&& inputs) const {
        const auto start = [&] {
            if constexpr (kStar) {
                return pool->starmap_async(std::forward<Function>(function), std::forward<Range>(inputs), options);
            } else {
                return pool->map_async(std::forward<Function>(function), std::forward<Range>(inputs), options);
            }
        };
        start_task<OwnedSource<decltype(start())>>(std::forward<Handler>(handler), this->executor, start);
    }
};

template <bool kStar, class Executor, class Function, class Range, class Token>
auto map_with_token(multihull::Pool& pool, const Executor& executor, const TaskOptions& options, Function&& function,
                    Range&& inputs, Token&& token) {
    const auto start = [&] {
        if constexpr (kStar) {
            return pool.starmap_async(std::forward<Function>(function), std::forward<Range>(inputs), options);
        } else {
            return pool.map_async(std::forward<Function>(function), std::forward<Range>(inputs), options);
        }
    };
    return net::async_initiate<Token, Signature<typename decltype(start())::value_type>>(
        MapInitiation<kStar, Executor>{{executor}, &pool, options}, token, std::forward<Function>(function),
        std::forward<Range>(inputs));
}

// Those who have no map of their own that answers a future: a task for each element.
template <class E, class Function, class Element>
auto submit_element(E& executor, const Function& function, Element&& element, std::false_type /*star*/) {
    return executor.submit(function, std::forward<Element>(element));
}
template <class E, class Function, class Element>
auto submit_element(E& executor, const Function& function, Element&& element, std::true_type /*star*/) {
    return std::apply(
        [&]<class... Args>(Args&&... arguments) { return executor.submit(function, std::forward<Args>(arguments)...); },
        std::forward<Element>(element));
}

template <bool kStar, class E, class Function, class Range>
using ElementFuture =
    decltype(submit_element(std::declval<E&>(), std::declval<std::decay_t<Function>&>(),
                            std::declval<std::ranges::range_reference_t<Range>>(), std::bool_constant<kStar>()));

template <bool kStar, class E>
struct TasksInitiation {
    E* target;

    template <class Handler, class Function, class Range>
    void operator()(Handler&& handler, Function&& function, Range&& inputs) const {
        using Future = ElementFuture<kStar, E, Function, Range>;
        start_task<FuturesSource<typename Future::value_type>>(
            std::forward<Handler>(handler), net::system_executor(), [&] {
                TaskGroup<Future> group;
                for (auto&& element : inputs) {
                    group.futures.push_back(submit_element(*target, function, std::forward<decltype(element)>(element),
                                                           std::bool_constant<kStar>()));
                }
                return std::move(group.futures);
            });
    }
};

template <bool kStar, class E, class Function, class Range, class Token>
auto tasks_with_token(E& executor, Function&& function, Range&& inputs, Token&& token) {
    using T = typename ElementFuture<kStar, E, Function, Range>::value_type;
    return net::async_initiate<Token, Signature<AllOf<T>>>(TasksInitiation<kStar, E>{&executor}, token,
                                                           std::forward<Function>(function),
                                                           std::forward<Range>(inputs));
}

}    // namespace detail

/// Runs `function(arguments...)` in a Pool or in any Executor: `co_await async_submit(pool, f, x, use_awaitable)`. The last argument is the
/// completion token; the handler gets `(std::exception_ptr, T)`, failures as Future::get throws them. A handler without an executor of
/// its own is called in Asio's system executor. The pool must live until the operation has begun.
///
/// Cancellation keeps a waiting task from starting, and ends the worker of one that runs (of type `total`: only the former); the handler
/// then gets Cancelled. A task that runs in a thread can't be ended: the handler waits for it.
template <class E, class Function, class... ArgumentsAndToken>
    requires(!std::same_as<std::remove_cvref_t<Function>, TaskOptions>)
auto async_submit(E& executor, Function&& function, ArgumentsAndToken&&... arguments_and_token) {
    return detail::submit_with_token(executor, net::system_executor(), detail::NoOptions{},
                                     std::forward<Function>(function),
                                     std::forward<ArgumentsAndToken>(arguments_and_token)...);
}
/// The same with limits of its own: `async_submit(pool, {.timeout = 2s}, f, x, token)`.
template <class E, class Function, class... ArgumentsAndToken>
auto async_submit(E& executor, const TaskOptions& options, Function&& function,
                  ArgumentsAndToken&&... arguments_and_token) {
    return detail::submit_with_token(executor, net::system_executor(), options, std::forward<Function>(function),
                                     std::forward<ArgumentsAndToken>(arguments_and_token)...);
}

/// Runs `function` with each element of a range, as Pool::map; the handler gets `(std::exception_ptr, std::vector<T>)`.
template <class Function, std::ranges::input_range Range, class Token>
auto async_map(multihull::Pool& pool, Function&& function, Range&& inputs, Token&& token) {
    return detail::map_with_token<false>(pool, net::system_executor(), {}, std::forward<Function>(function),
                                         std::forward<Range>(inputs), std::forward<Token>(token));
}
template <class Function, std::ranges::input_range Range, class Token>
auto async_map(multihull::Pool& pool, Function&& function, Range&& inputs, const TaskOptions& options, Token&& token) {
    return detail::map_with_token<false>(pool, net::system_executor(), options, std::forward<Function>(function),
                                         std::forward<Range>(inputs), std::forward<Token>(token));
}
/// The same with elements that are tuples or pairs of arguments.
template <class Function, std::ranges::input_range Range, class Token>
auto async_starmap(multihull::Pool& pool, Function&& function, Range&& inputs, Token&& token) {
    return detail::map_with_token<true>(pool, net::system_executor(), {}, std::forward<Function>(function),
                                        std::forward<Range>(inputs), std::forward<Token>(token));
}
template <class Function, std::ranges::input_range Range, class Token>
auto async_starmap(multihull::Pool& pool, Function&& function, Range&& inputs, const TaskOptions& options,
                   Token&& token) {
    return detail::map_with_token<true>(pool, net::system_executor(), options, std::forward<Function>(function),
                                        std::forward<Range>(inputs), std::forward<Token>(token));
}

/// The same in any Executor: each element is a task of its own. The handler is called when all have ended; where some failed, it gets the
/// first one's failure. Cancellation does to each task what it does to one of async_submit().
template <multihull::Executor E, class Function, std::ranges::input_range Range, class Token>
auto async_map(E& executor, Function&& function, Range&& inputs, Token&& token) {
    return detail::tasks_with_token<false>(executor, std::forward<Function>(function), std::forward<Range>(inputs),
                                           std::forward<Token>(token));
}
template <multihull::Executor E, class Function, std::ranges::input_range Range, class Token>
auto async_starmap(E& executor, Function&& function, Range&& inputs, Token&& token) {
    return detail::tasks_with_token<true>(executor, std::forward<Function>(function), std::forward<Range>(inputs),
                                          std::forward<Token>(token));
}

}    // namespace multihull::asio
