// A piece of memory that several processes map: anonymous, for the processes of one program, or named, for any program and Python.
//
// A SharedMemory is a handle: a copy names the same mapping, and one that travels to another process names the same memory there.
// Different handles may be used by different threads. The bytes themselves are guarded by nothing: use a Lock or atomics.
//
// Invariants
// (1) An anonymous segment never changes its size (sealed), has no name, and is gone with the last process that holds it,
//     however they end.
// (2) The duty to unlink a name lies with the handles that create() gave, in the process that called it: the last of them to end
//     unlinks, unless `keep` or release() said otherwise. Attaching never unlinks; neither does a forked child.
// (3) A name that has come to mean another segment meanwhile is left alone.
// (4) What is mapped was all there when it was mapped.
//
// A named segment can't be sealed: another program may cut it short later, and touching what is gone raises SIGBUS (in a worker:
// WorkerCrashed with that signal). check() tells whether that has happened. A creator that is killed leaves the name behind, as
// everywhere; anonymous memory leaves nothing.
#pragma once

#include <multihull/detail/codec_types.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace multihull {

/// Settings of a named segment.
struct SharedMemoryOptions {
    bool keep = false;       ///< The name stays when the creator's handles are gone; somebody else unlinks it.
    unsigned mode = 0600;    ///< Permissions, less the process's umask.
};

class SharedMemory {
public:
    /// An empty handle.
    SharedMemory() noexcept = default;
    /// Makes an anonymous segment of `size` bytes, all zeros. Pages take memory when they are touched.
    explicit SharedMemory(std::size_t size);

    /// Makes a segment with a name, all zeros, its memory set aside at once. The name is Python's: without the slash of
    /// shm_open. Throws Error where the name is taken or there is no room.
    static SharedMemory create(std::string_view name, std::size_t size, SharedMemoryOptions options = {});
    /// The same under a name of its own, `psm_` and eight random digits as Python chooses them.
    static SharedMemory create_named(std::size_t size, SharedMemoryOptions options = {});

    /// Maps the segment with that name, whoever made it. Throws Error where there is none, or where it is smaller than
    /// `least_size` bytes.
    static SharedMemory attach(std::string_view name, std::size_t least_size = 1);
    /// The same; empty where no segment has that name.
    static std::optional<SharedMemory> try_attach(std::string_view name, std::size_t least_size = 1);

    /// Whether the handle holds a segment.
    explicit operator bool() const noexcept { return state_ != nullptr; }
    /// Bytes that are mapped: what was asked for, or the size of the file that was attached to.
    std::size_t size() const;
    /// The first byte, at the beginning of a page.
    std::byte* data() const;
    /// All bytes; valid until the last handle on this mapping is closed.
    std::span<std::byte> bytes() const { return {data(), size()}; }
    /// The bytes as an array: as many whole elements as there are.
    template <class T>
        requires std::is_trivially_copyable_v<T>
    std::span<T> as() const {
        static_assert(!std::is_pointer_v<T> && !std::is_member_pointer_v<T>,
                      "multihull: a pointer in shared memory means nothing in another process: keep offsets");
        static_assert(alignof(T) <= 4096, "multihull: shared memory is aligned to pages, and not to more");
        return {reinterpret_cast<T*>(data()), size() / sizeof(T)};
    }
    /// The name, as attach() and Python take it; empty for anonymous memory.
    const std::string& name() const;
    /// The descriptor of the memory, valid as long as the mapping.
    int fileno() const;

    /// Throws Error where another program has cut the segment short since it was mapped.
    void check() const;

    /// Lets go of the segment, as the end of the handle does. The last handle unmaps, and unlinks where that is its duty.
    void close() noexcept { state_.reset(); }
    /// Takes the name away now: nobody can attach any more, and who is attached goes on. Throws Error for anonymous memory, and
    /// where the name is gone already or means another segment.
    void unlink();
    /// Gives up the duty to unlink, for all handles of this process: somebody else will.
    void release();

private:
    friend struct Codec<SharedMemory>;
    struct State;
    explicit SharedMemory(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

    State& state() const;

    std::shared_ptr<State> state_;
};

/// A handle travels to another process and names the same memory there: anonymous memory by its descriptor, a named segment by
/// its name, which must still be there when it arrives.
template <>
struct Codec<SharedMemory> {
    static void encode(detail::Writer& writer, const SharedMemory& memory);
    static SharedMemory decode(detail::Reader& reader);
};

}    // namespace multihull
