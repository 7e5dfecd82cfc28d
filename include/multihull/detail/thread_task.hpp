// Tasks that this process runs itself: values and exceptions stay where they are, nothing is encoded.
#pragma once

#include <multihull/error.hpp>
#include <multihull/future.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace multihull::detail {

/// A task of this process, whatever it computes. Whoever claims it first (the thread that runs it, or cancel()) decides.
class ThreadTaskBase : public LocalCompletionBase {
public:
    /// Runs it, unless it was cancelled.
    virtual void run() noexcept = 0;
    bool cancel(std::uint32_t) override;
    void abandon(std::uint32_t task) override { cancel(task); }
    /// Ends it without running it; false when it runs or has ended.
    bool refuse(std::exception_ptr why);

protected:
    bool claim() noexcept { return !claimed_.exchange(true, std::memory_order_acq_rel); }

private:
    std::atomic<bool> claimed_{false};
};

// Containers say that they can be copied whatever they hold.
template <class T>
inline constexpr bool kCopies = std::is_copy_constructible_v<T>;
template <class T>
    requires(std::is_copy_constructible_v<T> && requires { typename T::value_type; } &&
             !std::is_same_v<typename T::value_type, T>)
inline constexpr bool kCopies<T> = kCopies<typename T::value_type>;

/// A value can be read any number of times if it can be copied, else once.
template <class T>
class ThreadTask : public ThreadTaskBase {
public:
    void read(std::uint32_t, ReadResult reader_of, void* out) override {
        const std::lock_guard guard(mutex_);
        if (failure_) std::rethrow_exception(failure_);
        ResultSource source;
        source.value = &value_;
        reader_of(source, out);
    }
    static void read_value(const ResultSource& source, void* out) {
        auto& kept = *const_cast<std::optional<Stored<T>>*>(static_cast<const std::optional<Stored<T>>*>(source.value));
        auto& target = *static_cast<std::optional<Stored<T>>*>(out);
        if constexpr (kCopies<Stored<T>>) {
            target.emplace(std::as_const(*kept));
        } else {
            if (!kept) throw Error("this result can't be copied and was read already: get() gives it away once");
            target.emplace(std::move(*kept));
            kept.reset();
        }
    }

protected:
    void set(Stored<T>&& value) {
        finish(nullptr, [&] { value_.emplace(std::move(value)); });
    }

private:
    std::optional<Stored<T>> value_;
};

template <class T, class Body>
class ThreadCall final : public ThreadTask<T> {
public:
    explicit ThreadCall(Body body) : body_(std::move(body)) {}

    void run() noexcept override {
        if (!this->claim()) return;
        try {
            // What the call holds is gone before anybody hears that it has ended.
            if constexpr (std::is_void_v<T>) {
                (*body_)();
                body_.reset();
                this->set({});
            } else {
                Stored<T> value = (*body_)();
                body_.reset();
                this->set(std::move(value));
            }
        } catch (...) {
            body_.reset();
            this->fail(std::current_exception());
        }
    }

private:
    std::optional<Body> body_;
};

template <class F, class... Args>
consteval void require_invocable() {
    static_assert(std::is_invocable_v<F, Args...>,
                  "multihull: the function can't be called with copies of these arguments; where it takes a non-const "
                  "reference, give std::ref(argument)");
}

/// A task of `function(arguments...)`, which are copied as by std::thread.
template <class Function, class... Args>
auto make_thread_task(Function&& function, Args&&... arguments) {
    using F = std::decay_t<Function>;
    require_invocable<F, std::decay_t<Args>...>();
    using Result = std::invoke_result_t<F, std::decay_t<Args>...>;
    using Value = std::conditional_t<std::is_void_v<Result>, void, std::remove_cvref_t<Result>>;
    auto body = [f = F(std::forward<Function>(function)),
                 held = std::tuple<std::decay_t<Args>...>(std::forward<Args>(arguments)...)]() mutable -> Result {
        return std::apply(
            [&](auto&... argument) -> Result { return std::invoke(std::move(f), std::move(argument)...); }, held);
    };
    return std::shared_ptr<ThreadTask<Value>>(std::make_shared<ThreadCall<Value, decltype(body)>>(std::move(body)));
}

template <class T>
Future<T> future_of(std::shared_ptr<ThreadTask<T>> task) {
    return Future<T>(std::move(task), 0, &ThreadTask<T>::read_value);
}

}    // namespace multihull::detail
