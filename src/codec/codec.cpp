// What the templates of the codec leave to be compiled once: growing, refusing, and the tables of shared pointers.
#include <multihull/codec.hpp>

#include <multihull/error.hpp>

#include "codec/exceptions.hpp"

#include <algorithm>
#include <array>
#include <future>
#include <ios>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multihull {
namespace detail {

void throw_cut_short(std::size_t wanted, std::size_t left) {
    throw CodecError("an encoded value is cut short: it goes on for " + std::to_string(wanted) + " bytes and " +
                     std::to_string(left) + " are left");
}
void throw_bad_length(std::uint64_t length, std::size_t left) {
    throw CodecError("an encoded value is damaged: it claims " + std::to_string(length) + " elements where " +
                     std::to_string(left) + " bytes are left");
}
void throw_damaged(const char* what) { throw CodecError(std::string("an encoded value is damaged: ") + what); }
void throw_too_deep() {
    throw CodecError(
        "a value nests more than " + std::to_string(kMaxDepth) +
        " containers or pointers inside one another; send long lists and deep trees as a vector with indices");
}
void throw_cannot_encode(const char* why) { throw CodecError(std::string("a value can't be encoded: ") + why); }

void copy_in_pieces(void* to, const void* from, std::size_t size) noexcept {
    auto* place = static_cast<std::byte*>(to);
    const auto* next = static_cast<const std::byte*>(from);
    while (size != 0) {
        const std::size_t piece = std::min(size, kQuickPiece);
        std::memcpy(place, next, piece);
        place += piece;
        next += piece;
        size -= piece;
    }
}

std::span<std::byte> VectorGrowth::grow(std::span<const std::byte> used, std::size_t capacity) {
    auto fresh = std::make_unique_for_overwrite<std::byte[]>(capacity);
    copy_bytes(fresh.get(), used.data(), used.size());
    bytes_ = std::move(fresh);
    return {bytes_.get(), capacity};
}

void Writer::make_room(std::size_t size) {
    const std::size_t used = this->size();
    const auto capacity = static_cast<std::size_t>(end_ - begin_);
    if (size > std::numeric_limits<std::size_t>::max() / 4) {
        throw std::bad_alloc();
    }
    // One big piece is likely to be nearly all there is, and is worth being exact about; many small ones double.
    std::size_t wanted = used + size;
    wanted = size > capacity ? wanted + wanted / 32 + 64 : std::max(wanted, 2 * capacity);
    const std::span<std::byte> room = growth_->grow(bytes(), wanted);
    begin_ = room.data();
    at_ = begin_ + used;
    end_ = begin_ + room.size();
}

bool Writer::keep(std::shared_ptr<const void> named) {
    if (kept_ == nullptr) return false;
    kept_->push_back(std::move(named));
    return true;
}

void Reader::took_over(std::shared_ptr<const void> named) {
    if (taken_over_ != nullptr) taken_over_->add(std::move(named));
}

void TakenOver::add(std::shared_ptr<const void> named) {
    const std::lock_guard guard(mutex_);
    objects_.push_back(std::move(named));
}

void Reader::expect_end() const {
    if (remaining() != 0) {
        throw_damaged("bytes are left over behind it");
    }
}

// Shared pointers.

// Keeps what it has seen alive, or the address of one that is gone could be taken for another's.
class SharedWritten {
public:
    static SharedWritten& of(Writer& writer) {
        if (writer.shared_ == nullptr) {
            writer.shared_.reset(new SharedWritten);
        }
        return *writer.shared_;
    }

