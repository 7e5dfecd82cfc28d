// Big arrays that many tasks read: copied into shared memory once, then passed by handle.
//
// Handles: copies name the same elements, in whichever process they land; they live as long as anybody has a handle. Nobody can change
// them, so that they need no lock: also a stray write is stopped, in every process but the one that made the array, by SIGSEGV, which
// costs a worker's task alone.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/shared_object.hpp>
#include <multihull/shared.hpp>

#include <cstddef>
#include <memory>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace multihull {

namespace detail {

/// Elements, and what keeps them where they are.
struct ConstBytes {
    std::shared_ptr<const void> owner;
    ObjectRef object;
    const std::byte* data = nullptr;
    std::size_t size = 0;
};
/// Throws as decode_array_handle; StartError where the system allows no further mapping.
ConstBytes decode_const_array(Reader& reader, std::size_t element_size);

}    // namespace detail

/// A fixed number of values in shared memory that never change: what std::span<const T> is for one process.
///
/// ```cpp
/// double at(const multihull::ConstArray<double>& table, int i) { return table[i]; }
///
/// const multihull::ConstArray table(read_table());               // the one copy
/// for (int i : wanted) futures.push_back(pool.apply_async(at, table, i));
/// ```
/// Parallel's closures need none: what they refer to is in their workers' snapshot.
template <class T>
class ConstArray {
public:
    using value_type = T;
    using const_iterator = const T*;

    /// The values of a range. Throws StartError when shared memory is exhausted.
    template <std::ranges::input_range Range>
        requires(!std::is_same_v<std::remove_cvref_t<Range>, ConstArray> &&
                 std::convertible_to<std::ranges::range_reference_t<Range>, T>)
    explicit ConstArray(Range&& range) : ConstArray(Array<T>(std::forward<Range>(range))) {}
    ConstArray(std::initializer_list<T> values) : ConstArray(Array<T>(values)) {}

    const T* data() const noexcept { return reinterpret_cast<const T*>(bytes_.data); }
    std::size_t size() const noexcept { return bytes_.size / sizeof(T); }
    bool empty() const noexcept { return size() == 0; }
    const T* begin() const noexcept { return data(); }
    const T* end() const noexcept { return data() + size(); }
    std::span<const T> span() const noexcept { return {data(), size()}; }
    operator std::span<const T>() const noexcept { return span(); }
    const T& operator[](std::size_t index) const noexcept { return data()[index]; }
    /// With a check: throws std::out_of_range.
    const T& at(std::size_t index) const {
        if (index >= size()) {
            throw std::out_of_range("index " + std::to_string(index) + " is outside of a ConstArray of " +
                                    std::to_string(size()));
        }
        return data()[index];
    }

private:
    friend struct Codec<ConstArray<T>>;
    friend struct detail::SharedPlaceOf<ConstArray<T>>;
    explicit ConstArray(Array<T>&& values)
        : bytes_{nullptr, values.bytes_.object, reinterpret_cast<const std::byte*>(values.data()),
                 values.size() * sizeof(T)} {}
    explicit ConstArray(detail::ConstBytes bytes) noexcept : bytes_(std::move(bytes)) {}

    detail::ConstBytes bytes_;
};

template <std::ranges::input_range Range>
ConstArray(Range&&) -> ConstArray<std::ranges::range_value_t<Range>>;

template <class T>
struct detail::SharedPlaceOf<ConstArray<T>> {
    static SharedPlace of(const ConstArray<T>& array) { return place_of_array(array.bytes_.object); }
};

template <class T>
struct Codec<ConstArray<T>> {
    static void encode(detail::Writer& writer, const ConstArray<T>& array) {
        detail::encode_object(writer, array.bytes_.object);
    }
    static ConstArray<T> decode(detail::Reader& reader) {
        return ConstArray<T>(detail::decode_const_array(reader, sizeof(T)));
    }
};

}    // namespace multihull
