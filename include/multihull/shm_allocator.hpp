// Containers of the standard library in shared memory: a heap that several processes allocate from, and its allocator.
//
// ```cpp
// multihull::SharedHeap heap(64 << 20);
// multihull::Lock lock;
// auto& counts = heap.make<multihull::shm_map<multihull::shm_string, int>>("counts");
// ```
// In another process, given the heap and the lock: `heap.get<...>("counts")`. The heap lies at one address in all processes, so that
// containers with ordinary pointers (std::map, std::list, std::unordered_map, ...) mean the same in each. What is in it must hold no
// pointers to elsewhere, no virtual functions, and only containers whose allocator is of the same heap.
//
// The heap is safe to allocate from and to free into by threads and processes at once, without a lock. The containers are not:
// whoever uses one while others change it holds a Lock.
//
// Invariants
// (1) All of the heap's own words change by one compare-and-swap each, so a process that is killed inside of it leaves it whole, and
//     takes with it at most the memory that it was about to get or to give back.
// (2) A container whose process was killed while it changed it may be anything. Its Lock tells the next owner (OwnerDied), who must
//     not look into it, nor destroy it, but make another one; the memory of the first is lost to the heap.
// (3) A name in the heap is given to an object when that is whole. It stays as long as the heap.
//
// A heap is full of pointers: attach only to what was made by processes that may do with this one as they like.
#pragma once

#include <multihull/shared_memory.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <scoped_allocator>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multihull {

namespace detail {

/// The beginning of a heap's memory, at the same address in every process.
struct HeapHeader;

/// What blocks are aligned to.
inline constexpr std::size_t kHeapAlignment = 64;

/// Throws std::bad_alloc when the heap has no room.
void* heap_allocate(HeapHeader& heap, std::size_t bytes);
void heap_free(HeapHeader& heap, void* block, std::size_t bytes) noexcept;

}    // namespace detail

/// The allocator of containers in a SharedHeap. A container gives it on to the containers in it where it is wrapped into
/// std::scoped_allocator_adaptor, as shm_vector and the others are.
template <class T>
class shm_allocator {
public:
    static_assert(alignof(T) <= detail::kHeapAlignment, "multihull: a shared heap aligns to 64 bytes, and not to more");
    using value_type = T;
    using propagate_on_container_move_assignment = std::true_type;
    using propagate_on_container_swap = std::true_type;

    explicit shm_allocator(detail::HeapHeader& heap) noexcept : heap_(&heap) {}
    template <class U>
    shm_allocator(const shm_allocator<U>& other) noexcept : heap_(other.heap_) {}

    /// Throws std::bad_alloc when the heap has no room.
    T* allocate(std::size_t count) {
        if (count > std::numeric_limits<std::size_t>::max() / 2 / sizeof(T)) throw std::bad_array_new_length();
        return static_cast<T*>(detail::heap_allocate(*heap_, count * sizeof(T)));
    }
    void deallocate(T* block, std::size_t count) noexcept { detail::heap_free(*heap_, block, count * sizeof(T)); }

    template <class U>
    bool operator==(const shm_allocator<U>& other) const noexcept {
        return heap_ == other.heap_;
    }

private:
    template <class U>
    friend class shm_allocator;
    detail::HeapHeader* heap_;
};

template <class T>
using shm_scoped_allocator = std::scoped_allocator_adaptor<shm_allocator<T>>;

// The usual containers in a shared heap. Any other of the standard's works with these allocators as well.
using shm_string = std::basic_string<char, std::char_traits<char>, shm_allocator<char>>;
template <class T>
using shm_vector = std::vector<T, shm_scoped_allocator<T>>;
template <class Key, class T, class Compare = std::less<>>
using shm_map = std::map<Key, T, Compare, shm_scoped_allocator<std::pair<const Key, T>>>;
template <class Key, class T, class Hash = std::hash<Key>, class Equal = std::equal_to<>>
using shm_unordered_map = std::unordered_map<Key, T, Hash, Equal, shm_scoped_allocator<std::pair<const Key, T>>>;

