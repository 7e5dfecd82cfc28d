#include <multihull/queue.hpp>

#include "channel/patience.hpp"
#include "channel/queue_parts.hpp"
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/futex.hpp"
#include "os/memory.hpp"
#include "shm/pins.hpp"

#include <cstring>

namespace multihull {

namespace channel {

namespace {

constexpr std::uint32_t kQueues = 1U << static_cast<std::uint32_t>(shm::ObjectKind::queue);

// Whose the pins of a message are while it is in the queue; `total` is its place among all.
shm::PinOwner pin_owner(std::uint32_t index, std::uint64_t total) { return {shm::kOfObject | index, 0, total}; }

std::size_t ring_slots(std::uint32_t ring) { return kFirstSlots << ring; }

constexpr std::uint64_t kPositionMask = (std::uint64_t{1} << 48) - 1;
std::uint64_t progress_of(const Place& place) {
    return std::uint64_t{place.hops & 0xffff} << 48 | (place.position & kPositionMask);
}

// A message that did not get all the way in, or that was taken by one who died over it, is its process's own: the recovery of that
// process, which comes here first, gives the block and the pins back. Freeing them here would be wrong: whoever dies between that and
// striking the note out makes the next one free them again, whosever they are by then.
void leave_to_recovery(QueueData& data, const Pending& pending, std::uint32_t number) {
    auto& head = head_of(data);
    if (head.has_pins.load(std::memory_order_relaxed) != 0) {
        shm::move_all_pins(pin_owner(shm::index_of(head), pending.total), number);
    }
    if (pending.block != 0) {
        auto& state = block_at(data, pending.block - 1)->state;
        if (state.load(std::memory_order_relaxed) == Block::queued) {
            state.store(Block::loaned | number << 8, std::memory_order_relaxed);
        }
    }
    in_order();
    os::kill_point(os::KillPoint::queue_repaired);
}

void repair_put(QueueData& data) {
    Pending& pending = data.pending_put;
    const std::uint32_t number = pending.number.load(std::memory_order_relaxed);
    if (number != 0 && pending.total == data.put_total.load(std::memory_order_relaxed)) {
        leave_to_recovery(data, pending, number);
    }
    pending.number.store(0, std::memory_order_release);
    data.known_hops = ~std::uint32_t{0};    // read anew
}

void repair_take(QueueData& data) {
    Pending& pending = data.pending_take;
    const std::uint32_t number = pending.number.load(std::memory_order_relaxed);
    const std::uint64_t taken = data.taken_total.load(std::memory_order_relaxed);
    if (taken > pending.total && number != 0) {
        leave_to_recovery(data, pending, number);
        if (data.joinable != 0) {
            data.taken_by[number].store(static_cast<std::uint16_t>(data.pending_count), std::memory_order_relaxed);
        }
    }
    pending.number.store(0, std::memory_order_release);
    data.progress.store(progress_of(data.take_at[taken % 2]), std::memory_order_release);
    data.known_put = taken;
}

void recover(shm::ObjectHead& head, std::uint32_t number) {
    auto& data = data_of(head);
    for (shm::RobustLock* lock : {&data.put_lock, &data.take_lock, &data.block_lock}) lock->recover(number);
    { const Hold hold(data, data.put_lock, shm::kRecoverer, repair_put); }
    { const Hold hold(data, data.take_lock, shm::kRecoverer, repair_take); }
    recover_blocks(data, number);
    if (data.joinable != 0) {
        const std::uint16_t taken = data.taken_by[number].load(std::memory_order_relaxed);
        const auto left = static_cast<std::uint16_t>(taken - data.done_by[number].load(std::memory_order_relaxed));
        data.lost_tasks.fetch_add(left, std::memory_order_relaxed);
        data.done_by[number].store(taken, std::memory_order_relaxed);
    }
    data.takers.recover(number);
    data.putters.recover(number);
    data.joiners.recover(number);
}

const shm::RegisterKind kRegistered(shm::ObjectKind::queue, {recover, nullptr, nullptr});

// The queue as one process works with it.
class Access {
public:
    explicit Access(const detail::ObjectRef& object)
        : object_(*object), data_(data_of(object->head())), self_(shm::this_thread()) {}

    QueueData& data() const noexcept { return data_; }
    shm::ThreadId self() const noexcept { return self_; }
    std::uint32_t number() const noexcept { return self_ & shm::kNumberMask; }

