// A file descriptor that can travel to another process: a file, a socket, anything that the system numbers.
//
// Not thread-safe. Belongs to the process that holds it; a forked child has a copy of its own.
#pragma once

#include <multihull/codec.hpp>

#include <utility>

namespace multihull {

/// Owns a descriptor and closes it. Can only be moved: also into another process, which closes it here.
class FileDescriptor {
public:
    FileDescriptor() = default;
    /// Takes over a descriptor.
    explicit FileDescriptor(int descriptor) noexcept : descriptor_(descriptor) {}
    FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        if (this != &other) {
            close();
            descriptor_ = other.release();
        }
        return *this;
    }
    ~FileDescriptor() { close(); }

    /// One of its own for a descriptor that stays its owner's. Throws Error when there is none to be had.
    static FileDescriptor duplicate(int descriptor);

    int fileno() const noexcept { return descriptor_; }
    explicit operator bool() const noexcept { return descriptor_ >= 0; }
    /// Gives it up without closing it.
    int release() noexcept { return std::exchange(descriptor_, -1); }
    void close() noexcept;

private:
    int descriptor_ = -1;
};

/// Travels once, wherever bytes can be read once only: to a new process, into one task and back, in a message of a Connection (not
/// over TCP) or a Queue. Closed here when it was encoded; whoever never reads it never gets it. Throws Error for a closed one.
template <>
struct Codec<FileDescriptor> {
    static void encode(detail::Writer& writer, FileDescriptor& descriptor);
    template <class T>
    static void encode(detail::Writer&, const T&) {
        static_assert(!sizeof(T),
                      "multihull: a FileDescriptor can only be moved: send it by std::move, from what is not const");
    }
    static FileDescriptor decode(detail::Reader& reader);
};

}    // namespace multihull
