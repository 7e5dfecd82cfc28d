// The two ends of an encoding: a Writer that fills bytes and asks for more room, and a Reader that trusts none of them.
//
// Not thread-safe: one Writer or Reader belongs to one thread.
//
// Invariants
// (1) begin_ <= at_ <= end_, in one piece of memory; [begin_, at_) is what was written, or read.
// (2) A Writer whose Growth throws is as it was before the call.
// (3) A Reader never hands out a byte outside its span, and never a length that the rest of the span cannot hold.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::detail {

/// How deep values may nest through pointers and containers, so that no bytes and no cycle can overflow a stack.
inline constexpr std::uint32_t kMaxDepth = 1000;

/// Precedes what a user's functions wrote, so that every value takes at least a byte and a reader out of step is noticed.
inline constexpr std::uint8_t kUserMark = 0x5a;

/// What elements are aligned to at most: no more than what a Writer is given can be relied on to be.
inline constexpr std::size_t kMaxAlignment = 64;

/// From here on a Writer leaves copying to its Growth, which knows whose caches the bytes are wanted in.
inline constexpr std::size_t kLargeCopy = std::size_t{256} << 10;

/// Whether std::memcpy() may take twenty times as long: it uses `rep movsb`, with which processors of the Zen family copy byte by byte where
/// what is written is ahead of what is read by a few bytes, counted within a page. Memory that a page begins with, and a vector's behind
/// an allocator's 16 bytes, are often in such places.
inline bool copies_slowly(const void* to, const void* from, std::size_t size) noexcept {
    constexpr std::size_t kAnyway = 2048;    // fewer bytes are copied otherwise
    constexpr std::uintptr_t kPage = 4096;
    constexpr std::uintptr_t kVector = 32;
    const auto ahead = (reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from)) % kPage;
    return size > kAnyway && ahead != 0 && ahead < kVector;
}

/// Of bytes that are copied slowly, as many as are not.
inline constexpr std::size_t kQuickPiece = 1024;

void copy_in_pieces(void* to, const void* from, std::size_t size) noexcept;

/// std::memcpy(), at its usual speed wherever the bytes are.
inline void copy_bytes(void* to, const void* from, std::size_t size) noexcept {
    if (copies_slowly(to, from, size)) [[unlikely]] {
        copy_in_pieces(to, from, size);
    } else if (size != 0) {
        std::memcpy(to, from, size);
    }
}

/// Where a Writer gets more room when bytes do not fit.
class Growth {
public:
    /// At least `capacity` bytes, of which the first used.size() are a copy of `used`. Throws when there are none; `used` then still holds.
    virtual std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) = 0;
    virtual void copy(std::byte* to, const void* from, std::size_t size) { copy_bytes(to, from, size); }

protected:
    ~Growth() = default;
};

/// Memory of this process, not set to zero first.
class VectorGrowth final : public Growth {
public:
    std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override;

private:
    std::unique_ptr<std::byte[]> bytes_;
};

/// What the bytes hold of a file descriptor: where it is kept until they are read.
struct DescriptorTicket {
    std::uint32_t keeper = 0;    ///< The process that keeps it; 0 where it travels beside the bytes.
    std::uint32_t number = 0;    ///< Which of those that are kept there, or came along.
    std::uint64_t secret = 0;    ///< So that nobody takes what was given to another.
};

/// Carries file descriptors beside the bytes, or keeps them elsewhere meanwhile. Where a Writer or Reader has none of its own, the
/// exchange does: see src/process/exchange.hpp.
class Attachments {
public:
    /// Lends a descriptor, which is duplicated; the ticket is what the bytes hold of it.
    virtual DescriptorTicket put(int descriptor) = 0;
    /// The descriptor with that ticket, which now belongs to the caller. Throws CodecError for one that was not put, or was taken before.
    virtual int take(const DescriptorTicket& ticket) = 0;

protected:
    ~Attachments() = default;
};

class Reader;
class Writer;
class SharedWritten;    // the shared_ptr already written by one encode()
class SharedRead;       // the shared_ptr already read by one decode()

struct DeleteShared {
    void operator()(SharedWritten* table) const noexcept;
    void operator()(SharedRead* table) const noexcept;
};

[[noreturn]] void throw_cut_short(std::size_t wanted, std::size_t left);
[[noreturn]] void throw_bad_length(std::uint64_t length, std::size_t left);
[[noreturn]] void throw_damaged(const char* what);
[[noreturn]] void throw_too_deep();
[[noreturn]] void throw_cannot_encode(const char* why);

