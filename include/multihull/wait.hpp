// Waiting for the first of several things: connections, listeners, sockets, processes, futures, queues.
//
// Thread-safe as far as the objects are: wait() changes none of them.
#pragma once

#include <multihull/detail/wait_source.hpp>
#include <multihull/process.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <vector>

namespace multihull {

namespace detail {

template <class T>
concept HasDescriptor = requires(const T& object) {
    { object.fileno() } -> std::convertible_to<int>;
};

}    // namespace detail

/// Something that can be waited for. Made from the objects themselves, which must outlive it.
class Waitable {
public:
    /// A descriptor: ready when it can be read, has ended, or is broken.
    Waitable(int descriptor) noexcept : descriptor_(descriptor) {}
    /// A Connection, a Listener, or anything else with a fileno(). Throws Error for a closed one.
    template <detail::HasDescriptor T>
        requires(!detail::HasWaitSource<T>)
    Waitable(const T& object) : descriptor_(object.fileno()) {}
    /// A process: ready when it has ended. Throws Error for one that was not started.
    Waitable(const Process& process) : descriptor_(process.sentinel()) {}
    /// A Future, ready when its task has ended; a queue, ready when get() would not wait; anything else with a wait_source().
    template <detail::HasWaitSource T>
    Waitable(const T& object) : source_(object.wait_source()) {}

    int descriptor() const noexcept { return descriptor_; }
    detail::WaitSource* source() const noexcept { return source_.get(); }

private:
    int descriptor_ = -1;
    std::shared_ptr<detail::WaitSource> source_;
};

/// Waits until one of the objects is ready, for at most `timeout` where there is one. Answers the places of those that are, in order;
/// none when the time is over. Throws Error when the system has no descriptors left.
std::vector<std::size_t> wait(std::span<const Waitable> objects,
                              std::optional<std::chrono::nanoseconds> timeout = std::nullopt);
inline std::vector<std::size_t> wait(std::initializer_list<Waitable> objects,
                                     std::optional<std::chrono::nanoseconds> timeout = std::nullopt) {
    return wait(std::span(objects.begin(), objects.size()), timeout);
}

/// The same for objects of one type, which it answers themselves: `for (Connection* ready : wait(connections))`.
template <std::ranges::forward_range Range>
    requires(std::ranges::borrowed_range<Range> && std::is_lvalue_reference_v<std::ranges::range_reference_t<Range>> &&
             std::convertible_to<std::ranges::range_reference_t<Range>, Waitable> &&
             !std::same_as<std::ranges::range_value_t<Range>, Waitable>)
auto wait(Range&& objects, std::optional<std::chrono::nanoseconds> timeout = std::nullopt) {
    std::vector<Waitable> waitables;
    std::vector<std::remove_reference_t<std::ranges::range_reference_t<Range>>*> addresses;
    for (auto& object : objects) {
        waitables.emplace_back(object);
        addresses.push_back(&object);
    }
    decltype(addresses) ready;
    for (const std::size_t place : wait(std::span<const Waitable>(waitables), timeout))
        ready.push_back(addresses[place]);
    return ready;
}

}    // namespace multihull