    SlotHead* slot(std::uint32_t ring, std::uint64_t position) const {
        const std::size_t index = position & (ring_slots(ring) - 1);
        std::byte* const begin = ring == 0 ? data_.ring0.data() : shm::Region::instance().at(data_.rings[ring]);
        return reinterpret_cast<SlotHead*>(begin + index * kSlotSize);
    }

    bool has_messages() const {
        return data_.put_total.load(std::memory_order_seq_cst) != data_.taken_total.load(std::memory_order_relaxed);
    }
    bool has_room() const {
        return data_.maxsize == 0 ||
               data_.put_total.load(std::memory_order_relaxed) - data_.taken_total.load(std::memory_order_seq_cst) <
                   data_.maxsize;
    }
    bool is_closed() const { return data_.closed.load(std::memory_order_seq_cst) != 0; }

    enum class Done { yes, wait, closed, no_memory };

    // Writes a message behind the others, and publishes it; `fill` writes what follows the head.
    template <class Fill>
    Done try_put(const SlotHead& head, std::size_t bytes, std::uint32_t block, Fill fill) {
        const Hold hold(data_, data_.put_lock, self_, repair_put);
        if (is_closed()) return Done::closed;
        const std::uint64_t total = data_.put_total.load(std::memory_order_relaxed);
        if (data_.maxsize != 0 && total - data_.known_taken >= data_.maxsize) {
            data_.known_taken = data_.taken_total.load(std::memory_order_seq_cst);
            if (total - data_.known_taken >= data_.maxsize) return Done::wait;
        }
        const std::size_t slots = (sizeof(SlotHead) + bytes + kSlotSize - 1) / kSlotSize;
        Place place = data_.put_at[total % 2];
        check_ring(place.ring);
        if (!make_room(place, slots, total)) return Done::no_memory;
        SlotHead* const target = slot(place.ring, place.position);
        *target = head;
        fill(reinterpret_cast<std::byte*>(target + 1));
        os::kill_point(os::KillPoint::put_slot_written);
        const bool notes = (block | head.pins) != 0;
        if (notes) hand_to_queue(head, block, total);
        place.position += slots;
        data_.put_at[(total + 1) % 2] = place;
        data_.put_total.store(total + 1, std::memory_order_release);
        os::kill_point(os::KillPoint::put_published);
        in_order();
        if (notes) data_.pending_put.number.store(0, std::memory_order_release);
        fetch_ahead(place);
        return Done::yes;
    }

    // Takes the oldest message; `read` is given its head.
    template <class Read>
    bool try_take(Read read) {
        const Hold hold(data_, data_.take_lock, self_, repair_take);
        const std::uint64_t taken = data_.taken_total.load(std::memory_order_relaxed);
        if (taken == data_.known_put) {
            data_.known_put = data_.put_total.load(std::memory_order_seq_cst);
            if (taken == data_.known_put) return false;
        }
        Place place = data_.take_at[taken % 2];
        check_ring(place.ring);
        left_ring_ = 0;
        const SlotHead* const slot = next_message(place);
        const SlotHead head = *slot;    // putters may overwrite the slot as soon as `progress` says so
        const std::size_t bytes = read(*slot);
        os::kill_point(os::KillPoint::get_copied);
        const bool notes = head.kind == SlotHead::big_message || data_.joinable != 0 || head.pins != 0;
        if (notes) note_taking(head, taken);
        place.position += (sizeof(SlotHead) + bytes + kSlotSize - 1) / kSlotSize;
        data_.take_at[(taken + 1) % 2] = place;
        data_.taken_total.store(taken + 1, std::memory_order_release);
        in_order();
        os::kill_point(os::KillPoint::get_taken);
        // A big ring's memory goes back once it has been left, and before the putters may use it again.
        if (left_ring_ >= kGivenBack) {
            os::punch_hole(shm::Region::instance().at(data_.rings[left_ring_]), ring_slots(left_ring_) * kSlotSize);
        }
        data_.progress.store(progress_of(place), std::memory_order_release);
        if (notes) finish_taking(head, taken);
        return true;
    }

    // Sleeps until `ready`, a wake-up, or the deadline; false when it has passed.
    template <class Ready>
    bool sleep(shm::WaitSet& set, std::int64_t deadline, Ready ready) {
        const std::uint32_t place = set.enlist(self_);
        if (ready()) {
            if (!set.withdraw(place)) set.wake_one();
            return true;
        }
        if (set.sleep(place, deadline)) return true;
        if (!set.withdraw(place)) return true;
        return os::now_ns() < deadline;
    }

private:
    static constexpr std::uint64_t kAhead = 2;    // slots

