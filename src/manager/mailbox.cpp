#include "manager/mailbox.hpp"

#include "os/fault.hpp"
#include "shm/objects.hpp"
#include "shm/region.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <cstring>

namespace multihull::detail {

namespace {

constexpr std::uint32_t kMailboxKind = 1U << static_cast<std::uint32_t>(shm::ObjectKind::mailboxes);

static_assert(sizeof(Mailbox) == 16384 && sizeof(MailboxBell) <= 192);

std::uint32_t phase_of(std::uint32_t state) { return state & ~Mailbox::kBySocket; }

MailboxBell* bell_of(const ObjectRef& object) { return static_cast<MailboxBell*>(object_data(object)); }

}    // namespace

// The server.

// The client may set kBySocket meanwhile, and a broken one anything.
std::optional<std::span<const std::byte>> Mailbox::take(std::span<std::byte> room) noexcept {
    std::uint32_t seen = state.load(std::memory_order_acquire);
    do {
        if (phase_of(seen) != request) return std::nullopt;
    } while (!state.compare_exchange_weak(seen, asked | (seen & kBySocket), std::memory_order_acq_rel));
    const std::size_t length = std::min<std::size_t>(size.load(std::memory_order_relaxed), kMailboxRoom);
    std::memcpy(room.data(), bytes.data(), length);
    os::kill_point(os::KillPoint::mailbox_taken);
    return room.first(length);
}

bool Mailbox::answer(std::span<const std::byte> answer) noexcept {
    std::uint32_t expected = asked;
    if (state.load(std::memory_order_relaxed) != asked) return false;
    if (answer.size() > kMailboxRoom) {
        state.compare_exchange_strong(expected, asked | kBySocket, std::memory_order_relaxed);
        return false;
    }
    std::memcpy(bytes.data(), answer.data(), answer.size());
    size.store(static_cast<std::uint32_t>(answer.size()), std::memory_order_relaxed);
    os::kill_point(os::KillPoint::mailbox_answering);
    const bool taken = state.compare_exchange_strong(expected, answered, std::memory_order_release);
    os::kill_point(os::KillPoint::mailbox_answered);
    return taken;
}

bool LoopMailboxes::make() noexcept {
    if (object_ != nullptr) return first_ != nullptr;
    try {
        connections_.resize(kMailboxes);
        free_.reserve(kMailboxes);
        for (std::uint32_t place = kMailboxes; place > 0; --place) free_.push_back(place - 1);
        object_ = shm::make_object(shm::ObjectKind::mailboxes, sizeof(MailboxBell));
    } catch (const std::exception&) {
        free_.clear();
        return false;
    }
    const shm::Offset memory = shm::try_claim_for(*object_, kMailboxes * sizeof(Mailbox));
    if (memory == 0) return false;
    bell_ = bell_of(object_);
    bell_->mailboxes = memory;
    bell_->awake.store(1, std::memory_order_seq_cst);
    first_ = shm::Region::instance().at<Mailbox>(memory);
    return true;
}

std::optional<std::uint32_t> LoopMailboxes::open(std::uint64_t connection) noexcept {
    if (!make() || free_.empty()) return std::nullopt;
    const std::uint32_t place = free_.back();
    free_.pop_back();
    connections_[place] = connection;
    ++open_;
    used_words_ = std::max(used_words_, std::size_t{place} / 64 + 1);
    at(place).state.store(Mailbox::idle, std::memory_order_relaxed);
    return place;
}

void LoopMailboxes::close(std::uint32_t place, bool is_left) noexcept {
    connections_[place] = 0;
    --open_;
    if (is_left) free_.push_back(place);
}

MailboxesName LoopMailboxes::name() const {
    MailboxesName bytes;
    VectorGrowth growth;
    Writer writer(bytes, growth);
    // This process has the object until it ends, so the name needs no pin.
    std::vector<std::shared_ptr<const void>> kept;
    writer.keep_in(kept);
    encode_object(writer, object_);
    return bytes;
}

bool LoopMailboxes::fall_asleep() noexcept {
    if (bell_ == nullptr) return true;
    bell_->awake.store(0, std::memory_order_seq_cst);
    if (!any_rung()) return true;
    wake_up();
    return false;
}

// The client.

ClientMailbox::ClientMailbox(std::span<const std::byte> name, std::uint32_t place) {
    Reader reader(name);
    object_ = decode_object(reader, kMailboxKind);
    bell_ = bell_of(object_);
    const auto& region = shm::Region::instance();
    if (place >= kMailboxes || !region.in_extents(bell_->mailboxes, kMailboxes * sizeof(Mailbox))) {
        throw Error("a manager's server names a mailbox that can't be");
    }
    mailbox_ = region.at<Mailbox>(bell_->mailboxes) + place;
    rung_ = &bell_->rung[place / 64];
    bit_ = std::uint64_t{1} << place % 64;
}

bool ClientMailbox::post(std::span<const std::byte> request, bool stays_awake) noexcept {
    const std::uint32_t way = stays_awake ? 0 : Mailbox::kBySocket;
    if (request.size() > kMailboxRoom || bell_->awake.load(std::memory_order_relaxed) == 0) {
        mailbox_->state.store(Mailbox::asked | way, std::memory_order_release);
        return false;
    }
    std::memcpy(mailbox_->bytes.data(), request.data(), request.size());
    mailbox_->size.store(static_cast<std::uint32_t>(request.size()), std::memory_order_relaxed);
    os::kill_point(os::KillPoint::mailbox_filled);
    std::uint32_t posted = Mailbox::request | way;
    mailbox_->state.store(posted, std::memory_order_release);
    os::kill_point(os::KillPoint::mailbox_posted);
    rung_->fetch_or(bit_, std::memory_order_seq_cst);
    os::kill_point(os::KillPoint::mailbox_rung);
    if (bell_->awake.load(std::memory_order_seq_cst) != 0) return true;
    // It fell asleep, perhaps without having heard the ring: then the request is still here.
    return !mailbox_->state.compare_exchange_strong(posted, Mailbox::asked | way, std::memory_order_acq_rel);
}

ClientMailbox::Next ClientMailbox::look() const noexcept {
    const std::uint32_t state = mailbox_->state.load(std::memory_order_acquire);
    if (state == Mailbox::answered) return Next::take;
    return (state & Mailbox::kBySocket) != 0 ? Next::receive : Next::look_again;
}

bool ClientMailbox::stop_looking() noexcept {
    std::uint32_t seen = mailbox_->state.load(std::memory_order_acquire);
    do {
        if (seen == Mailbox::answered) return false;
    } while (!mailbox_->state.compare_exchange_weak(seen, seen | Mailbox::kBySocket, std::memory_order_acq_rel));
    os::kill_point(os::KillPoint::mailbox_slept);
    return true;
}

std::span<const std::byte> ClientMailbox::take(std::vector<std::byte>& into) {
    const std::size_t length = std::min<std::size_t>(mailbox_->size.load(std::memory_order_relaxed), kMailboxRoom);
    into.resize(std::max(into.size(), length));
    std::memcpy(into.data(), mailbox_->bytes.data(), length);
    mailbox_->state.store(Mailbox::idle, std::memory_order_relaxed);
    return std::span(into).first(length);
}

}    // namespace multihull::detail
