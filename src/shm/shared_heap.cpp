#include <multihull/shm_allocator.hpp>

#include "os/memory.hpp"
#include "os/named_memory.hpp"
#include "os/thread_sanitizer.hpp"

#include <multihull/codec.hpp>
#include <multihull/error.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <pthread.h>
#include <random>
#include <thread>

namespace multihull {

namespace detail {

namespace {

constexpr std::uint64_t kMagic = 0x70616548646c754d;    // "MuldHeap"
constexpr std::size_t kUnit = kHeapAlignment;
// Of 1, 2, 3, 4, 6, 8, 12, ... units, up to 256 GiB.
constexpr std::size_t kClasses = 64;

constexpr std::uint64_t units_of_class(std::size_t index) {
    if (index == 0) return 1;
    const std::size_t power = (index + 1) / 2;
    return index % 2 == 1 ? std::uint64_t{1} << power : std::uint64_t{3} << (power - 1);
}

// The smallest class of at least that many units; units >= 1.
constexpr std::size_t class_of(std::uint64_t units) {
    std::size_t index = units <= 1 ? 0 : 2 * (static_cast<std::size_t>(std::bit_width(units - 1)) - 1);
    while (units_of_class(index) < units) ++index;
    return index;
}
static_assert(class_of(1) == 0 && class_of(2) == 1 && class_of(3) == 2 && class_of(4) == 3 && class_of(5) == 4 &&
              units_of_class(class_of(1000)) == 1024 && units_of_class(class_of(1025)) == 1536);

}    // namespace

// A list of free blocks: the first one's number in the lower half (0: none), and above it a count of the changes, without which a
// list that came back to the same first block could be taken for one that never changed.
using FreeList = std::atomic<std::uint64_t>;

struct HeapHeader {
    std::atomic<std::uint64_t> magic;    // last, when the heap is made
    std::uint64_t address;
    std::uint64_t units;
    std::atomic<std::uint64_t> top;      // units that were ever in use
    std::atomic<std::uint64_t> used;     // units in use, as far as nobody was killed over it
    std::atomic<std::uint64_t> names;    // number of the first NamedObject, which lists the others
    std::array<FreeList, kClasses> free;
};

namespace {

// In front of a free block: the number of the next one.
struct FreeBlock {
    std::atomic<std::uint32_t> next;
};

struct NamedObject {
    std::uint64_t next;
    std::uint64_t object;
    std::uint64_t type;
    std::uint64_t length;    // of the name, which follows
};

// Blocks and names are known by their number: how many units they lie behind the header.
template <class T>
T* at(const HeapHeader& heap, std::uint64_t number) {
    return reinterpret_cast<T*>(heap.address + number * kUnit);
}
std::uint64_t number_of(const HeapHeader& heap, const void* place) {
    return (reinterpret_cast<std::uintptr_t>(place) - heap.address) / kUnit;
}

constexpr std::uint64_t kHeaderUnits = (sizeof(HeapHeader) + kUnit - 1) / kUnit;
constexpr std::uint64_t kNumberMask = 0xffff'ffff;

constexpr std::uint64_t changed(std::uint64_t head, std::uint64_t number) {
    return ((head | kNumberMask) + 1) | number;
}

void push(HeapHeader& heap, std::size_t index, std::uint64_t number) noexcept {
    FreeList& list = heap.free[index];
    auto* const block = new (at<FreeBlock>(heap, number)) FreeBlock;
    std::uint64_t head = list.load(std::memory_order_relaxed);
    do block->next.store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);
    while (!list.compare_exchange_weak(head, changed(head, number), std::memory_order_release,
                                       std::memory_order_relaxed));
}

// 0 when the list is empty.
std::uint64_t pop(HeapHeader& heap, std::size_t index) {
    FreeList& list = heap.free[index];
    std::uint64_t head = list.load(std::memory_order_acquire);
    for (;;) {
        const std::uint64_t number = head & kNumberMask;
        if (number == 0) return 0;
        if (number >= heap.units)
            throw Error("a shared heap is damaged: a process wrote where it should not have; make another one");
        // Another may have taken the block, and have written into it: then the list has changed, and what is read here is not used.
        const std::uint32_t next = at<FreeBlock>(heap, number)->next.load(std::memory_order_relaxed);
        if (list.compare_exchange_weak(head, changed(head, next), std::memory_order_acquire,
                                       std::memory_order_acquire)) {
            return number;
        }
    }
}

// From what was never in use; 0 when that is not enough.
std::uint64_t take_fresh(HeapHeader& heap, std::uint64_t units) noexcept {
    std::uint64_t top = heap.top.load(std::memory_order_relaxed);
    do {
        if (heap.units - top < units) return 0;
    } while (!heap.top.compare_exchange_weak(top, top + units, std::memory_order_relaxed));
    return top;
}

// A bigger block, of which the rest is given back in parts.
std::uint64_t take_apart(HeapHeader& heap, std::size_t index) {
    for (std::size_t bigger = index + 1; bigger < kClasses; ++bigger) {
        const std::uint64_t number = pop(heap, bigger);
        if (number == 0) continue;
        std::uint64_t rest = number + units_of_class(index);
        const std::uint64_t end = number + units_of_class(bigger);
        while (rest < end) {
            std::size_t part = class_of(end - rest);
            if (units_of_class(part) > end - rest) --part;
            push(heap, part, rest);
            rest += units_of_class(part);
        }
        return number;
    }
    return 0;
}

std::uint64_t hash_of(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char character : text) hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3;
    return hash;
}

const NamedObject* find_named(const HeapHeader& heap, std::uint64_t first, std::string_view name) {
    for (std::uint64_t number = first; number != 0;) {
        const auto* const named = at<NamedObject>(heap, number);
        if (std::string_view(reinterpret_cast<const char*>(named + 1), named->length) == name) return named;
        number = named->next;
    }
    return nullptr;
}

[[noreturn]] void throw_other_type(std::string_view name) {
    throw Error("\"" + std::string(name) + "\" in a shared heap is of another type than it is asked for as");
}

}    // namespace

