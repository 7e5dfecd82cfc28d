// How a store and the options of a cached function travel to another process.
#include <multihull/codec.hpp>
#include <multihull/detail/memory_store.hpp>
#include <multihull/detail/token.hpp>

namespace multihull::detail {

void encode_store(Writer& writer, const Store& store) {
    encode(writer, store.path());
    encode(writer, store.options());
}

std::shared_ptr<Store> decode_store(Reader& reader) {
    const auto path = decode<std::string>(reader);
    auto options = decode<MemoryOptions>(reader);
    if (options.compress.method > Compression::Method::zstd) throw_damaged("a way to compress is not known here");
    return Store::open(path, options);
}

void encode_options(Writer& writer, const CacheOptions& options) {
    encode(writer, options.version);
    encode(writer, options.ignore);
    encode(writer, options.expires_after);
    encode(writer, options.compute_once);
    encode(writer, options.validate != nullptr);
    if (options.validate != nullptr) encode(writer, token_of(reinterpret_cast<const void*>(options.validate)));
}

CacheOptions decode_options(Reader& reader) {
    CacheOptions options;
    options.version = decode<std::string>(reader);
    options.ignore = decode<std::vector<std::size_t>>(reader);
    options.expires_after = decode<std::optional<std::chrono::nanoseconds>>(reader);
    options.compute_once = decode<bool>(reader);
    if (decode<bool>(reader)) {
        options.validate =
            reinterpret_cast<bool (*)(const EntryInfo&)>(const_cast<void*>(code_of(decode<Token>(reader))));
    }
    return options;
}

}    // namespace multihull::detail
