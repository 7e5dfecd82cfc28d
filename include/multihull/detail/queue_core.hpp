// A queue of bytes, which Queue<T> turns values into. The work is done in src/channel/queue.cpp.
#pragma once

#include <multihull/detail/shared_object.hpp>
#include <multihull/detail/wait_source.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace multihull::detail {

/// Memory for one big message, owned by this process until it is put or given back.
class QueueBlock {
public:
    QueueBlock() = default;
    QueueBlock(ObjectRef queue, std::uint32_t index, std::span<std::byte> bytes) noexcept
        : queue_(std::move(queue)), index_(index), bytes_(bytes) {}
    QueueBlock(QueueBlock&& other) noexcept
        : queue_(std::move(other.queue_)), index_(other.index_), bytes_(std::exchange(other.bytes_, {})) {}
    QueueBlock& operator=(QueueBlock&& other) noexcept {
        std::swap(queue_, other.queue_);
        std::swap(index_, other.index_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~QueueBlock();

    std::span<std::byte> bytes() const noexcept { return bytes_; }
    std::uint32_t index() const noexcept { return index_; }
    const ObjectRef& queue() const noexcept { return queue_; }
    explicit operator bool() const noexcept { return queue_ != nullptr; }
    /// It is the queue's now.
    void release() noexcept { queue_.reset(); }

private:
    ObjectRef queue_;
    std::uint32_t index_ = 0;
    std::span<std::byte> bytes_;
};

inline constexpr std::size_t kInlineMessage = 2032;

/// A message that was taken: in its own memory, or in a block of the queue. What it names and nobody takes over ends with it.
class QueueMessage {
public:
    QueueMessage() = default;
    QueueMessage(const QueueMessage&) = delete;
    QueueMessage& operator=(const QueueMessage&) = delete;
    ~QueueMessage() {
        if (pins_ != 0) [[unlikely]] {
            drop_pins(pins_);
        }
    }

    std::span<const std::byte> bytes() const noexcept {
        return block_ ? std::span<const std::byte>(block_.bytes()).first(size_)
                      : std::span<const std::byte>(inline_).first(size_);
    }

private:
    friend class QueueCore;
    std::size_t size_ = 0;
    std::uint32_t pins_ = 0;
    QueueBlock block_;
    alignas(64)
        std::array<std::byte, kInlineMessage> inline_;    // left as it is: setting it to zero costs more than a message
};

class QueueCore {
public:
    explicit QueueCore(ObjectRef object) noexcept : object_(std::move(object)) {}
    static QueueCore make(std::size_t maxsize, bool joinable);
    static QueueCore decode(Reader& reader);
    void encode(Writer& writer) const { encode_object(writer, object_); }

    /// Puts a message of at most kInlineMessage bytes. False when there was no room by the deadline (monotonic ns; 0: don't wait). `pins` of
    /// what it names (Writer::pins) are the queue's when this answers true.
    bool put(std::span<const std::byte> bytes, std::uint32_t pins, std::int64_t deadline) const;
    /// Puts a block, of which the first `size` bytes are the message. It is the queue's when this answers true.
    bool put(QueueBlock& block, std::size_t size, std::uint32_t pins, std::int64_t deadline) const;
    /// Takes the oldest message. False when there was none by the deadline.
    bool take(QueueMessage& message, std::int64_t deadline) const;
    /// Memory for a message of that many bytes. Throws std::bad_alloc when there is no more.
    QueueBlock loan(std::size_t size) const;

    std::size_t qsize() const noexcept;
    std::size_t maxsize() const noexcept;
    void close() const;
    bool closed() const noexcept;
    void task_done() const;
    bool join(std::int64_t deadline) const;
    const ObjectRef& object() const noexcept { return object_; }
    std::shared_ptr<WaitSource> wait_source() const;

private:
    ObjectRef object_;
};

/// Collects a message: in memory of its own while it is small, then in a block of the queue, so that big ones are copied once.
class QueueWriter final : public Growth {
public:
    explicit QueueWriter(const QueueCore& core) noexcept : core_(core), writer_(first_, *this) {}
    ~QueueWriter() = default;
    Writer& writer() noexcept { return writer_; }
    bool put(std::int64_t deadline) {
        const std::uint32_t pins = writer_.pins();
        const bool done =
            block_ ? core_.put(block_, writer_.size(), pins, deadline) : core_.put(writer_.bytes(), pins, deadline);
        if (done) writer_.take_pins();
        return done;
    }
    std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override;

private:
    const QueueCore& core_;
    QueueBlock block_;
    Writer writer_;
    alignas(64) std::array<std::byte, kInlineMessage> first_;
};

[[noreturn]] void throw_queue_empty();
[[noreturn]] void throw_queue_full();
std::int64_t queue_deadline(std::int64_t timeout_ns) noexcept;

}    // namespace multihull::detail
