// A list of None, booleans, numbers, texts and bytes in shared memory, laid out as Python's ShareableList.
//
// The list has a fixed length; an element may change its value and its type, within the room it was given when the list was made.
// A ShareableList is a handle: a copy, and one that travels to another process, is the same list.
//
// Like Python's it is guarded by nothing: who changes it while others look needs a Lock. Without one, None, booleans and numbers
// are read and written whole, texts and bytes may be seen half-changed, and a value together with another's type. A process that is
// killed while it changes an element leaves that element in such a state, and all others as they were.
//
// Invariants
// (1) Where elements lie never changes. It is read and checked once, when a handle is made, and every later access stays within it,
//     whatever other processes write there.
// (2) Texts and bytes end before their trailing zero bytes, as in Python.
#pragma once

#include <multihull/shared_memory.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace multihull {

class ShareableList {
public:
    using None = std::monostate;
    using Bytes = std::vector<std::byte>;
    /// What an element can be: Python's None, bool, int (of 64 bits), float, str (UTF-8) and bytes.
    using Value = std::variant<None, bool, std::int64_t, double, std::string, Bytes>;

    /// A place in the list: 0 is the first element, -1 the last.
    class Index {
    public:
        template <std::integral Number>
        Index(Number place) noexcept
            : place_(std::in_range<std::ptrdiff_t>(place) ? static_cast<std::ptrdiff_t>(place) : PTRDIFF_MAX) {}

    private:
        friend class ShareableList;
        std::ptrdiff_t place_;
    };
    class Iterator;

    /// An empty handle.
    ShareableList() noexcept = default;
    /// Makes a list in anonymous memory. A text gets room for its bytes and one to eight more, as in Python; anything else
    /// eight bytes.
    explicit ShareableList(std::initializer_list<Value> values)
        : ShareableList(std::span(values.begin(), values.size())) {}
    explicit ShareableList(std::span<const Value> values);
    explicit ShareableList(const std::vector<Value>& values) : ShareableList(std::span(values)) {}
    /// The list that lies in a segment. Throws Error where none does.
    explicit ShareableList(SharedMemory memory);

    /// Makes a list in a named segment, to be attached to by other programs and by Python's `ShareableList(name=...)`.
    static ShareableList create(std::string_view name, std::span<const Value> values, SharedMemoryOptions options = {});
    static ShareableList create(std::string_view name, std::initializer_list<Value> values,
                                SharedMemoryOptions options = {}) {
        return create(name, std::span(values.begin(), values.size()), options);
    }
    /// The same under a name of its own, which Python would choose as well.
    static ShareableList create_named(std::span<const Value> values, SharedMemoryOptions options = {});
    static ShareableList create_named(std::initializer_list<Value> values, SharedMemoryOptions options = {}) {
        return create_named(std::span(values.begin(), values.size()), options);
    }
    /// The list in the segment with that name, whoever made it. Throws Error where there is no such segment, or no list in it.
    static ShareableList attach(std::string_view name) { return ShareableList(SharedMemory::attach(name)); }

    /// Number of elements.
    std::size_t size() const { return state().offsets.size() - 1; }
    bool empty() const { return size() == 0; }

    /// An element. Throws std::out_of_range, and Error where another program has damaged it.
    Value get(Index index) const;
    Value operator[](Index index) const { return get(index); }
    /// An element of the type asked for; throws Error when it has another one.
    template <class T>
    T get(Index index) const {
        Value value = get(index);
        if (T* const held = std::get_if<T>(&value)) return std::move(*held);
        throw_other_type(index, value.index(), Value(T()).index());
    }
    /// Changes an element, whatever its type was. Throws std::out_of_range, std::length_error where a text or bytes have not the
    /// room, and Error for a text that is not UTF-8, which Python could not read.
    void set(Index index, const Value& value);

    /// How many elements are equal to the value, by Python's rules: 1, 1.0 and true are.
    std::size_t count(const Value& value) const;
    /// The first element that is equal to the value.
    std::optional<std::size_t> index(const Value& value) const;
    /// All elements.
    std::vector<Value> values() const;
    /// How the elements are packed, as Python's struct module says it: `q8sd`.
    std::string format() const;

    Iterator begin() const;
    Iterator end() const;

    /// The segment that it lies in, for its name, unlink() and release(). As long as a handle on either is there, so is the list.
    const SharedMemory& memory() const { return state().memory; }
    SharedMemory& memory() { return const_cast<SharedMemory&>(std::as_const(*this).memory()); }

private:
    struct State {
        SharedMemory memory;
        std::vector<std::size_t> offsets;    // of each element from the first, and of the end
        std::byte* data = nullptr;           // the elements,
        std::byte* formats = nullptr;        // eight bytes for each that say how it is packed,
        std::byte* transforms = nullptr;     // and one that says what is made of it
    };

    const State& state() const;
    std::size_t checked(Index index, const char* what) const;
    std::string format_of(std::size_t index) const;
    [[noreturn]] static void throw_other_type(Index index, std::size_t has, std::size_t wanted);

    std::shared_ptr<const State> state_;
};

/// Goes through a list; each element is read when it is come to.
class ShareableList::Iterator {
public:
    using value_type = Value;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    using pointer = void;
    using reference = Value;

    Iterator() = default;
    Value operator*() const { return list_->get(index_); }
    Iterator& operator++() {
        ++index_;
        return *this;
    }
    Iterator operator++(int) {
        const Iterator before = *this;
        ++index_;
        return before;
    }
    bool operator==(const Iterator& other) const { return index_ == other.index_; }

private:
    friend class ShareableList;
    Iterator(const ShareableList* list, std::ptrdiff_t index) : list_(list), index_(index) {}

    const ShareableList* list_ = nullptr;
    std::ptrdiff_t index_ = 0;
};

inline ShareableList::Iterator ShareableList::begin() const { return {this, 0}; }
inline ShareableList::Iterator ShareableList::end() const { return {this, static_cast<std::ptrdiff_t>(size())}; }

/// A handle travels as its segment does.
template <>
struct Codec<ShareableList> {
    static void encode(detail::Writer& writer, const ShareableList& list);
    static ShareableList decode(detail::Reader& reader);
};

}    // namespace multihull
