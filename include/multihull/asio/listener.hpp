// Listeners as Asio I/O objects.
//
// Used by one thread at a time, as Asio's acceptors.
#pragma once

#include <multihull/asio/connection.hpp>

#include <chrono>
#include <concepts>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace multihull::asio {

namespace detail {

template <class Executor>
struct ListenerState {
    ListenerState(const Executor& executor, multihull::Listener made)
        : listener(std::move(made)), descriptor(executor) {
        assign(descriptor, FileDescriptor::duplicate(listener.wait_descriptor()));
    }

    multihull::Listener listener;
    net::posix::basic_stream_descriptor<Executor> descriptor;
};

template <class Executor>
class AcceptWork {
public:
    using Value = BasicConnection<Executor>;
    static constexpr auto kWait = net::posix::descriptor_base::wait_read;

    explicit AcceptWork(std::shared_ptr<ListenerState<Executor>> state) : state_(std::move(state)) {}

    auto& descriptor() const noexcept { return state_->descriptor; }
    bool go_on(Result<Value>& result) {
        auto accepted = state_->listener.try_accept(std::chrono::nanoseconds::zero());
        if (accepted) result.value.emplace(state_->descriptor.get_executor(), std::move(*accepted));
        return accepted.has_value();
    }
    static void finish() {}

private:
    std::shared_ptr<ListenerState<Executor>> state_;
};

}    // namespace detail

/// Waits for connections at an address, in an event loop, as multihull::Listener does. Clients that have to prove that they know a key do so
/// meanwhile; one that says nothing holds up nobody.
template <class Executor = net::any_io_executor>
class BasicListener {
public:
    using executor_type = Executor;
    template <class Other>
    struct rebind_executor {
        using other = BasicListener<Other>;
    };

    /// Throws Error when the address can't be used.
    explicit BasicListener(const Executor& executor, std::string_view address = {}, ListenerOptions options = {})
        : state_(std::make_shared<detail::ListenerState<Executor>>(executor,
                                                                   multihull::Listener(address, std::move(options)))) {}
    template <std::derived_from<net::execution_context> Context>
    explicit BasicListener(Context& context, std::string_view address = {}, ListenerOptions options = {})
        : BasicListener(Executor(context.get_executor()), address, std::move(options)) {}
    BasicListener(BasicListener&&) noexcept = default;
    BasicListener& operator=(BasicListener&&) = delete;
    ~BasicListener() { close(); }

    executor_type get_executor() const { return state_->descriptor.get_executor(); }
    const std::string& address() const { return state_->listener.address(); }

    /// Waits for the next connection; the handler gets `(std::exception_ptr, BasicConnection<Executor>)`.
    template <class Token>
    auto async_accept(Token&& token) {
        using Work = detail::AcceptWork<Executor>;
        return net::async_compose<Token, detail::Signature<typename Work::Value>>(
            detail::ReadyOperation<Work>(Work(state_)), token, state_->descriptor);
    }

    bool closed() const noexcept { return !state_ || state_->listener.closed(); }
    /// Stops listening. Operations that wait end with Error.
    void close() noexcept {
        if (!state_) return;
        detail::close_quietly(state_->descriptor);
        state_->listener.close();
    }

private:
    std::shared_ptr<detail::ListenerState<Executor>> state_;
};
using Listener = BasicListener<>;

}    // namespace multihull::asio
