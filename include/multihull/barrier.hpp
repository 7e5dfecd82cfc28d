// A point that a number of processes pass together, or not at all.
//
// A handle: copies name the same barrier, in whichever process they land. Safe across processes and threads. When a process dies that
// was given the barrier, or has waited at it, the barrier breaks: nobody waits for the dead. Protocol and kill points:
// src/sync/README.md.
#pragma once

#include <multihull/detail/shared_object.hpp>
#include <multihull/error.hpp>

#include <chrono>
#include <cstdint>

namespace multihull {

/// Lets nobody go on until `parties` have arrived; then again for the next round.
class Barrier {
public:
    /// Throws StartError when there is no room for another, std::invalid_argument for no parties.
    explicit Barrier(std::uint32_t parties);

    /// Waits for the others; answers this one's place in the order of arrival, 0 to parties - 1. Throws BrokenBarrier when it is
    /// broken: a party died, gave up, or called abort() or reset().
    std::uint32_t wait();
    /// The same, but gives up after `timeout`, which breaks the barrier.
    std::uint32_t wait(std::chrono::nanoseconds timeout);
    /// Makes it whole again; those who wait get BrokenBarrier.
    void reset();
    /// Breaks it for everybody until reset().
    void abort();

    std::uint32_t parties() const noexcept;
    /// How many wait now.
    std::uint32_t n_waiting() const noexcept;
    bool broken() const noexcept;

private:
    friend struct Codec<Barrier>;
    explicit Barrier(detail::ObjectRef object) noexcept : object_(std::move(object)) {}
    std::uint32_t wait_until(std::int64_t deadline);

    detail::ObjectRef object_;
};

template <>
struct Codec<Barrier> {
    static void encode(detail::Writer& writer, const Barrier& barrier);
    static Barrier decode(detail::Reader& reader);
};

}    // namespace multihull
