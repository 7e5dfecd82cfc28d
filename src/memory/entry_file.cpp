#include "memory/entry_file.hpp"

#include "memory/xxh3.hpp"
#include "os/memory.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <zstd.h>

namespace multihull::detail {

namespace {

std::uint64_t checksum(const void* data, std::size_t size) noexcept { return XXH3_64bits(data, size); }
std::uint64_t checksum(std::span<const std::byte> bytes) noexcept { return checksum(bytes.data(), bytes.size()); }

std::uint64_t header_sum(const EntryHeader& header) noexcept {
    return checksum(&header, offsetof(EntryHeader, header_sum));
}

void read_at(int file, void* place, std::size_t size, std::uint64_t offset) {
    auto* bytes = static_cast<std::byte*>(place);
    while (size != 0) {
        const ssize_t n = ::pread(file, bytes, size, static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) os::throw_errno("reading a file");
        if (n == 0) throw DamagedEntry{"it is cut short"};
        bytes += n;
        size -= static_cast<std::size_t>(n);
        offset += static_cast<std::uint64_t>(n);
    }
}

struct FreeAligned {
    void operator()(std::byte* bytes) const noexcept { ::operator delete(bytes, std::align_val_t{kEntryAlignment}); }
};

// Memory that is not set to zero first.
std::shared_ptr<std::byte> aligned_memory(std::size_t size) {
    return {static_cast<std::byte*>(::operator new(std::max<std::size_t>(size, 1), std::align_val_t{kEntryAlignment})),
            FreeAligned{}};
}

EntryBytes decompressed(const EntryBytes& stored, std::uint64_t raw_size) {
    if (ZSTD_getFrameContentSize(stored.bytes.data(), stored.bytes.size()) != raw_size) {
        throw DamagedEntry{"what is compressed in it has another size than it says"};
    }
    auto memory = aligned_memory(raw_size);
    const std::size_t got = ZSTD_decompress(memory.get(), raw_size, stored.bytes.data(), stored.bytes.size());
    if (ZSTD_isError(got) != 0 || got != raw_size) throw DamagedEntry{"what is compressed in it can't be restored"};
    const std::span<const std::byte> bytes(memory.get(), raw_size);
    return {std::move(memory), bytes};
}

EntryBytes mapped(int file, std::uint64_t offset, std::uint64_t size) {
    void* const address = ::mmap(nullptr, offset + size, PROT_READ, MAP_SHARED, file, 0);
    if (address == MAP_FAILED) os::throw_errno("mapping a file");
    auto mapping = std::make_shared<const os::Mapping>(address, offset + size);
    const std::span<const std::byte> bytes(mapping->data() + offset, size);
    return {std::move(mapping), bytes};
}

std::vector<std::byte> compressed(std::span<const std::byte> bytes, int level) {
    std::vector<std::byte> out(ZSTD_compressBound(bytes.size()));
    const std::size_t size = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), level);
    if (ZSTD_isError(size) != 0) throw std::bad_alloc();    // the one reason that is left
    out.resize(size);
    return out;
}

}    // namespace

OpenEntry open_entry(int file, const Hash128& key, const Hash128& type) {
    struct stat status {};
    if (::fstat(file, &status) != 0) os::throw_errno("looking at a file");
    if (!S_ISREG(status.st_mode)) throw DamagedEntry{"it is not an ordinary file"};
    OpenEntry entry{};
    EntryHeader& header = entry.header;
    if (static_cast<std::uint64_t>(status.st_size) < sizeof header) throw DamagedEntry{"it is cut short"};
    read_at(file, &header, sizeof header, 0);
    if (std::memcmp(header.magic, kEntryMagic, sizeof kEntryMagic) != 0) {
        throw DamagedEntry{"it does not begin as a file of Multihull's does"};
    }
    if (header.version != kEntryVersion) throw DamagedEntry{"it is of another version of the format"};
    if (header_sum(header) != header.header_sum) throw DamagedEntry{"the checksum of its header is wrong"};
    const std::uint64_t rest = static_cast<std::uint64_t>(status.st_size) - sizeof header;
    if (header.text_size > rest || header.stored_size != rest - header.text_size) {
        throw DamagedEntry{"it is shorter or longer than it says"};
    }
    if (header.method > static_cast<std::uint32_t>(Compression::Method::zstd)) {
        throw DamagedEntry{"it is compressed in a way that is not known here"};
    }
    if (header.key != key) throw DamagedEntry{"it holds the result of other arguments"};
    std::vector<std::byte> text(header.text_size);
    read_at(file, text.data(), text.size(), sizeof header);
    if (checksum(text) != header.text_sum) throw DamagedEntry{"the checksum of its description is wrong"};
    try {
        Reader reader(text);
        entry.text = decode<EntryText>(reader);
    } catch (const CodecError&) {
        throw DamagedEntry{"its description can't be read"};
    }
    if (header.type != type) throw OtherType{entry.text.type};
    return entry;
}