// The tables of shared_ptr, kept from the first of a value to its end: see codec.cpp.
struct SharedId {
    std::uint32_t id;
    bool is_new;
};
SharedId begin_shared(Writer& writer, std::shared_ptr<const void> pointer, const void* type);
void end_shared(Writer& writer, std::uint32_t id);
bool begin_shared(Reader& reader, std::uint32_t id);
void end_shared(Reader& reader, std::uint32_t id, std::shared_ptr<void> pointer, const void* type);
std::shared_ptr<void> find_shared(Reader& reader, std::uint32_t id, const void* type);
/// Gives back what the bytes of a message name, of which nobody has read them (shm/objects.cpp).
void drop_pins(std::uint32_t first) noexcept;

/// Its address stands for the type.
template <class T>
inline constexpr char kTypeTag{};

/// Writes values one after another, first into the span it is given, then into what its Growth provides.
class Writer {
public:
    Writer(std::span<std::byte> first, Growth& growth, Attachments* attachments = nullptr) noexcept
        : begin_(first.data()),
          at_(first.data()),
          end_(first.data() + first.size()),
          growth_(&growth),
          attachments_(attachments) {}
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;
    ~Writer() {
        if (pins_ != 0) [[unlikely]] {
            drop_pins(pins_);
        }
    }

    /// Room for `size` bytes, which the caller fills.
    std::byte* claim(std::size_t size) {
        if (static_cast<std::size_t>(end_ - at_) < size) [[unlikely]] {
            make_room(size);
        }
        std::byte* const place = at_;
        at_ += size;
        return place;
    }

    void write(const void* data, std::size_t size) {
        std::byte* const place = claim(size);
        if (size >= kLargeCopy) [[unlikely]] {
            growth_->copy(place, data, size);
        } else {
            copy_bytes(place, data, size);
        }
    }

    /// Writes at a multiple of `alignment` from the beginning: first a byte that says how many more are skipped. None is skipped,
    /// nor said to be, where the alignment is 1.
    void write_aligned(const void* data, std::size_t size, std::size_t alignment) {
        if (alignment > 1) {
            at_ = claim(alignment + size);    // room for both at once
            write_padding(alignment);
        }
        write(data, size);
    }

    /// What write_aligned() puts in front of data, which then begin at a multiple of `alignment` if `elsewhere` bytes are put in before them.
    void write_padding(std::size_t alignment, std::size_t elsewhere = 0) {
        if (alignment <= 1) return;
        alignment = alignment < kMaxAlignment ? alignment : kMaxAlignment;
        std::byte* const place = claim(alignment);
        const std::size_t padding =
            (alignment - (static_cast<std::size_t>(place + 1 - begin_) + elsewhere) % alignment) % alignment;
        std::memset(place, 0, 1 + padding);
        *place = static_cast<std::byte>(padding);
        at_ = place + 1 + padding;
    }

    template <class T>
        requires std::is_trivially_copyable_v<T>
    void put(const T& value) {
        std::memcpy(claim(sizeof(T)), static_cast<const void*>(std::addressof(value)), sizeof(T));
    }

    void write_length(std::size_t length) { put(std::uint64_t{length}); }

    std::span<const std::byte> bytes() const noexcept { return {begin_, at_}; }
    std::size_t size() const noexcept { return static_cast<std::size_t>(at_ - begin_); }
    /// Forgets what was written after the first `size` bytes.
    void truncate(std::size_t size) noexcept { at_ = begin_ + size; }

    /// Overwrites what was written at `position`.
    void patch(std::size_t position, std::uint64_t value) noexcept {
        std::memcpy(begin_ + position, &value, sizeof value);
    }

    /// Sends a file descriptor along, which stays the caller's. It can be taken once.
    void attach(int descriptor);

    /// Has what the bytes name (a Queue, a Lock) kept alive in the list, by a sender that outlasts every reader of the bytes. Without
    /// one the bytes are a message: what they name waits for the one who reads them.
    void keep_in(std::vector<std::shared_ptr<const void>>& list) noexcept { kept_ = &list; }
    /// False where there is no such list.
    bool keep(std::shared_ptr<const void> named);
    /// Says that the bytes go to a process of another family, on another machine perhaps, where nothing of this one's memory is: what
    /// names a shared object or a file descriptor then can't be encoded.
    void leave_family() noexcept { leaves_family_ = true; }
    bool leaves_family() const noexcept { return leaves_family_; }
    /// The shared objects that the bytes name, and that wait for their reader: the first of the chain in the table of pins, 0 for none.
    /// They end with the Writer, unless take_pins() has handed them on with the bytes.
    std::uint32_t& pins() noexcept { return pins_; }
    std::uint32_t take_pins() noexcept { return std::exchange(pins_, 0); }

private:
    friend class EncodeScope;
    template <class Stream>
    friend class Descent;
    friend class SharedWritten;
    friend class SpanOutputArchive;

