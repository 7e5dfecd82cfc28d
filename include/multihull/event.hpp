// A flag that processes wait for.
//
// A handle: copies name the same event, in whichever process they land. Safe across processes and threads; a process that dies while
// it sets the flag, or waits for it, holds up nobody. Protocol and kill points: src/sync/README.md.
#pragma once

#include <multihull/detail/shared_object.hpp>

#include <chrono>

namespace multihull {

/// A flag that is clear at first; everybody waits until somebody sets it.
class Event {
public:
    /// A new, clear event. Throws StartError when there is no room for another.
    Event();

    /// Sets the flag and lets everybody go on who waits for it.
    void set() noexcept;
    /// Clears the flag: whoever waits from now on waits.
    void clear() noexcept;
    bool is_set() const noexcept;
    /// Waits until the flag is set.
    void wait() const;
    /// Waits until the flag is set, but no longer than that; false when it still is clear.
    bool wait(std::chrono::nanoseconds timeout) const;

private:
    friend struct Codec<Event>;
    explicit Event(detail::ObjectRef object) noexcept : object_(std::move(object)) {}
    bool wait_until(std::int64_t deadline) const;

    detail::ObjectRef object_;
};

template <>
struct Codec<Event> {
    static void encode(detail::Writer& writer, const Event& event);
    static Event decode(detail::Reader& reader);
};

}    // namespace multihull
