// Operations that go on whenever a descriptor is ready, in the loop itself.
#pragma once

#include <multihull/asio/operation.hpp>
#include <multihull/file_descriptor.hpp>

#if defined(MULTIHULL_ASIO_BOOST)
#include <boost/asio/compose.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#else
#include <asio/compose.hpp>
#include <asio/posix/basic_stream_descriptor.hpp>
#endif

#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

namespace multihull::asio::detail {

/// The descriptor then owns it.
template <class Descriptor>
void assign(Descriptor& descriptor, FileDescriptor native) {
    descriptor.assign(native.fileno());
    static_cast<void>(native.release());
}

template <class Descriptor>
void close_quietly(Descriptor& descriptor) noexcept {
    ErrorCode ignored;
    descriptor.close(ignored);
}

inline std::exception_ptr error_of(const char* sentence) { return std::make_exception_ptr(Error(sentence)); }

/// An operation that goes on whenever a descriptor is ready: `Work` has
///   `bool go_on(Result<Value>&)`    goes on without waiting; true when it has ended;
///   `kWait`, `descriptor()`         what it waits for;
///   `void finish()`                 called once, before the handler.
template <class Work>
class ReadyOperation {
public:
    explicit ReadyOperation(Work work) : work_(std::move(work)) {}

    template <class Self>
    void operator()(Self& self) {
        if (!result_) {
            self.reset_cancellation_state(net::enable_total_cancellation());
            result_.emplace();
            if (!go_on()) return wait(self);
            // Never inside the call that began it.
            const auto executor = work_.descriptor().get_executor();
            return net::post(executor, std::move(self));
        }
        complete(self);
    }
    template <class Self>
    void operator()(Self& self, ErrorCode error) {
        const bool closed = !work_.descriptor().is_open();
        if (error == net::error::operation_aborted && closed) {
            result_->error = error_of("this connection or listener was closed while something waited for it");
        } else if (error == net::error::operation_aborted || !go_on()) {
            // One that was cancelled while this was on its way has nothing left to be cancelled but what would begin now.
            if (!error && self.get_cancellation_state().cancelled() == net::cancellation_type_t::none)
                return wait(self);
            result_->error = std::make_exception_ptr(Cancelled("the operation was cancelled before it had ended"));
        }
        complete(self);
    }

private:
    bool go_on() {
        try {
            return work_.go_on(*result_);
        } catch (...) {
            result_->error = std::current_exception();
            return true;
        }
    }
    template <class Self>
    void wait(Self& self) {
        work_.descriptor().async_wait(Work::kWait, std::move(self));
    }
    template <class Self>
    void complete(Self& self) {
        work_.finish();
        auto result = std::move(*result_);
        if constexpr (std::is_void_v<typename Work::Value>) {
            self.complete(std::move(result.error));
        } else {
            using Value = typename Work::Value;
            self.complete(std::move(result.error), result.value ? std::move(*result.value) : Value{});
        }
    }

    Work work_;
    std::optional<Result<typename Work::Value>> result_;
};

}    // namespace multihull::asio::detail