    SharedId begin(std::shared_ptr<const void> pointer, const void* type) {
        const auto next = static_cast<std::uint32_t>(entries_.size() + 1);
        // A struct and its first field have one address.
        const auto [place, is_new] = ids_.try_emplace({pointer.get(), type}, next);
        if (is_new) {
            entries_.push_back({std::move(pointer), false});
        } else if (!entries_[place->second - 1].is_whole) {
            throw_cannot_encode("its std::shared_ptr form a circle; break it with an index");
        }
        return {place->second, is_new};
    }
    void end(std::uint32_t id) { entries_[id - 1].is_whole = true; }

private:
    struct Key {
        const void* address;
        const void* type;
        bool operator==(const Key&) const = default;
    };
    struct HashKey {
        std::size_t operator()(const Key& key) const noexcept {
            return std::hash<const void*>()(key.address) * 31 + std::hash<const void*>()(key.type);
        }
    };
    struct Entry {
        std::shared_ptr<const void> pointer;
        bool is_whole;
    };
    std::unordered_map<Key, std::uint32_t, HashKey> ids_;
    std::vector<Entry> entries_;
};

class SharedRead {
public:
    static SharedRead& of(Reader& reader) {
        if (reader.shared_ == nullptr) {
            reader.shared_.reset(new SharedRead);
        }
        return *reader.shared_;
    }

    bool begin(std::uint32_t id) {
        if (id != entries_.size() + 1) {
            return false;
        }
        entries_.emplace_back();
        return true;
    }
    void end(std::uint32_t id, std::shared_ptr<void> pointer, const void* type) {
        entries_[id - 1] = {std::move(pointer), type};
    }
    const std::shared_ptr<void>& find(std::uint32_t id, const void* type) const {
        if (id > entries_.size() || entries_[id - 1].type != type) {
            throw_damaged("a std::shared_ptr points to nothing that came before it");
        }
        return entries_[id - 1].pointer;
    }

private:
    struct Entry {
        std::shared_ptr<void> pointer;
        const void* type = nullptr;
    };
    std::vector<Entry> entries_;
};

void DeleteShared::operator()(SharedWritten* table) const noexcept { delete table; }
void DeleteShared::operator()(SharedRead* table) const noexcept { delete table; }

SharedId begin_shared(Writer& writer, std::shared_ptr<const void> pointer, const void* type) {
    return SharedWritten::of(writer).begin(std::move(pointer), type);
}
void end_shared(Writer& writer, std::uint32_t id) { SharedWritten::of(writer).end(id); }
bool begin_shared(Reader& reader, std::uint32_t id) { return SharedRead::of(reader).begin(id); }
void end_shared(Reader& reader, std::uint32_t id, std::shared_ptr<void> pointer, const void* type) {
    SharedRead::of(reader).end(id, std::move(pointer), type);
}
std::shared_ptr<void> find_shared(Reader& reader, std::uint32_t id, const void* type) {
    return SharedRead::of(reader).find(id, type);
}

}    // namespace detail

// Error codes, exceptions.

namespace {

// The standard's categories, each an object of its own in every process.
std::array<const std::error_category*, 4> standard_categories() {
    return {&std::generic_category(), &std::system_category(), &std::iostream_category(), &std::future_category()};
}

}    // namespace

void Codec<std::error_code>::encode(detail::Writer& writer, const std::error_code& code) {
    const auto categories = standard_categories();
    for (std::size_t i = 0; i < categories.size(); ++i) {
        if (code.category() == *categories[i]) {
            writer.put(static_cast<std::uint8_t>(i));
            writer.put(code.value());
            return;
        }
    }
    detail::throw_cannot_encode("its std::error_code is of a category that only this process knows");
}

std::error_code Codec<std::error_code>::decode(detail::Reader& reader) {
    const auto categories = standard_categories();
    const auto index = reader.get<std::uint8_t>();
    if (index >= categories.size()) {
        detail::throw_damaged("a std::error_code is of no known category");
    }
    return {reader.get<int>(), *categories[index]};
}

void Codec<std::exception_ptr>::encode(detail::Writer& writer, const std::exception_ptr& error) {
    detail::encode_exception(writer, error, {});
}

std::exception_ptr Codec<std::exception_ptr>::decode(detail::Reader& reader) {
    if (reader.remaining() == 0) {
        detail::throw_cut_short(detail::kSmallestException, 0);    // at the end of a message it would be std::bad_alloc
    }
    return detail::decode_exception(reader);
}

}    // namespace multihull
