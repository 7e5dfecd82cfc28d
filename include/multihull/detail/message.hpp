// What Connection's templates leave to be compiled once: a message on its way out, and one that has come in.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/file_descriptor.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace multihull::detail {

/// Descriptors that travel beside the bytes of one message, which hold their places in the list.
class MessageDescriptors final : public Attachments {
public:
    DescriptorTicket put(int descriptor) override;
    int take(const DescriptorTicket& ticket) override;

    std::vector<FileDescriptor>& list() noexcept { return list_; }

private:
    std::vector<FileDescriptor> list_;
};

/// A value becomes bytes in memory of this process.
class OutgoingMessage {
public:
    OutgoingMessage() noexcept : writer_(first_, growth_, &descriptors_) {}
    Writer& writer() noexcept { return writer_; }
    MessageDescriptors& descriptors() noexcept { return descriptors_; }
    ~OutgoingMessage();
    OutgoingMessage(const OutgoingMessage&) = delete;
    OutgoingMessage& operator=(const OutgoingMessage&) = delete;

    /// Before its first byte is out: what it names is nobody's then, for its reader may be quicker than this process. Again does nothing.
    void begin_sending() noexcept;
    /// Its last byte is out. What it names ends with a message that does not come so far.
    void sent() noexcept { writer_.take_pins(); }

private:
    std::byte first_[512];
    VectorGrowth growth_;
    MessageDescriptors descriptors_;
    Writer writer_;
    bool adrift_ = false;
};

/// The bytes of a message, in memory that grows as they come and is not set to zero first.
class IncomingMessage {
public:
    std::span<const std::byte> bytes() const noexcept { return {bytes_.get(), size_}; }
    /// Room behind the first `used` bytes, up to `size` in all.
    std::span<std::byte> room(std::size_t used, std::size_t size);
    void set_size(std::size_t size) noexcept { size_ = size; }
    MessageDescriptors& descriptors() noexcept { return descriptors_; }

private:
    struct Free {
        void operator()(std::byte* bytes) const noexcept;
    };
    std::unique_ptr<std::byte[], Free> bytes_;
    std::size_t capacity_ = 0;
    std::size_t size_ = 0;
    MessageDescriptors descriptors_;
};

}    // namespace multihull::detail