void* heap_allocate(HeapHeader& heap, std::size_t bytes) {
    if (bytes > heap.units * kUnit) throw std::bad_alloc();
    const std::size_t index = class_of(std::max<std::uint64_t>(1, (bytes + kUnit - 1) / kUnit));
    const std::uint64_t units = units_of_class(index);
    std::uint64_t number = pop(heap, index);
    if (number == 0) number = take_fresh(heap, units);
    if (number == 0) number = take_apart(heap, index);
    if (number == 0) throw std::bad_alloc();
    heap.used.fetch_add(units, std::memory_order_relaxed);
    return at<void>(heap, number);
}

void heap_free(HeapHeader& heap, void* block, std::size_t bytes) noexcept {
    const std::size_t index = class_of(std::max<std::uint64_t>(1, (bytes + kUnit - 1) / kUnit));
    heap.used.fetch_sub(units_of_class(index), std::memory_order_relaxed);
    push(heap, index, number_of(heap, block));
}

}    // namespace detail

using detail::HeapHeader;

namespace {

#if !defined(__x86_64__) || defined(MULTIHULL_THREAD_SANITIZER)
#define MULTIHULL_LOW_HEAPS
#endif

// Where heaps lie: far from what a program, its libraries, its stacks and the sanitizers use.
#ifdef MULTIHULL_LOW_HEAPS
constexpr std::uint64_t kLowest = 0x10'0000'0000;
constexpr std::uint64_t kRange = 0x60'0000'0000;
#else
constexpr std::uint64_t kLowest = 0x2000'0000'0000;
constexpr std::uint64_t kRange = 0x1000'0000'0000;
#endif
constexpr std::uint64_t kGrain = std::uint64_t{2} << 20;
constexpr std::uint64_t kMostBytes = std::uint64_t{256} << 30;

std::uint64_t random_address(std::size_t size) {
    std::random_device device;
    const std::uint64_t random = std::uint64_t{device()} << 32 | device();
    return kLowest + random % ((kRange - size) / kGrain) * kGrain;
}

using FileKey = std::pair<std::uint64_t, std::uint64_t>;

// Heaps that are mapped here, each once: two mappings would fight for the address. An entry is there for as long as the mapping.
// Locked around a fork, so that the child finds it free.
struct Mapped {
    std::mutex mutex;
    std::map<FileKey, std::weak_ptr<const void>> by_file;
};
Mapped& mapped() {
    static auto* const all = new Mapped;
    static const bool watching = [] {
        ::pthread_atfork([] { all->mutex.lock(); }, [] { all->mutex.unlock(); }, [] { all->mutex.unlock(); });
        return true;
    }();
    static_cast<void>(watching);
    return *all;
}

}    // namespace

struct SharedHeap::State {
    SharedMemory memory;
    os::Mapping mapping;
    HeapHeader* header = nullptr;
    FileKey file;

    // The entry goes with the mapping, in one go.
    static void forget(State* state) {
        auto& all = mapped();
        const std::lock_guard lock(all.mutex);
        const auto entry = all.by_file.find(state->file);
        if (entry != all.by_file.end() && entry->second.expired()) all.by_file.erase(entry);
        delete state;
    }
    static std::shared_ptr<State> make(const SharedMemory& memory) {
        const os::FileIdentity identity = os::identity_of(memory.fileno());
        std::shared_ptr<State> state(new State, forget);
        state->file = {identity.device, identity.inode};
        return state;
    }
};

