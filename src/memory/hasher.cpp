#include <multihull/detail/hash_value.hpp>
#include <multihull/error.hpp>
#include <multihull/hasher.hpp>

#include "memory/xxh3.hpp"

#include <memory>
#include <new>

namespace multihull {

namespace {

XXH3_state_t* state_in(std::byte* bytes) noexcept { return std::launder(reinterpret_cast<XXH3_state_t*>(bytes)); }
const XXH3_state_t* state_in(const std::byte* bytes) noexcept {
    return std::launder(reinterpret_cast<const XXH3_state_t*>(bytes));
}

}    // namespace

Hasher::Hasher() noexcept {
    static_assert(sizeof(XXH3_state_t) <= sizeof state_ && alignof(XXH3_state_t) <= 64);
    static_assert(std::is_trivially_destructible_v<XXH3_state_t>);
    XXH3_128bits_reset(new (state_) XXH3_state_t);
}

void Hasher::bytes(const void* data, std::size_t size) noexcept {
    if (size != 0) XXH3_128bits_update(state_in(state_), data, size);
}

Hash128 Hasher::digest() const noexcept {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_in(state_));
    return {hash.high64, hash.low64};
}

HashDescent::HashDescent(Hasher& hasher) : hasher_(hasher) {
    if (hasher.depth_ >= detail::kMaxDepth) {
        throw Error(
            "The hash of a value can't be taken: it nests deeper than 1000 levels, or holds a circle of pointers. Cut "
            "it into smaller values, or have the argument ignored.");
    }
    ++hasher.depth_;
}

std::string Hash128::to_string() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text(32, '0');
    for (std::size_t i = 0; i < 16; ++i) {
        text[15 - i] = kDigits[high >> (4 * i) & 15];
        text[31 - i] = kDigits[low >> (4 * i) & 15];
    }
    return text;
}

namespace detail {

namespace {

// A descriptor or a handle is a number that means something else tomorrow: a key made of it would find a wrong result.
[[noreturn]] void refuse_handle() {
    throw Error(
        "The hash of a value can't be taken: it holds a handle of a shared object or a file descriptor, which means "
        "nothing in another run. Pass what it names by value, or have the argument ignored.");
}

class NoAttachments final : public Attachments {
public:
    DescriptorTicket put(int) override { refuse_handle(); }
    int take(const DescriptorTicket&) override { refuse_handle(); }
};

}    // namespace

void hash_encoding(Hasher& hasher, void (*encode)(Writer&, const void*), const void* value) {
    std::byte first[256];
    VectorGrowth growth;
    NoAttachments attachments;
    std::vector<std::shared_ptr<const void>> named;
    Writer writer(first, growth, &attachments);
    writer.keep_in(named);
    encode(writer, value);
    if (!named.empty()) refuse_handle();
    const std::uint64_t size = writer.size();
    hasher.bytes(&size, sizeof size);
    hasher.bytes(writer.bytes().data(), writer.size());
}

}    // namespace detail

}    // namespace multihull
