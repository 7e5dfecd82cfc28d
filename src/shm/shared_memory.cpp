#include <multihull/shared_memory.hpp>

#include "os/memory.hpp"
#include "os/named_memory.hpp"

#include <multihull/codec.hpp>
#include <multihull/error.hpp>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <sys/types.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace multihull {

namespace {

// How a handle travels.
enum class Form : std::uint8_t {
    empty,
    sealed,      // a descriptor of anonymous memory
    named,       // a name, with what tells its segment from another
    unlinked,    // a descriptor of a segment whose name is gone
};

// As far as a sentence can show it.
std::string in_quotes(std::string_view name) {
    name = name.substr(0, name.find('\0'));
    return "\"" + std::string(name) + "\"";
}
std::string text_of(int error) { return std::strerror(error); }
std::string bytes_text(std::size_t size) { return std::to_string(size) + (size == 1 ? " byte" : " bytes"); }

void require_size(std::size_t size) {
    if (size == 0) throw Error("shared memory of 0 bytes can't be made: give a size of at least one byte");
}

// Names are what Python calls them, but shm_open's own form is taken as well.
std::string checked_name(std::string_view name) {
    if (name.starts_with('/')) name.remove_prefix(1);
    if (name.empty() || name == "." || name == ".." || name.size() > NAME_MAX || name.find('/') != name.npos ||
        name.find('\0') != name.npos) {
        throw Error(in_quotes(name) + " can't name shared memory: a name is 1 to " + std::to_string(NAME_MAX) +
                    " characters, none of them a slash");
    }
    return std::string(name);
}

// A mapping that is refused is told as what the user asked for.
os::Mapping map_whole(const os::Fd& fd, std::size_t size) {
    try {
        return os::map_shared(fd, size);
    } catch (const std::system_error& error) {
        throw Error("shared memory of " + bytes_text(size) + " can't be mapped (" + text_of(error.code().value()) +
                    "): use less, or raise the limit of address space (ulimit -v)");
    }
}

}    // namespace

struct SharedMemory::State {
    State(os::Fd descriptor, std::size_t size, std::string named)
        : fd(std::move(descriptor)),
          identity(os::identity_of(fd.get())),
          mapping(map_whole(fd, size)),
          name(std::move(named)),
          owner(::getpid()) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() {
        if (must_unlink && owner == ::getpid() && name_is_ours()) os::unlink_named(name);
    }

    // Between this and an unlink another may take the name; POSIX has no way to unlink a descriptor's own name.
    bool name_is_ours() const noexcept {
        if (name.empty()) return false;
        try {
            const os::Fd now = os::open_named(name);
            return now && os::identity_of(now.get()).same_file(identity);
        } catch (const std::system_error&) {
            return false;
        }
    }

    os::Fd fd;
    os::FileIdentity identity;
    os::Mapping mapping;
    std::string name;
    pid_t owner;    // the process that made this object: a forked copy has no duties
    bool must_unlink = false;
    bool is_unlinked = false;    // through this object
};

SharedMemory::SharedMemory(std::size_t size) {
    require_size(size);
    try {
        state_ = std::make_shared<State>(os::make_memfd("multihull shared memory", size), size, std::string());
    } catch (const std::system_error& error) {
        throw Error("shared memory of " + bytes_text(size) + " can't be made (" + error.what() +
                    "): use less, or raise the limit that it names");
    }
}

namespace {

// Sizes a new segment, or takes its name away again.
void reserve_or_unlink(const os::Fd& fd, const std::string& name, std::size_t size) {
    const int error = size > PTRDIFF_MAX ? EFBIG : os::reserve_file(fd, size);
    if (error == 0) return;
    os::unlink_named(name);
    std::string advice = "use less";
    if (error == ENOSPC) advice = "remove what is left in /dev/shm, or give it more room (in a container: --shm-size)";
    throw Error("shared memory " + in_quotes(name) + " of " + bytes_text(size) + " can't be made (" + text_of(error) +
                "): " + advice);
}

}    // namespace

SharedMemory SharedMemory::create(std::string_view name, std::size_t size, SharedMemoryOptions options) {
    const std::string checked = checked_name(name);
    require_size(size);
    os::Fd fd = os::create_named(checked, static_cast<mode_t>(options.mode));
    if (!fd) {
        const int error = errno;
        throw Error("shared memory " + in_quotes(checked) + " can't be made (" + text_of(error) + "): " +
                    (error == EEXIST ? "attach() to the one that is there, unlink it, or choose another name"
                                     : "see who may write to /dev/shm"));
    }
    reserve_or_unlink(fd, checked, size);
    SharedMemory memory;
    try {
        memory.state_ = std::make_shared<State>(std::move(fd), size, checked);
    } catch (...) {
        os::unlink_named(checked);
        throw;
    }
    memory.state_->must_unlink = !options.keep;
    return memory;
}

