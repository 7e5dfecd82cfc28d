// Futures of values that this process makes itself.
#pragma once

#include <multihull/future.hpp>

#include <condition_variable>
#include <mutex>
#include <vector>

namespace multihull::detail {

/// The part of a LocalCompletion that does not depend on its type.
class LocalCompletionBase : public Completion {
public:
    bool ready(std::uint32_t) noexcept override;
    bool wait(std::uint32_t, std::int64_t deadline_ns) override;
    std::exception_ptr failure(std::uint32_t) override;
    bool cancel(std::uint32_t) override;
    void on_done(std::uint32_t, std::function<void()> callback) override;
    void retain(std::uint32_t) noexcept override {}
    void release(std::uint32_t) noexcept override {}

    /// Ends the task without a value. False when it had ended already (it was cancelled).
    bool fail(std::exception_ptr failure);

protected:
    bool finish(std::exception_ptr failure, const std::function<void()>& store);

    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;
    std::exception_ptr failure_;
    std::vector<std::function<void()>> callbacks_;
};

template <class T>
class LocalCompletion final : public LocalCompletionBase {
public:
    bool set(Stored<T> value) {
        return finish(nullptr, [&] { value_ = std::move(value); });
    }
    void read(std::uint32_t, ReadResult reader_of, void* out) override {
        const std::lock_guard guard(mutex_);
        if (failure_) std::rethrow_exception(failure_);
        ResultSource source;
        source.value = &*value_;
        reader_of(source, out);
    }
    static void copy_value(const ResultSource& source, void* out) {
        *static_cast<std::optional<Stored<T>>*>(out) = *static_cast<const Stored<T>*>(source.value);
    }

private:
    std::optional<Stored<T>> value_;
};

}    // namespace multihull::detail

namespace multihull {

template <class T>
template <class Function>
auto Future<T>::then(Function function) const {
    const auto apply = [](Function& f, const Future<T>& future) -> decltype(auto) {
        if constexpr (std::is_void_v<T>) {
            future.get();
            return f();
        } else {
            return f(future.get());
        }
    };
    using Result = std::remove_cvref_t<decltype(apply(function, *this))>;
    using Next = detail::LocalCompletion<Result>;
    auto next = std::make_shared<Next>();
    add_done_callback([next, apply, function = std::move(function)](const Future<T>& future) mutable {
        try {
            if constexpr (std::is_void_v<Result>) {
                apply(function, future);
                next->set({});
            } else {
                next->set(apply(function, future));
            }
        } catch (...) {
            next->fail(std::current_exception());
        }
    });
    return Future<Result>(std::move(next), 0, &Next::copy_value);
}

}    // namespace multihull