SharedHeap SharedHeap::make_in(SharedMemory memory) {
    const std::uint64_t units = memory.size() / detail::kUnit;
    if (memory.size() < 4096 || memory.size() > kMostBytes) {
        throw Error("a shared heap can't have " + std::to_string(memory.size()) +
                    " bytes: give it from 4 KiB to 256 GiB");
    }
    const auto state = State::make(memory);
    for (int tries = 0; !state->mapping; ++tries) {
        state->mapping = os::map_shared_at(memory.fileno(), random_address(memory.size()), memory.size());
        if (!state->mapping && (errno != EEXIST || tries == 100)) {
            throw Error(std::string("a shared heap can't be mapped (") + std::strerror(errno) +
                        "): raise the limit of address space (ulimit -v)");
        }
    }
    std::memset(state->mapping.data(), 0, sizeof(HeapHeader));
    auto* const header = new (state->mapping.data()) HeapHeader{};
    header->address = reinterpret_cast<std::uintptr_t>(header);
    header->units = units;
    header->top.store(detail::kHeaderUnits, std::memory_order_relaxed);
    header->magic.store(detail::kMagic, std::memory_order_release);
    state->header = header;
    state->memory = std::move(memory);
    auto& all = mapped();
    const std::lock_guard lock(all.mutex);
    all.by_file[state->file] = state;
    return SharedHeap(state);
}

SharedHeap SharedHeap::attach(SharedMemory memory) {
    const auto state = State::make(memory);
    auto& all = mapped();
    std::unique_lock lock(all.mutex);
    for (auto known = all.by_file.find(state->file); known != all.by_file.end();
         known = all.by_file.find(state->file)) {
        if (auto here = std::static_pointer_cast<const State>(known->second.lock())) {
            lock.unlock();
            return SharedHeap(std::move(here));
        }
        // Another thread is about to unmap it.
        lock.unlock();
        std::this_thread::yield();
        lock.lock();
    }
    const auto* const seen = reinterpret_cast<const HeapHeader*>(memory.data());
    if (memory.size() < sizeof(HeapHeader) || seen->magic.load(std::memory_order_acquire) != detail::kMagic) {
        throw Error("there is no heap in this shared memory: make one with SharedHeap::make_in(), in one process");
    }
    const std::uint64_t address = seen->address;
    if (seen->units != memory.size() / detail::kUnit || address % kGrain != 0 || address < kLowest ||
        address > kLowest + kRange) {
        throw Error("the heap in this shared memory is damaged, or was made by another build of the library");
    }
    state->mapping = os::map_shared_at(memory.fileno(), address, memory.size());
    if (!state->mapping) {
        throw Error(
            std::string("a shared heap can't be mapped where its pointers point to (") + std::strerror(errno) +
            "): something else lies there in this process; make the heap anew, and it will choose another place");
    }
    state->header = reinterpret_cast<HeapHeader*>(state->mapping.data());
    state->memory = std::move(memory);
    all.by_file[state->file] = state;
    lock.unlock();
    return SharedHeap(state);
}

HeapHeader& SharedHeap::header() const {
    if (state_ == nullptr)
        throw Error("a SharedHeap was used that holds nothing: it was moved from, or never given a heap");
    return *state_->header;
}

void* SharedHeap::find_object(std::string_view name, const std::type_info& type) const {
    const HeapHeader& heap = header();
    const auto* const named = detail::find_named(heap, heap.names.load(std::memory_order_acquire), name);
    if (named == nullptr) return nullptr;
    if (named->type != detail::hash_of(type.name())) detail::throw_other_type(name);
    return detail::at<void>(heap, named->object);
}

void* SharedHeap::publish(std::string_view name, const std::type_info& type, void* object) {
    HeapHeader& heap = header();
    const std::size_t size = sizeof(detail::NamedObject) + name.size();
    auto* const entry = new (detail::heap_allocate(heap, size)) detail::NamedObject;
    entry->object = detail::number_of(heap, object);
    entry->type = detail::hash_of(type.name());
    entry->length = name.size();
    std::ranges::copy(name, reinterpret_cast<char*>(entry + 1));
    std::uint64_t first = heap.names.load(std::memory_order_acquire);
    do {
        if (const auto* const named = detail::find_named(heap, first, name)) {
            detail::heap_free(heap, entry, size);
            if (named->type != detail::hash_of(type.name())) detail::throw_other_type(name);
            return detail::at<void>(heap, named->object);
        }
        entry->next = first;
    } while (!heap.names.compare_exchange_weak(first, detail::number_of(heap, entry), std::memory_order_acq_rel,
                                               std::memory_order_acquire));
    return object;
}

void SharedHeap::throw_taken(std::string_view name) {
    throw Error("there is a \"" + std::string(name) +
                "\" in this shared heap already: get() it, or choose another name");
}
void SharedHeap::throw_missing(std::string_view name) {
    throw Error("there is no \"" + std::string(name) + "\" in this shared heap: make() it before others get() it");
}

std::size_t SharedHeap::size() const { return header().units * detail::kUnit; }
std::size_t SharedHeap::used() const { return header().used.load(std::memory_order_relaxed) * detail::kUnit; }
const SharedMemory& SharedHeap::memory() const {
    header();
    return state_->memory;
}

void Codec<SharedHeap>::encode(detail::Writer& writer, const SharedHeap& heap) {
    detail::encode(writer, heap.memory());
}
SharedHeap Codec<SharedHeap>::decode(detail::Reader& reader) {
    return SharedHeap::attach(detail::decode<SharedMemory>(reader));
}

}    // namespace multihull
