// The end of a process as an asynchronous operation.
#pragma once

#include <multihull/asio/operation.hpp>
#include <multihull/process.hpp>

#include <memory>

namespace multihull::asio {

namespace detail {

class ExitSource {
public:
    using Value = int;

    explicit ExitSource(std::shared_ptr<multihull::detail::ProcessEnd> end) noexcept : end_(std::move(end)) {}

    template <class Told>
    void start(Told told) const {
        const auto end = end_;
        end->on_end(std::move(told));
    }
    bool take(Result<int>& result) const {
        result.value = end_->exitcode();
        return result.value.has_value();
    }
    static bool cancel(net::cancellation_type_t) { return true; }

private:
    std::shared_ptr<multihull::detail::ProcessEnd> end_;
};

struct ExitInitiation {
    template <class Handler>
    void operator()(Handler&& handler, std::shared_ptr<multihull::detail::ProcessEnd> end) const {
        start_operation(ExitSource(std::move(end)), std::forward<Handler>(handler), net::system_executor());
    }
};

}    // namespace detail

/// Waits until a process has ended; the handler gets `(std::exception_ptr, int)`, the number that Process::exitcode() has. The Process may be
/// moved meanwhile. Cancellation ends the wait, with Cancelled, and leaves the process alone. Throws Error, at once, when the process was
/// never started.
template <class Token>
auto async_wait(const Process& process, Token&& token) {
    return net::async_initiate<Token, detail::Signature<int>>(detail::ExitInitiation{}, token, process.ending());
}

}    // namespace multihull::asio
