// What tests of asynchronous operations share: one loop, and the ways to wait for an operation.
#pragma once

#include "support/board.hpp"

#include <multihull/asio.hpp>

#include <gtest/gtest.h>

#if defined(MULTIHULL_ASIO_BOOST)
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#else
#include <asio/bind_cancellation_slot.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/use_future.hpp>
#endif

#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace test {

namespace net = multihull::asio::net;

/// Runs a coroutine to its end in a loop; throws what it throws. No template: what Asio makes of each coroutine takes long to compile.
inline void run(net::io_context& io, std::function<net::awaitable<void>()> coroutine) {
    std::exception_ptr failure;
    bool ended = false;
    net::co_spawn(io, std::move(coroutine), [&](std::exception_ptr error) {
        failure = std::move(error);
        ended = true;
    });
    io.restart();
    io.run();
    EXPECT_TRUE(ended) << "the loop had nothing to do any more";
    if (failure) std::rethrow_exception(failure);
}

/// Whether a failure is one of that type.
template <class E>
bool is(const std::exception_ptr& failure) {
    if (!failure) return false;
    try {
        std::rethrow_exception(failure);
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
}

/// A callback that keeps what it was given.
template <class T>
struct Kept {
    std::exception_ptr error{};
    std::optional<T> value{};
    std::thread::id thread{};
    int calls = 0;

    auto callback() {
        return [this](std::exception_ptr failure, T result) {
            error = std::move(failure);
            value = std::move(result);
            thread = std::this_thread::get_id();
            ++calls;
        };
    }
};

}    // namespace test
