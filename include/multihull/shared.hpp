// Values and arrays that live in shared memory: every process reads and writes the same bytes.
//
// Handles: copies name the same value, in whichever process they land; it lives as long as anybody has a handle. Reading and writing
// is as safe as in threads: use the lock that comes with it, or atomic(). What a process was writing when it died may be half
// written, and the next owner of the lock is told (OwnerDied).
#pragma once

#include <multihull/detail/shared_object.hpp>
#include <multihull/lock.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

template <class T>
class ConstArray;

namespace detail {

/// Memory of a shared object, zeros at first. Throws StartError when shared memory is exhausted.
struct SharedBytes {
    ObjectRef object;
    std::byte* data = nullptr;
    std::size_t size = 0;
};
struct FromBytes {};    // keeps what users write in braces apart from what the library does
SharedBytes make_value(std::size_t size);
SharedBytes make_array(std::size_t size);
SharedBytes decode_value_handle(Reader& reader, std::size_t size);
SharedBytes decode_array_handle(Reader& reader, std::size_t element_size);
/// Throws CodecError when the array's head was overwritten, so that its elements are nowhere.
SharedPlace place_of_array(const ObjectRef& object);

template <class T>
consteval void check_shareable() {
    require_shareable<T>();
    static_assert(alignof(T) <= 64, "multihull: shared memory is aligned to 64 bytes");
}

}    // namespace detail

/// A type whose objects may live in shared memory: trivially copyable, without pointers, references or views.
template <class T>
concept Shareable = detail::kShareable<T>;

/// One value in shared memory.
///
/// ```cpp
/// multihull::Value<int> counter(0);
/// {
///     std::lock_guard guard(counter);    // its own lock
///     counter.value() += 1;
/// }
/// counter.atomic().fetch_add(1);         // without
/// ```
template <class T>
class Value {
public:
    /// A new value. Throws StartError when shared memory is exhausted.
    explicit Value(const T& initial = T{}) : bytes_(make()) { std::construct_at(pointer(), initial); }

    /// The value itself, in shared memory. Valid as long as a handle exists in this process.
    T& value() const noexcept { return *pointer(); }
    /// A copy of it, taken under its lock. Throws OwnerDied as lock().
    T get() const {
        Lock own = get_lock();
        const std::lock_guard guard(own);
        return value();
    }
    /// Sets it under its lock. Throws OwnerDied as lock().
    void set(const T& to) const {
        Lock own = get_lock();
        const std::lock_guard guard(own);
        value() = to;
    }
    /// Atomic access without a lock, for types that the processor can change at once.
    auto atomic() const noexcept
        requires(std::atomic_ref<T>::is_always_lock_free)
    {
        return std::atomic_ref<T>(*pointer());
    }

    /// The lock that comes with it; a Lock like any other.
    Lock get_lock() const { return Lock(bytes_.object); }
    /// The same, so that std::lock_guard can take it.
    void lock() const { get_lock().lock(); }
    bool try_lock() const { return get_lock().try_lock(); }
    void unlock() const { get_lock().unlock(); }

private:
    friend struct Codec<Value<T>>;
    Value(detail::FromBytes, detail::SharedBytes bytes) noexcept : bytes_(std::move(bytes)) {}
    static detail::SharedBytes make() {
        detail::check_shareable<T>();
        return detail::make_value(sizeof(T));
    }
    T* pointer() const noexcept { return reinterpret_cast<T*>(bytes_.data); }

    detail::SharedBytes bytes_;
};

/// A fixed number of values, side by side in shared memory: a contiguous range.
template <class T>
class Array {
public:
    using value_type = T;