    static std::size_t checked_size(const SlotHead& head) {
        if (head.kind != SlotHead::message && head.kind != SlotHead::big_message) damaged();
        if (head.kind == SlotHead::message && head.size > kMaxInlineMessage) damaged();
        return head.kind == SlotHead::message ? head.size : 0;
    }
    // Of what stands in memory that others write, too: a wrong one would lead out of the queue.
    void check_ring(std::uint32_t ring) const {
        if (ring >= kRings || (ring != 0 && data_.rings[ring] == 0)) damaged();
    }
    [[noreturn]] static void damaged() { detail::throw_damaged("a queue's memory was overwritten"); }

    bool looks_empty(std::uint64_t total) const { return data_.taken_total.load(std::memory_order_acquire) == total; }

    // The takers' core still has the lines that the next messages go into.
    void fetch_ahead(const Place& place) const {
        const auto* const next = reinterpret_cast<const std::byte*>(slot(place.ring, place.position + kAhead));
        os::prefetch_for_write(next);
        os::prefetch_for_write(next + 64);
    }

    // How many slots of the putter's ring are in use. Under put_lock.
    std::uint64_t used_slots(const Place& place) const {
        const bool same = (place.hops & 0xffff) == data_.known_hops;
        return same ? place.position - data_.known_position : place.position;
    }
    void look_at_progress() {
        const std::uint64_t progress = data_.progress.load(std::memory_order_acquire);
        data_.known_hops = static_cast<std::uint32_t>(progress >> 48);
        data_.known_position = progress & kPositionMask;
    }

    // Moves on to where that many slots are free side by side, and one behind them for the next wrap or hop; false where there is no
    // memory for them. Under put_lock; nothing of what it writes is seen by anybody until the message behind it is published.
    bool make_room(Place& place, std::size_t slots, std::uint64_t total) {
        const std::size_t size = ring_slots(place.ring);
        const std::size_t left = size - (place.position & (size - 1));
        const std::size_t needed = (slots <= left ? slots : left + slots) + 1;
        if (used_slots(place) + needed > size) {
            look_at_progress();
            if (used_slots(place) + needed > size) return hop(place, place.ring + 1, slots);
        }
        // Once round a ring that was needed once: is it still?
        const bool at_end = slots > left || left == size;
        if (at_end && place.ring > 0 && place.position > 0 && looks_empty(total)) return hop(place, 0, slots);
        if (slots <= left) return true;
        slot(place.ring, place.position)->kind = SlotHead::wrap;
        place.position += left;
        return true;
    }

    // The takers are in the ring of their last progress at the earliest; every ring from there on is in use.
    bool ring_in_use(const Place& place, std::uint32_t ring) const {
        if (ring == place.ring) return true;
        const auto behind = static_cast<std::uint16_t>(place.hops - data_.known_hops);
        for (std::uint32_t back = 1; back <= behind; ++back) {
            if (back >= kHistory || data_.ring_history[(place.hops - back) % kHistory] == ring) return true;
        }
        return false;
    }

    bool hop(Place& place, std::uint32_t first, std::size_t slots) {
        look_at_progress();
        std::uint32_t ring = first;
        while (ring < kRings && (ring_in_use(place, ring) || ring_slots(ring) < slots + 2)) ++ring;
        if (ring >= kRings || !has_memory(ring)) return false;
        SlotHead* const marker = slot(place.ring, place.position);
        marker->kind = SlotHead::hop;
        marker->size = ring;
        place = {0, place.hops + 1, ring};
        data_.ring_history[place.hops % kHistory] = static_cast<std::uint8_t>(ring);
        os::kill_point(os::KillPoint::ring_grown);
        return true;
    }

    bool has_memory(std::uint32_t ring) {
        if (ring == 0 || data_.rings[ring] != 0) return true;
        if (ring >= kInnerRings) {
            data_.rings[ring] = shm::try_claim_for(object_, ring_slots(ring) * kSlotSize);
            return data_.rings[ring] != 0;
        }
        // Rings 1 to 8 lie one behind the other in one extent.
        const shm::Offset extent = shm::try_claim_for(object_, shm::kExtentSize);
        if (extent == 0) return false;
        shm::Offset offset = extent;
        for (std::uint32_t inner = 1; inner < kInnerRings; ++inner) {
            data_.rings[inner] = offset;
            offset += ring_slots(inner) * kSlotSize;
        }
        return true;
    }