    void make_room(std::size_t size);

    std::byte* begin_;
    std::byte* at_;
    std::byte* end_;
    Growth* growth_;
    Attachments* attachments_;
    std::vector<std::shared_ptr<const void>>* kept_ = nullptr;
    bool leaves_family_ = false;
    std::uint32_t pins_ = 0;
    std::unique_ptr<SharedWritten, DeleteShared> shared_;
    class SpanOutputArchive* archive_ = nullptr;    // the one whose serialize() is running
    std::uint32_t depth_ = 0;
};

/// What messages have named that may be read again: kept alive for as long as somebody may. Thread-safe.
class TakenOver {
public:
    void add(std::shared_ptr<const void> named);

private:
    std::mutex mutex_;
    std::vector<std::shared_ptr<const void>> objects_;
};

/// Reads what a Writer wrote, or whatever else a broken process left there: then it throws CodecError.
class Reader {
public:
    explicit Reader(std::span<const std::byte> bytes, Attachments* attachments = nullptr) noexcept
        : at_(bytes.data()), end_(bytes.data() + bytes.size()), attachments_(attachments) {}
    /// Of a message that may be read again: see keep_in().
    Reader(std::span<const std::byte> bytes, TakenOver& list) noexcept : Reader(bytes) { keep_in(list); }
    /// Of bytes from a process of another family.
    struct FromAfar {};
    Reader(std::span<const std::byte> bytes, FromAfar) noexcept : Reader(bytes) { enters_family_ = true; }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    /// The next `size` bytes where they are, for as long as the span lives.
    std::span<const std::byte> view(std::size_t size) {
        if (remaining() < size) [[unlikely]] {
            throw_cut_short(size, remaining());
        }
        const std::byte* const place = at_;
        at_ += size;
        return {place, size};
    }

    void read(void* destination, std::size_t size) { copy_bytes(destination, view(size).data(), size); }

    template <class T>
        requires std::is_trivially_copyable_v<T>
    T get() {
        std::array<std::byte, sizeof(T)> bytes;
        read(bytes.data(), sizeof(T));
        return std::bit_cast<T>(bytes);
    }

    std::size_t remaining() const noexcept { return static_cast<std::size_t>(end_ - at_); }

    /// A count of elements that take at least that many bytes each, all of which are still there.
    std::size_t read_length(std::size_t min_bytes_per_element) {
        const auto length = get<std::uint64_t>();
        if (length > remaining() / (min_bytes_per_element == 0 ? 1 : min_bytes_per_element)) [[unlikely]] {
            throw_bad_length(length, remaining());
        }
        return static_cast<std::size_t>(length);
    }

    /// Throws CodecError unless everything was read.
    void expect_end() const;

    /// Takes the next file descriptor that was sent along. Throws CodecError when it was taken before, or its keeper is dead.
    int detach();

    /// Whether the bytes come from a process of another family: what they name is not here, and can't be decoded.
    bool enters_family() const noexcept { return enters_family_; }
    /// Says that the bytes may be read again while the list exists: what this reader is the first to take over is kept in it too.
    void keep_in(TakenOver& list) noexcept { taken_over_ = &list; }
    /// Is told of what waited for a reader of the bytes, and is this one's now.
    void took_over(std::shared_ptr<const void> named);

private:
    friend class DecodeScope;
    template <class Stream>
    friend class Descent;
    friend class SharedRead;
    friend class SpanInputArchive;

    const std::byte* at_;
    const std::byte* end_;
    Attachments* attachments_;
    bool enters_family_ = false;
    TakenOver* taken_over_ = nullptr;
    std::unique_ptr<SharedRead, DeleteShared> shared_;
    class SpanInputArchive* archive_ = nullptr;    // the one whose serialize() is running
    std::uint32_t depth_ = 0;
};

/// One level deeper into a value, for as long as it lives.
template <class Stream>
class Descent {
public:
    explicit Descent(Stream& stream) : stream_(stream) {
        if (stream_.depth_ >= kMaxDepth) [[unlikely]] {
            throw_too_deep();
        }
        ++stream_.depth_;
    }
    ~Descent() { --stream_.depth_; }
    Descent(const Descent&) = delete;
    Descent& operator=(const Descent&) = delete;

private:
    Stream& stream_;
};

}    // namespace multihull::detail