SharedMemory SharedMemory::create_named(std::size_t size, SharedMemoryOptions options) {
    for (;;) {
        const std::string name = "psm_" + os::random_hex(4);
        // Who takes the same name between this and create() makes create() say so, once in four thousand million times.
        if (!os::open_named(name)) return create(name, size, options);
    }
}

std::optional<SharedMemory> SharedMemory::try_attach(std::string_view name, std::size_t least_size) {
    const std::string checked = checked_name(name);
    os::Fd fd = os::open_named(checked);
    if (!fd) {
        if (errno == ENOENT) return std::nullopt;
        throw Error("shared memory " + in_quotes(checked) + " can't be attached to (" + text_of(errno) +
                    "): see its owner and permissions in /dev/shm");
    }
    const std::size_t size = os::identity_of(fd.get()).size;
    if (size < least_size || size == 0) {
        throw Error("shared memory " + in_quotes(checked) + " has " + bytes_text(size) + " where " +
                    bytes_text(least_size == 0 ? 1 : least_size) +
                    " are needed: its creator is not done yet, or it was made for something else");
    }
    return SharedMemory(std::make_shared<State>(std::move(fd), size, checked));
}

SharedMemory SharedMemory::attach(std::string_view name, std::size_t least_size) {
    if (auto memory = try_attach(name, least_size)) return *std::move(memory);
    throw Error("there is no shared memory named " + in_quotes(checked_name(name)) +
                ": it was unlinked, or its creator has not made it yet");
}

SharedMemory::State& SharedMemory::state() const {
    if (state_ == nullptr) {
        throw Error(
            "a SharedMemory was used that holds nothing: it was closed or moved from, or never given a segment");
    }
    return *state_;
}

std::size_t SharedMemory::size() const { return state().mapping.size(); }
std::byte* SharedMemory::data() const { return state().mapping.data(); }
const std::string& SharedMemory::name() const { return state().name; }
int SharedMemory::fileno() const { return state().fd.get(); }

void SharedMemory::check() const {
    const std::size_t now = os::identity_of(state().fd.get()).size;
    if (now < size()) {
        throw Error("shared memory " + in_quotes(name()) + " was cut from " + bytes_text(size()) + " to " +
                    bytes_text(now) + " by another program: what is gone can't be touched (SIGBUS); close it");
    }
}

void SharedMemory::unlink() {
    State& own = state();
    if (own.name.empty()) {
        throw Error("anonymous shared memory can't be unlinked: it has no name, and is gone with its last user");
    }
    const bool ours = own.name_is_ours();
    own.must_unlink = false;
    own.is_unlinked = true;
    const int error = ours ? os::unlink_named(own.name) : ENOENT;
    if (error != 0) {
        throw Error("shared memory " + in_quotes(own.name) + " can't be unlinked (" + text_of(error) +
                    "): somebody has unlinked it already");
    }
}

void SharedMemory::release() { state().must_unlink = false; }

void Codec<SharedMemory>::encode(detail::Writer& writer, const SharedMemory& memory) {
    if (!memory) {
        writer.put(Form::empty);
        return;
    }
    const auto& state = memory.state();
    const Form form = state.name.empty() ? Form::sealed : state.is_unlinked ? Form::unlinked : Form::named;
    writer.put(form);
    writer.put(std::uint64_t{state.mapping.size()});
    if (form == Form::named) {
        writer.put(state.identity.inode);
        detail::encode(writer, state.name);
    } else {
        writer.attach(state.fd.get());
    }
}

SharedMemory Codec<SharedMemory>::decode(detail::Reader& reader) {
    const auto form = static_cast<Form>(reader.get<std::uint8_t>());
    if (form == Form::empty) return {};
    if (form > Form::unlinked) detail::throw_damaged("it names shared memory of no known form");
    const auto size = static_cast<std::size_t>(reader.get<std::uint64_t>());
    if (form == Form::named) {
        const auto inode = reader.get<std::uint64_t>();
        SharedMemory memory = SharedMemory::attach(detail::decode<std::string>(reader), size);
        if (memory.state().identity.inode != inode) {
            throw Error(
                "shared memory " + in_quotes(memory.name()) +
                " is another segment than the one that was sent: it was unlinked meanwhile, and its name used again");
        }
        return memory;
    }
    os::Fd fd(reader.detach());
    if (size == 0 || os::identity_of(fd.get()).size < size || (form == Form::sealed && !os::has_sealed_size(fd))) {
        detail::throw_damaged("the shared memory that came with it has not the size that it says");
    }
    return SharedMemory(std::make_shared<SharedMemory::State>(std::move(fd), size, std::string()));
}

}    // namespace multihull
