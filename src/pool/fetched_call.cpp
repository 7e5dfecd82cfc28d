#include "pool/fetched_call.hpp"

#include "os/process.hpp"

#include <multihull/codec.hpp>
#include <multihull/error.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string>
#include <sys/uio.h>
#include <vector>

namespace multihull::detail {

namespace {

/// More room is given back when its call has been run.
constexpr std::size_t kKeep = std::size_t{16} << 20;

constexpr std::size_t kPage = 4096;

bool read_from(pid_t process, std::uint64_t address, std::span<std::byte> to) noexcept {
    while (!to.empty()) {
        const iovec here{to.data(), to.size()};
        const iovec there{reinterpret_cast<void*>(address), to.size()};
        const ssize_t got = ::process_vm_readv(process, &here, 1, &there, 1, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to = to.subspan(static_cast<std::size_t>(got));
        address += static_cast<std::uint64_t>(got);
    }
    return true;
}

/// How far into the room, which begins with a page, a call is to begin: where no piece is copied slowly, by the kernel either, which took
/// 0.67 ms for 1 MiB instead of 0.13.
std::size_t good_start(const std::byte* room, std::span<const FetchedPiece> pieces) noexcept {
    for (std::size_t start = 0; start < kPage; start += kMaxAlignment) {
        const bool slow = std::ranges::any_of(pieces, [&](const FetchedPiece& piece) {
            return copies_slowly(room + start + piece.position, reinterpret_cast<const void*>(piece.address),
                                 piece.size);
        });
        if (!slow) return start;
    }
    return 0;
}

}    // namespace

bool can_fetch_from(pid_t process, std::uint64_t address) noexcept {
    std::byte some[8];
    return read_from(process, address, some);
}

std::span<const std::byte> FetchedCall::fetch(std::span<const std::byte> plan, pid_t process) {
    Reader reader(plan);
    const auto head = reader.get<FetchPlan>();
    std::vector<FetchedPiece> pieces(head.pieces);
    reader.read(pieces.data(), pieces.size() * sizeof(FetchedPiece));
    const std::size_t needed = head.call_size + kPage;
    if (room_.size() < needed) {
        room_.reset();
        room_ = os::map_anonymous_shared(needed <= kKeep ? std::bit_ceil(needed) : needed);
    }
    const std::span<std::byte> call(room_.data() + good_start(room_.data(), pieces), head.call_size);
    std::size_t at = 0;
    for (const FetchedPiece& piece : pieces) {
        reader.read(call.subspan(at, piece.position - at).data(), piece.position - at);
        if (!read_from(process, piece.address, call.subspan(piece.position, piece.size))) {
            throw Error("arguments could not be read from process " + std::to_string(process) +
                        ", which has them: " + os::errno_text(errno));
        }
        at = piece.position + piece.size;
    }
    reader.read(call.subspan(at).data(), call.size() - at);
    return call;
}

void FetchedCall::let_go() noexcept {
    if (room_.size() > kKeep) room_.reset();
}

}    // namespace multihull::detail
