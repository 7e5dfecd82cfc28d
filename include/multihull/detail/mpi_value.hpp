// Values that every rank has: sent once to each, read by all of its workers.
//
// Thread-safe.
#pragma once

#include <multihull/detail/engine.hpp>

#include <cstdint>
#include <memory>
#include <utility>

namespace multihull {

namespace detail {

/// Sends an encoded value to all ranks; its number. They forget it with the last copy of the pointer.
std::shared_ptr<const std::uint64_t> broadcast_bytes(CallBuffer& value);
/// The number of a value that somebody else keeps.
std::shared_ptr<const std::uint64_t> broadcast_number(std::uint64_t number);
/// The value with a number in this process, decoded the first time. Throws ObjectGone.
std::shared_ptr<const void> broadcast_here(std::uint64_t number, std::shared_ptr<const void> (*decode)(Reader&));

}    // namespace detail

namespace mpi {

/// A value that all tasks may read: a handle that travels as an argument, and is a pointer to the value wherever it is used.
///
/// The bytes lie once on each rank, in shared memory; each worker decodes them when it first looks, and keeps the value. It is gone
/// when rank 0 has no handle left and no task that was given one has not ended.
template <class T>
class Broadcast {
public:
    /// A handle of nothing.
    Broadcast() = default;

    /// The value. Throws ObjectGone where there is none any more.
    const T& operator*() const {
        if (!number_) throw Error("this Broadcast was never given a value");
        const auto decode = [](multihull::detail::Reader& reader) -> std::shared_ptr<const void> {
            return std::make_shared<const T>(multihull::detail::decode<T>(reader));
        };
        return *static_cast<const T*>(multihull::detail::broadcast_here(*number_, decode).get());
    }
    const T* operator->() const { return &**this; }

private:
    template <class V>
    friend Broadcast<V> broadcast_value(const V& value);
    friend struct Codec<Broadcast>;
    explicit Broadcast(std::shared_ptr<const std::uint64_t> number) : number_(std::move(number)) {}

    std::shared_ptr<const std::uint64_t> number_;
};

/// Sends a value, which must travel, to every rank once: `auto table = mpi::broadcast_value(values);`, and then
/// `executor.submit(f, table, x)` with `f(mpi::Broadcast<std::vector<double>> table, int x)`. Throws Error without a session.
template <class T>
Broadcast<T> broadcast_value(const T& value) {
    multihull::detail::require_travels<T>();
    multihull::detail::CallBuffer buffer;
    buffer.writer().leave_family();
    multihull::detail::encode(buffer.writer(), value);
    return Broadcast<T>(multihull::detail::broadcast_bytes(buffer));
}

}    // namespace mpi

template <class T>
struct Codec<mpi::Broadcast<T>> {
    static void encode(detail::Writer& writer, const mpi::Broadcast<T>& value) {
        if (value.number_) writer.keep(value.number_);
        writer.put(value.number_ ? *value.number_ : std::uint64_t{0});
    }
    static mpi::Broadcast<T> decode(detail::Reader& reader) {
        const auto number = reader.get<std::uint64_t>();
        return number == 0 ? mpi::Broadcast<T>() : mpi::Broadcast<T>(detail::broadcast_number(number));
    }
};

}    // namespace multihull
