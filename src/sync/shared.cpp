#include <multihull/const_array.hpp>
#include <multihull/shared.hpp>

#include "os/memory.hpp"
#include "shm/objects.hpp"

#include <multihull/error.hpp>

#include <memory>
#include <mutex>
#include <pthread.h>
#include <string>
#include <system_error>
#include <unordered_map>
#include <utility>

namespace multihull::detail {

namespace {

// In front of the bytes, which begin 64 further on or, where they are many, in extents of their own. Written before anybody else
// has a handle, and read once by each process.
struct BytesHead {
    std::uint64_t size;
    shm::Offset place;    // 0: right behind this
    std::uint64_t unused[6];
};
static_assert(sizeof(BytesHead) == 64);

constexpr std::uint32_t mask_of(shm::ObjectKind kind) { return 1U << static_cast<std::uint32_t>(kind); }

SharedBytes make_bytes(shm::ObjectKind kind, std::size_t size) {
    const bool inside = size <= shm::kObjectRoom - sizeof(BytesHead);
    auto object = shm::make_object(kind, sizeof(BytesHead) + (inside ? size : 0));
    auto* const head = static_cast<BytesHead*>(object->data());
    head->size = size;
    if (!inside) {
        head->place = shm::claim_for(*object, size);
        if (head->place == 0) {
            throw StartError("shared memory has no room for an array of " + std::to_string(size) +
                             " bytes: free some, or give the system more address space (ulimit -v)");
        }
    }
    std::byte* const data = inside ? reinterpret_cast<std::byte*>(head + 1) : shm::Region::instance().at(head->place);
    return {std::move(object), data, size};
}

// What the head says, checked: a process gone wild may have written there.
SharedBytes bytes_of(ObjectRef object) {
    auto* const head = static_cast<BytesHead*>(object_data(object));
    const std::uint64_t size = head->size;
    const shm::Offset place = head->place;
    auto& region = shm::Region::instance();
    if (place == 0 ? size > shm::kObjectRoom - sizeof(BytesHead) : !region.in_extents(place, size)) {
        throw_damaged("a shared value claims more memory than it can have");
    }
    return {std::move(object), place == 0 ? reinterpret_cast<std::byte*>(head + 1) : region.at(place),
            static_cast<std::size_t>(size)};
}

SharedBytes decode_bytes(Reader& reader, shm::ObjectKind kind) {
    return bytes_of(decode_object(reader, mask_of(kind)));
}

}    // namespace

SharedBytes make_value(std::size_t size) { return make_bytes(shm::ObjectKind::value, size); }
SharedBytes make_array(std::size_t size) { return make_bytes(shm::ObjectKind::array, size); }

SharedBytes decode_value_handle(Reader& reader, std::size_t size) {
    auto bytes = decode_bytes(reader, shm::ObjectKind::value);
    if (bytes.size != size) throw_damaged("a shared value has another size than its type");
    return bytes;
}
SharedBytes decode_array_handle(Reader& reader, std::size_t element_size) {
    auto bytes = decode_bytes(reader, shm::ObjectKind::array);
    if (bytes.size % element_size != 0) throw_damaged("a shared array does not hold whole elements");
    return bytes;
}
SharedPlace place_of_array(const ObjectRef& object) {
    SharedBytes bytes = bytes_of(object);
    return {shm::Region::instance().offset_of(bytes.data), std::move(bytes.object)};
}

namespace {

// A big array has extents of its own, so that nothing else lies in its pages: they are mapped once more, without the right to write.
// What this process has mapped so goes by the object, which the view keeps.
struct ReadOnlyView {
    ObjectRef object;
    os::Mapping mapping;

    ReadOnlyView(ObjectRef of, os::Mapping at) noexcept : object(std::move(of)), mapping(std::move(at)) {}
    ReadOnlyView(const ReadOnlyView&) = delete;
    ReadOnlyView& operator=(const ReadOnlyView&) = delete;
    ~ReadOnlyView();
};

struct ReadOnlyViews {
    std::mutex mutex;
    std::unordered_map<const SharedObject*, std::weak_ptr<const ReadOnlyView>> all;
};

// Leaked: handles with static lifetime come here at the end of the program.
ReadOnlyViews& views() {
    static auto* const all = new ReadOnlyViews;
    static const bool watching = [] {
        ::pthread_atfork([] { views().mutex.lock(); }, [] { views().mutex.unlock(); }, [] { views().mutex.unlock(); });
        return true;
    }();
    static_cast<void>(watching);
    return *all;
}

ReadOnlyView::~ReadOnlyView() {
    const std::lock_guard guard(views().mutex);
    const auto entry = views().all.find(object.get());
    // There is another view already where one was asked for while this one was on its way out.
    if (entry != views().all.end() && entry->second.expired()) views().all.erase(entry);
}

std::shared_ptr<const ReadOnlyView> view_read_only(const SharedBytes& bytes) {
    auto& known = views();
    const std::lock_guard guard(known.mutex);
    auto& place = known.all[bytes.object.get()];
    if (auto view = place.lock()) return view;
    const auto& region = shm::Region::instance();
    try {
        auto view = std::make_shared<const ReadOnlyView>(bytes.object,
                                                         os::map_read_only(region.fd(), region.offset_of(bytes.data),
                                                                           bytes.size));
        place = view;
        return view;
    } catch (const std::system_error& error) {
        throw StartError("a ConstArray of " + std::to_string(bytes.size) + " bytes can't be mapped (" + error.what() +
                         "): hold fewer of them at once, or raise vm.max_map_count");
    }
}

}    // namespace

ConstBytes decode_const_array(Reader& reader, std::size_t element_size) {
    SharedBytes bytes = decode_array_handle(reader, element_size);
    const bool own_pages = bytes.size > shm::kObjectRoom - sizeof(BytesHead);
    if (!own_pages) return {nullptr, std::move(bytes.object), bytes.data, bytes.size};
    auto view = view_read_only(bytes);
    const std::byte* const data = view->mapping.data();
    return {std::move(view), std::move(bytes.object), data, bytes.size};
}

}    // namespace multihull::detail