    // Under take_lock: there is a message.
    const SlotHead* next_message(Place& place) {
        for (int steps = 0; steps < 4; ++steps) {
            const SlotHead* const head = slot(place.ring, place.position);
            if (head->kind == SlotHead::wrap) {
                const std::size_t size = ring_slots(place.ring);
                place.position += size - (place.position & (size - 1));
            } else if (head->kind == SlotHead::hop) {
                const std::uint32_t ring = head->size;
                check_ring(ring);
                left_ring_ = place.ring;
                place = {0, place.hops + 1, ring};
            } else {
                checked_size(*head);
                return head;
            }
        }
        damaged();
    }

    // Under put_lock: notes which message is on its way in, and makes the queue the owner of what it consists of.
    void hand_to_queue(const SlotHead& head, std::uint32_t block, std::uint64_t total) {
        data_.pending_put.total = total;
        data_.pending_put.block = block;
        data_.pending_put.number.store(number(), std::memory_order_release);
        in_order();
        if (head.pins != 0) {
            object_.head().has_pins.store(1, std::memory_order_relaxed);
            shm::move_pins(head.pins, {number()}, pin_owner(object_.index(), total));
            os::kill_point(os::KillPoint::pins_queued);
        }
        if (block != 0) {
            block_at(data_, block - 1)->state.store(Block::queued, std::memory_order_relaxed);
            os::kill_point(os::KillPoint::block_queued);
        }
    }
    void note_taking(const SlotHead& head, std::uint64_t taken) {
        const auto count = static_cast<std::uint16_t>(data_.taken_by[number()].load(std::memory_order_relaxed) + 1);
        data_.pending_count = count;
        data_.pending_take.total = taken;
        data_.pending_take.block = head.kind == SlotHead::big_message ? head.block + 1 : 0;
        data_.pending_take.number.store(number(), std::memory_order_release);
        in_order();
    }
    void finish_taking(const SlotHead& head, std::uint64_t taken) {
        if (head.pins != 0) {
            shm::move_pins(head.pins, pin_owner(object_.index(), taken), {number()});
            os::kill_point(os::KillPoint::pins_taken);
        }
        if (data_.joinable != 0) {
            data_.taken_by[number()].store(static_cast<std::uint16_t>(data_.pending_count), std::memory_order_relaxed);
        }
        if (head.kind == SlotHead::big_message) {
            block_at(data_, data_.pending_take.block - 1)
                ->state.store(Block::loaned | number() << 8, std::memory_order_relaxed);
        }
        data_.pending_take.number.store(0, std::memory_order_release);
    }

    static constexpr std::uint32_t kGivenBack = 6;    // from 1 MiB on

