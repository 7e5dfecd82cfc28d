// Decodes arbitrary bytes as values of many types. What may come of it: a value, which then encodes and decodes to the same bytes
// again, or a CodecError; and no more memory than the bytes are worth.
#include "fuzz/codec_types.hpp"
#include "fuzz/fuzz.hpp"

#include <multihull/error.hpp>

namespace {

using samples::Bytes;

// How many bytes a decoder may ask for in all, for each byte that it is given: as in the tests of hostile bytes.
constexpr std::size_t kBytesPerByte = 512;

template <class Entry>
void feed(std::span<const std::byte> bytes) {
    using T = typename Entry::Type;
    std::optional<T> value;
    const fuzz::Allocations allocations;
    try {
        multihull::detail::Reader reader(bytes);
        value.emplace(multihull::detail::decode<T>(reader));
    } catch (const multihull::CodecError&) {}
    // What an exception costs by itself: its text, the message of what was wrong, the tables of names read the first time.
    const std::size_t fixed = std::is_same_v<T, std::exception_ptr> ? std::size_t{4} << 20 : std::size_t{16} << 10;
    fuzz::require(allocations.bytes() <= fixed + sizeof(T) + kBytesPerByte * bytes.size(),
                  "decoding took too much memory");
    if (!value) return;

    const Bytes once = samples::encoded(*value);
    T again = samples::decoded<T>(once);
    const Bytes twice = samples::encoded(again);
    fuzz::require(!Entry::kSameBytes || once == twice, "a value changed when it was encoded again");
}

}    // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto bytes = std::as_bytes(std::span(data, size));
    fuzz::with_type(data[0] % fuzz::kTypeCount, [&]<class Entry>(Entry) { feed<Entry>(bytes.subspan(1)); });
    return 0;
}