/// Memory that several processes allocate from. A handle: a copy, and one that travels to another process, is the same heap.
class SharedHeap {
public:
    /// An empty handle.
    SharedHeap() noexcept = default;
    /// Makes a heap in anonymous memory of `size` bytes. Pages take memory when they are touched.
    explicit SharedHeap(std::size_t size) : SharedHeap(make_in(SharedMemory(size))) {}

    /// Makes a heap in a segment, which loses what it holds. Throws Error where it is too small, or more than 256 GiB.
    static SharedHeap make_in(SharedMemory memory);
    /// The heap in a segment in which another process made one. Throws Error where there is none, or where its address is taken in
    /// this process.
    static SharedHeap attach(SharedMemory memory);

    /// The allocator for containers in this heap.
    template <class T>
    shm_allocator<T> allocator() const {
        return shm_allocator<T>(header());
    }

    /// Makes an object under a name, which every process finds it by; a container gets the heap's allocator behind the arguments.
    /// Throws Error when the name is taken, and std::bad_alloc.
    template <class T, class... Args>
    T& make(std::string_view name, Args&&... arguments) {
        const auto [object, is_new] = made<T>(name, std::forward<Args>(arguments)...);
        if (!is_new) throw_taken(name);
        return *object;
    }
    /// The object with that name, made by the first of the processes that ask for it.
    template <class T, class... Args>
    T& find_or_make(std::string_view name, Args&&... arguments) {
        if (T* const found = find<T>(name)) return *found;
        return *made<T>(name, std::forward<Args>(arguments)...).first;
    }
    /// The object with that name; nullptr when there is none. Throws Error when it is of another type.
    template <class T>
    T* find(std::string_view name) const {
        return static_cast<T*>(find_object(name, typeid(T)));
    }
    /// The same; throws Error when there is none.
    template <class T>
    T& get(std::string_view name) const {
        if (T* const found = find<T>(name)) return *found;
        throw_missing(name);
    }

    /// Whether the handle holds a heap.
    explicit operator bool() const noexcept { return state_ != nullptr; }
    /// Bytes of the heap.
    std::size_t size() const;
    /// Bytes that are in use, with what rounding adds to each block, and what killed processes took with them.
    std::size_t used() const;
    /// Where it lies.
    const SharedMemory& memory() const;

private:
    struct State;
    explicit SharedHeap(std::shared_ptr<const State> state) noexcept : state_(std::move(state)) {}

    template <class T, class... Args>
    std::pair<T*, bool> made(std::string_view name, Args&&... arguments) {
        static_assert(std::is_object_v<T> && !std::is_pointer_v<T> && !std::is_polymorphic_v<T>,
                      "multihull: this can't live in shared memory: pointers and virtual functions mean nothing in "
                      "another process");
        auto memory = allocator<T>();
        T* const place = memory.allocate(1);
        try {
            std::uninitialized_construct_using_allocator(place, memory, std::forward<Args>(arguments)...);
            try {
                if (void* const first = publish(name, typeid(T), place); first != place) {
                    std::destroy_at(place);
                    memory.deallocate(place, 1);
                    return {static_cast<T*>(first), false};
                }
            } catch (...) {
                std::destroy_at(place);
                throw;
            }
        } catch (...) {
            memory.deallocate(place, 1);
            throw;
        }
        return {place, true};
    }

    detail::HeapHeader& header() const;
    void* find_object(std::string_view name, const std::type_info& type) const;
    /// The object that has the name now: this one, or one that was quicker.
    void* publish(std::string_view name, const std::type_info& type, void* object);
    [[noreturn]] static void throw_taken(std::string_view name);
    [[noreturn]] static void throw_missing(std::string_view name);

    std::shared_ptr<const State> state_;
};

/// A handle travels as its memory does.
template <>
struct Codec<SharedHeap> {
    static void encode(detail::Writer& writer, const SharedHeap& heap);
    static SharedHeap decode(detail::Reader& reader);
};

}    // namespace multihull

/// As of std::string, so that shm_string can be a key.
template <>
struct std::hash<multihull::shm_string> {
    std::size_t operator()(const multihull::shm_string& text) const noexcept {
        return std::hash<std::string_view>()(text);
    }
};
