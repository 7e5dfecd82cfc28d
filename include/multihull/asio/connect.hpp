// Connecting to a listener as an asynchronous operation.
#pragma once

#include <multihull/asio/connection.hpp>
#include <multihull/detail/connecting.hpp>

#include <concepts>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace multihull::asio {

namespace detail {

class ConnectWork {
public:
    using Value = Connection;
    static constexpr auto kWait = net::posix::descriptor_base::wait_read;

    ConnectWork(const net::any_io_executor& executor, std::string_view address, ClientOptions options)
        : state_(std::make_shared<State>(executor, address, std::move(options))) {}

    auto& descriptor() const noexcept { return state_->descriptor; }
    // The time that it has begins with the operation, which may be later than the call.
    bool go_on(Result<Value>& result) {
        State& self = *state_;
        if (!self.connecting) self.connecting.emplace(self.address, self.options);
        if (auto made = self.connecting->go_on()) {
            result.value.emplace(self.descriptor.get_executor(), std::move(*made));
            return true;
        }
        if (!self.descriptor.is_open()) {
            assign(self.descriptor, FileDescriptor::duplicate(self.connecting->fileno()));
        }
        return false;
    }
    static void finish() {}

private:
    struct State {
        State(const net::any_io_executor& executor, std::string_view where, ClientOptions given)
            : descriptor(executor), address(where), options(std::move(given)) {}

        net::posix::basic_stream_descriptor<net::any_io_executor> descriptor;    // ready when there is something to do
        std::string address;
        ClientOptions options;
        std::optional<multihull::detail::Connecting> connecting;
    };
    std::shared_ptr<State> state_;
};

}    // namespace detail

/// Connects to a Listener, ours or Python's, as Client() does, and proves to know the key where there is one; the handler gets
/// `(std::exception_ptr, Connection)`, failures as Client() throws them. Cancelled, it goes away. The name of a host is looked up in a thread
/// of its own, as the system's resolver can only wait.
template <class Token>
auto async_connect(const net::any_io_executor& executor, std::string_view address, const ClientOptions& options,
                   Token&& token) {
    detail::ConnectWork work(executor, address, options);
    auto& descriptor = work.descriptor();
    return net::async_compose<Token, detail::Signature<Connection>>(
        detail::ReadyOperation<detail::ConnectWork>(std::move(work)), token, descriptor);
}
template <class Token>
auto async_connect(const net::any_io_executor& executor, std::string_view address, Token&& token) {
    return async_connect(executor, address, ClientOptions{}, std::forward<Token>(token));
}
template <std::derived_from<net::execution_context> Context, class Token>
auto async_connect(Context& context, std::string_view address, const ClientOptions& options, Token&& token) {
    return async_connect(net::any_io_executor(context.get_executor()), address, options, std::forward<Token>(token));
}
template <std::derived_from<net::execution_context> Context, class Token>
auto async_connect(Context& context, std::string_view address, Token&& token) {
    return async_connect(context, address, ClientOptions{}, std::forward<Token>(token));
}

}    // namespace multihull::asio