    /// So many values, each T{}. Throws StartError when shared memory is exhausted.
    explicit Array(std::size_t count) : Array(detail::FromBytes{}, make(count)) {
        std::uninitialized_value_construct_n(data(), count);
    }
    Array(std::size_t count, const T& initial) : Array(detail::FromBytes{}, make(count)) {
        std::uninitialized_fill_n(data(), count, initial);
    }
    /// The values of a range.
    template <std::ranges::input_range Range>
        requires(!std::is_same_v<std::remove_cvref_t<Range>, Array> &&
                 std::convertible_to<std::ranges::range_reference_t<Range>, T>)
    explicit Array(Range&& range) : Array(detail::FromBytes{}, from_range(std::forward<Range>(range))) {}
    Array(std::initializer_list<T> values) : Array(detail::FromBytes{}, make(values.size())) {
        std::uninitialized_copy(values.begin(), values.end(), data());
    }

    T* data() const noexcept { return reinterpret_cast<T*>(bytes_.data); }
    std::size_t size() const noexcept { return bytes_.size / sizeof(T); }
    bool empty() const noexcept { return size() == 0; }
    T* begin() const noexcept { return data(); }
    T* end() const noexcept { return data() + size(); }
    std::span<T> span() const noexcept { return {data(), size()}; }
    T& operator[](std::size_t index) const noexcept { return data()[index]; }
    /// With a check: throws std::out_of_range.
    T& at(std::size_t index) const {
        if (index >= size()) {
            throw std::out_of_range("index " + std::to_string(index) + " is outside of a shared Array of " +
                                    std::to_string(size()));
        }
        return data()[index];
    }
    /// Atomic access to one element without a lock.
    auto atomic(std::size_t index) const
        requires(std::atomic_ref<T>::is_always_lock_free)
    {
        return std::atomic_ref<T>(at(index));
    }

    /// The lock that comes with it; a Lock like any other.
    Lock get_lock() const { return Lock(bytes_.object); }
    /// The same, so that std::lock_guard can take it.
    void lock() const { get_lock().lock(); }
    bool try_lock() const { return get_lock().try_lock(); }
    void unlock() const { get_lock().unlock(); }

private:
    friend struct Codec<Array<T>>;
    friend struct detail::SharedPlaceOf<Array<T>>;
    friend class ConstArray<T>;
    Array(detail::FromBytes, detail::SharedBytes bytes) noexcept : bytes_(std::move(bytes)) {}
    static detail::SharedBytes make(std::size_t count) {
        detail::check_shareable<T>();
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
        return detail::make_array(count * sizeof(T));
    }
    template <class Range>
    static detail::SharedBytes from_range(Range&& range) {
        if constexpr (std::ranges::sized_range<Range> || std::ranges::forward_range<Range>) {
            auto bytes = make(static_cast<std::size_t>(std::ranges::distance(range)));
            auto* place = reinterpret_cast<T*>(bytes.data);
            for (auto&& element : range)
                std::construct_at(place++, static_cast<T>(std::forward<decltype(element)>(element)));
            return bytes;
        } else {
            std::vector<T> values;
            for (auto&& element : range) values.push_back(static_cast<T>(std::forward<decltype(element)>(element)));
            return from_range(values);
        }
    }

    detail::SharedBytes bytes_;
};

template <std::ranges::input_range Range>
Array(Range&&) -> Array<std::ranges::range_value_t<Range>>;

template <class T>
struct detail::SharedPlaceOf<Array<T>> {
    static SharedPlace of(const Array<T>& array) { return place_of_array(array.bytes_.object); }
};

template <class T>
struct Codec<Value<T>> {
    static void encode(detail::Writer& writer, const Value<T>& value) {
        detail::encode_object(writer, value.bytes_.object);
    }
    static Value<T> decode(detail::Reader& reader) {
        return {detail::FromBytes{}, detail::decode_value_handle(reader, sizeof(T))};
    }
};
template <class T>
struct Codec<Array<T>> {
    static void encode(detail::Writer& writer, const Array<T>& array) {
        detail::encode_object(writer, array.bytes_.object);
    }
    static Array<T> decode(detail::Reader& reader) {
        return {detail::FromBytes{}, detail::decode_array_handle(reader, sizeof(T))};
    }
};

}    // namespace multihull