    const detail::SharedObject& object_;
    QueueData& data_;
    shm::ThreadId self_;
    std::uint32_t left_ring_ = 0;
};

}    // namespace

}    // namespace channel

namespace detail {

using channel::Access;
using channel::Block;
using channel::QueueData;
using channel::SlotHead;

static_assert(kInlineMessage == channel::kMaxInlineMessage);

QueueCore QueueCore::make(std::size_t maxsize, bool joinable) {
    QueueCore core(shm::make_object(shm::ObjectKind::queue, sizeof(QueueData)));
    auto& data = channel::data_of(core.object_->head());
    data.maxsize = maxsize;
    data.joinable = joinable ? 1 : 0;
    // The first touch of a page takes longer than many messages.
    os::populate(data.ring0.data(), sizeof data.ring0);
    return core;
}

QueueCore QueueCore::decode(Reader& reader) { return QueueCore(decode_object(reader, channel::kQueues)); }

namespace {

[[noreturn]] void throw_closed() {
    throw QueueClosed("the queue was closed: nothing can be put into it any more, and what was in it has been taken");
}

template <class Fill>
bool put_message(const ObjectRef& object, const SlotHead& head, std::size_t bytes, std::uint32_t block,
                 std::int64_t deadline, Fill fill) {
    Access access(object);
    QueueData& data = access.data();
    for (;;) {
        auto done = Access::Done::no_memory;
        channel::with_memory([&] {
            done = access.try_put(head, bytes, block, fill);
            return done != Access::Done::no_memory;
        });
        if (done == Access::Done::closed)
            throw QueueClosed("the queue was closed: nothing can be put into it any more");
        if (done == Access::Done::yes) break;
        if (deadline == 0) return false;
        const auto ready = [&] { return access.has_room() || access.is_closed(); };
        if (channel::Patience::wait_awake(ready)) continue;
        if (!access.sleep(data.putters, deadline, ready) && !ready()) return false;
    }
    os::kill_point(os::KillPoint::put_before_wake);
    if (data.takers.anybody()) data.takers.wake_one();
    return true;
}

}    // namespace

bool QueueCore::put(std::span<const std::byte> bytes, std::uint32_t pins, std::int64_t deadline) const {
    const SlotHead head{SlotHead::message, static_cast<std::uint32_t>(bytes.size()), 0, pins};
    return put_message(object_, head, bytes.size(), 0, deadline,
                       [&](std::byte* place) { copy_bytes(place, bytes.data(), bytes.size()); });
}

bool QueueCore::put(QueueBlock& block, std::size_t size, std::uint32_t pins, std::int64_t deadline) const {
    if (block.queue() != object_) throw SyncError("memory on loan from one queue can't be put into another");
    const SlotHead head{SlotHead::big_message, 0, block.index(), pins};
    const std::uint64_t length = size;
    const bool done = put_message(object_, head, sizeof length, block.index() + 1, deadline,
                                  [&](std::byte* place) { std::memcpy(place, &length, sizeof length); });
    if (done) block.release();
    return done;
}

bool QueueCore::take(QueueMessage& message, std::int64_t deadline) const {
    Access access(object_);
    QueueData& data = access.data();
    std::uint32_t pins = 0;
    const auto read = [&](const SlotHead& head) -> std::size_t {
        pins = head.pins;
        const auto* const bytes = reinterpret_cast<const std::byte*>(&head + 1);
        if (head.kind == SlotHead::message) {
            message.size_ = head.size;
            copy_bytes(message.inline_.data(), bytes, head.size);
            return head.size;
        }
        std::uint64_t size = 0;
        std::memcpy(&size, bytes, sizeof size);
        auto& region = shm::Region::instance();
        if (head.block >= data.block_count.load(std::memory_order_acquire))
            throw_damaged("a queue's memory was overwritten");
        const Block& block = *channel::block_at(data, head.block);
        const std::uint64_t capacity = block.size_class < 48 ? std::uint64_t{1} << block.size_class : 0;
        if (size > capacity || !region.in_extents(block.place, capacity))
            throw_damaged("a queue's memory was overwritten");
        message.size_ = size;
        message.block_ = QueueBlock(object_, head.block, {region.at(block.place), static_cast<std::size_t>(capacity)});
        return sizeof size;
    };
    for (;;) {
        if (access.try_take(read)) break;
        if (access.is_closed()) {
            if (access.has_messages()) continue;
            throw_closed();
        }
        if (deadline == 0) return false;
        const auto ready = [&] { return access.has_messages() || access.is_closed(); };
        if (channel::Patience::wait_awake(ready)) continue;
        if (!access.sleep(data.takers, deadline, ready) && !ready()) return false;
    }
    message.pins_ = pins;
    if (data.maxsize != 0 && data.putters.anybody()) data.putters.wake_one();
    return true;
}

std::size_t QueueCore::qsize() const noexcept {
    const auto& data = channel::data_of(object_->head());
    const std::uint64_t taken = data.taken_total.load(std::memory_order_acquire);
    const std::uint64_t put = data.put_total.load(std::memory_order_acquire);
    return put > taken ? static_cast<std::size_t>(put - taken) : 0;
}

std::size_t QueueCore::maxsize() const noexcept { return channel::data_of(object_->head()).maxsize; }

void QueueCore::close() const {
    auto& data = channel::data_of(object_->head());
    data.closed.store(1, std::memory_order_seq_cst);
    data.takers.wake_all();
    data.putters.wake_all();
}

bool QueueCore::closed() const noexcept {
    return channel::data_of(object_->head()).closed.load(std::memory_order_acquire) != 0;
}

void throw_queue_empty() { throw QueueEmpty("the queue had nothing to take within the time given to get()"); }
void throw_queue_full() { throw QueueFull("the queue had no room within the time given to put()"); }

std::int64_t queue_deadline(std::int64_t timeout_ns) noexcept {
    return timeout_ns == -1 ? os::kNever : os::deadline_after(std::chrono::nanoseconds(timeout_ns));
}

}    // namespace detail

}    // namespace multihull
