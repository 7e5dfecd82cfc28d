// Mailboxes: how a server's loop and clients of its own family exchange requests and answers in shared memory, beside their sockets.
//
// Safe across processes: a mailbox has one client, a thread of it at a time, and one connection at the server. The socket stays, for
// whatever does not fit, whoever sleeps, and the news that the other side is gone. See "Mailboxes" in README.md.
//
// Invariants
// (1) A request is answered once. Its client looks for the answer in the mailbox until one of the two sides has set kBySocket, and
//     then at the socket only.
// (2) `size` and `bytes` are the client's while nothing is asked (idle, answered), and the server's from `asked` on.
// (3) A loop that is not `awake` looks at no mailbox. It looks once more after it has said so; who posts looks whether it is awake
//     after the ring. So one of them sees the other.
// (4) A place is given to another client only when the end of the last one's connection was seen.
#pragma once

#include <multihull/detail/shared_object.hpp>

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace multihull::detail {

/// Bytes of a request or an answer that a mailbox can hold.
inline constexpr std::size_t kMailboxRoom = (std::size_t{16} << 10) - 8;
/// Clients of one loop that can have a mailbox.
inline constexpr std::size_t kMailboxes = 512;

struct Mailbox {
    /// `request` lies in it, `asked` is what the server has to answer, however it came.
    enum Phase : std::uint32_t { idle, request, asked, answered };
    /// Beside `request` and `asked`: the answer goes over the socket.
    static constexpr std::uint32_t kBySocket = 1U << 8;

    std::atomic<std::uint32_t> state;
    std::atomic<std::uint32_t> size;
    std::array<std::byte, kMailboxRoom> bytes;

    /// For the server: what has been asked, copied into `room`, which has kMailboxRoom bytes; nothing where there is no request.
    std::optional<std::span<const std::byte>> take(std::span<std::byte> room) noexcept;
    /// For the server: false where the answer has to go over the socket.
    bool answer(std::span<const std::byte> bytes) noexcept;
};

/// The mailboxes of a loop as a message names them: an encoded object.
using MailboxesName = std::array<std::byte, kEncodedObject>;

/// One of them.
struct MailboxPlace {
    MailboxesName mailboxes;
    std::uint32_t place;
};

/// What the mailboxes of a loop have in common.
struct MailboxBell {
    alignas(64) std::atomic<std::uint32_t> awake;
    std::uint64_t mailboxes;    ///< The place of the first in the region.
    alignas(64) std::array<std::atomic<std::uint64_t>, kMailboxes / 64> rung;
};

/// The mailboxes of a loop, on its thread.
class LoopMailboxes {
public:
    /// A place for that connection; nothing where all are taken, or there is no memory.
    std::optional<std::uint32_t> open(std::uint64_t connection) noexcept;
    Mailbox& at(std::uint32_t place) const noexcept { return first_[place]; }
    /// Ends it. `is_left`: its client is known to be gone, and the place can be another's.
    void close(std::uint32_t place, bool is_left) noexcept;
    /// How a client finds them.
    MailboxesName name() const;

    bool any_open() const noexcept { return open_ != 0; }
    bool any_rung() const noexcept {
        for (std::size_t i = 0; i < used_words_; ++i) {
            if (bell_->rung[i].load(std::memory_order_seq_cst) != 0) return true;
        }
        return false;
    }
    /// Calls function(connection) for each that has rung since it was called last.
    template <class Function>
    void for_each_rung(Function function) {
        for (std::size_t i = 0; i < used_words_; ++i) {
            if (bell_->rung[i].load(std::memory_order_relaxed) == 0) continue;
            for (std::uint64_t rung = bell_->rung[i].exchange(0, std::memory_order_seq_cst); rung != 0;
                 rung &= rung - 1) {
                const auto connection = connections_[64 * i + static_cast<std::size_t>(std::countr_zero(rung))];
                if (connection != 0) function(connection);
            }
        }
    }
    /// False where it can't: somebody has rung.
    bool fall_asleep() noexcept;
    void wake_up() noexcept {
        if (bell_ != nullptr) bell_->awake.store(1, std::memory_order_seq_cst);
    }

private:
    bool make() noexcept;

    ObjectRef object_;
    MailboxBell* bell_ = nullptr;
    Mailbox* first_ = nullptr;
    std::size_t used_words_ = 0;
    std::size_t open_ = 0;
    std::vector<std::uint64_t> connections_;    // by place; 0 where there is none
    std::vector<std::uint32_t> free_;
};

/// A client's mailbox, for one thread at a time.
class ClientMailbox {
public:
    /// Of the mailboxes with that name (LoopMailboxes::name()). Throws Error where they are not there any more.
    ClientMailbox(std::span<const std::byte> name, std::uint32_t place);

    /// Asks. False where the request has to be sent over the socket; its answer comes either way. `stays_awake`: somebody is going to
    /// look for the answer.
    bool post(std::span<const std::byte> request, bool stays_awake) noexcept;
    /// What is to be done next.
    enum class Next { look_again, take, receive };
    Next look() const noexcept;
    /// Looks no more. False where the answer has come meanwhile; else it is to be received from the socket.
    bool stop_looking() noexcept;
    /// The answer, copied into `into`; ready for the next request.
    std::span<const std::byte> take(std::vector<std::byte>& into);

private:
    ObjectRef object_;
    MailboxBell* bell_;
    Mailbox* mailbox_;
    std::atomic<std::uint64_t>* rung_;
    std::uint64_t bit_;
};

}    // namespace multihull::detail