EntryBytes read_entry(int file, const EntryHeader& header, std::size_t map_from, bool verify_mapped) {
    const auto method = static_cast<Compression::Method>(header.method);
    const std::uint64_t offset = sizeof header + header.text_size;
    const bool maps = header.stored_size != 0 && header.stored_size >= map_from;
    EntryBytes stored;
    if (maps) {
        stored = mapped(file, offset, header.stored_size);
    } else {
        auto memory = aligned_memory(header.stored_size);
        read_at(file, memory.get(), header.stored_size, offset);
        stored.bytes = {memory.get(), header.stored_size};
        stored.owner = std::move(memory);
    }
    const bool verify = !maps || verify_mapped || method != Compression::Method::none;
    if (verify && checksum(stored.bytes) != header.stored_sum) throw DamagedEntry{"its checksum is wrong"};
    if (method == Compression::Method::zstd) return decompressed(stored, header.raw_size);
    if (header.raw_size != header.stored_size) throw DamagedEntry{"it is shorter or longer than it says"};
    return stored;
}

EntryParts make_entry(const Hash128& key, const Hash128& type, const EntryText& text, std::chrono::nanoseconds duration,
                      std::span<const std::byte> result, const Compression& compress) {
    EntryParts parts{{}, {}, result};
    auto method = Compression::Method::none;
    if (compress.method == Compression::Method::zstd) {
        parts.compressed = compressed(result, compress.level);
        if (parts.compressed.size() < result.size()) {
            parts.result = parts.compressed;
            method = Compression::Method::zstd;
        }
    }
    VectorGrowth growth;
    Writer writer({}, growth);
    encode(writer, text);
    while (writer.size() % kEntryAlignment != 0) writer.put(std::byte{0});
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    EntryHeader header{};
    std::memcpy(header.magic, kEntryMagic, sizeof kEntryMagic);
    header.version = kEntryVersion;
    header.method = static_cast<std::uint32_t>(method);
    header.key = key;
    header.type = type;
    header.text_size = writer.size();
    header.stored_size = parts.result.size();
    header.raw_size = result.size();
    header.created = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
    header.duration = duration.count();
    header.text_sum = checksum(writer.bytes());
    header.stored_sum = checksum(parts.result);
    header.header_sum = header_sum(header);
    parts.head.resize(sizeof header + writer.size());
    std::memcpy(parts.head.data(), &header, sizeof header);
    std::memcpy(parts.head.data() + sizeof header, writer.bytes().data(), writer.size());
    return parts;
}

EntryInfo info_of(const OpenEntry& entry) {
    using namespace std::chrono;
    const system_clock::time_point created(duration_cast<system_clock::duration>(nanoseconds(entry.header.created)));
    // A clock that was put back makes no result older, nor one from the future.
    const nanoseconds age = std::max<nanoseconds>(system_clock::now() - created, nanoseconds::zero());
    return {entry.text.function,
            entry.text.version,
            entry.text.arguments,
            created,
            age,
            nanoseconds(entry.header.duration),
            sizeof entry.header + entry.header.text_size + entry.header.stored_size};
}

}    // namespace multihull::detail
