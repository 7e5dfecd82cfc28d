// A pool of worker processes as an Asio I/O object: its handlers run in its executor unless they have one of their own.
//
// Thread-safe as multihull::Pool is.
#pragma once

#include <multihull/asio/submit.hpp>

namespace multihull::asio {

/// ```cpp
/// net::io_context io;
/// multihull::asio::Pool pool(io, 4);
/// int y = co_await pool.async_submit(f, x, net::use_awaitable);
/// ```
/// It is a multihull::Pool: what that can do, this can. Its end waits for its workers, as that of every pool: let it end where waiting
/// does no harm, or call terminate() first.
template <class Executor = net::any_io_executor>
class BasicPool : public multihull::Pool {
public:
    using executor_type = Executor;
    /// The same with another executor.
    template <class Other>
    struct rebind_executor {
        using other = BasicPool<Other>;
    };

    /// A pool as multihull::Pool's constructors make it.
    explicit BasicPool(const Executor& executor, PoolOptions options = {})
        : multihull::Pool(std::move(options)), executor_(executor) {}
    BasicPool(const Executor& executor, std::size_t processes) : multihull::Pool(processes), executor_(executor) {}
    /// The same for the executor of a context.
    template <std::derived_from<net::execution_context> Context>
    explicit BasicPool(Context& context, PoolOptions options = {})
        : BasicPool(Executor(context.get_executor()), std::move(options)) {}
    template <std::derived_from<net::execution_context> Context>
    BasicPool(Context& context, std::size_t processes) : BasicPool(Executor(context.get_executor()), processes) {}

    executor_type get_executor() const noexcept { return executor_; }

    /// As multihull::asio::async_submit, without its first argument.
    template <class Function, class... ArgumentsAndToken>
        requires(!std::same_as<std::remove_cvref_t<Function>, TaskOptions>)
    auto async_submit(Function&& function, ArgumentsAndToken&&... arguments_and_token) {
        return detail::submit_with_token(pool(), executor_, detail::NoOptions{}, std::forward<Function>(function),
                                         std::forward<ArgumentsAndToken>(arguments_and_token)...);
    }
    template <class Function, class... ArgumentsAndToken>
    auto async_submit(const TaskOptions& options, Function&& function, ArgumentsAndToken&&... arguments_and_token) {
        return detail::submit_with_token(pool(), executor_, options, std::forward<Function>(function),
                                         std::forward<ArgumentsAndToken>(arguments_and_token)...);
    }

    /// As multihull::asio::async_map and async_starmap.
    template <class Function, std::ranges::input_range Range, class Token>
    auto async_map(Function&& function, Range&& inputs, Token&& token) {
        return detail::map_with_token<false>(pool(), executor_, {}, std::forward<Function>(function),
                                             std::forward<Range>(inputs), std::forward<Token>(token));
    }
    template <class Function, std::ranges::input_range Range, class Token>
    auto async_map(Function&& function, Range&& inputs, const TaskOptions& options, Token&& token) {
        return detail::map_with_token<false>(pool(), executor_, options, std::forward<Function>(function),
                                             std::forward<Range>(inputs), std::forward<Token>(token));
    }
    template <class Function, std::ranges::input_range Range, class Token>
    auto async_starmap(Function&& function, Range&& inputs, Token&& token) {
        return detail::map_with_token<true>(pool(), executor_, {}, std::forward<Function>(function),
                                            std::forward<Range>(inputs), std::forward<Token>(token));
    }
    template <class Function, std::ranges::input_range Range, class Token>
    auto async_starmap(Function&& function, Range&& inputs, const TaskOptions& options, Token&& token) {
        return detail::map_with_token<true>(pool(), executor_, options, std::forward<Function>(function),
                                            std::forward<Range>(inputs), std::forward<Token>(token));
    }

private:
    multihull::Pool& pool() noexcept { return *this; }

    Executor executor_;
};
using Pool = BasicPool<>;

}    // namespace multihull::asio
