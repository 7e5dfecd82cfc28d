#include "shm/objects.hpp"

#include "os/fault.hpp"
#include "os/memory.hpp"
#include "shm/pins.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <mutex>
#include <pthread.h>
#include <string>
#include <unordered_map>

namespace multihull {

namespace shm {

namespace {

enum class Stage : std::uint32_t { making = 1, live = 2, ending = 3 };

constexpr std::uint32_t state_of(ObjectKind kind, Stage stage, std::uint32_t number) {
    return static_cast<std::uint32_t>(kind) | static_cast<std::uint32_t>(stage) << 8 | number << 16;
}
constexpr Stage stage_of(std::uint32_t state) { return static_cast<Stage>(state >> 8 & 0xff); }
constexpr auto kKindCount = static_cast<std::size_t>(ObjectKind::count_);
constexpr ObjectKind kind_of(std::uint32_t state) {
    const std::uint32_t kind = state & 0xff;
    return kind < kKindCount ? static_cast<ObjectKind>(kind) : ObjectKind::none;
}

std::array<KindRules, kKindCount>& rules() {
    static std::array<KindRules, kKindCount> all{};
    return all;
}
const KindRules& rules_of(std::uint32_t state) { return rules()[static_cast<std::size_t>(kind_of(state))]; }

std::uint32_t object_count(const Region::Objects& objects) { return objects.small_count + objects.large_count; }

bool is_small(const Region::Objects& objects, std::uint32_t index) { return index < objects.small_count; }

ObjectHead* head_at(std::uint32_t index) {
    const Region& region = Region::instance();
    const auto& objects = region.objects();
    return region.at<ObjectHead>(is_small(objects, index)
                                     ? objects.small_begin + std::uint64_t{index} * kSmallObjectSize
                                     : objects.large_begin +
                                           std::uint64_t{index - objects.small_count} * kLargeObjectSize);
}

using LedgerWord = std::atomic<std::uint64_t>;

LedgerWord* ledger_row(std::uint32_t number) {
    const Region& region = Region::instance();
    const auto& objects = region.objects();
    return region.at<LedgerWord>(objects.ledger_begin + std::uint64_t{number} * ledger_row_size(object_count(objects)));
}

void set_held(std::uint32_t number, std::uint32_t index) {
    ledger_row(number)[index / 64].fetch_or(std::uint64_t{1} << index % 64, std::memory_order_acq_rel);
}
void clear_held(std::uint32_t number, std::uint32_t index) {
    ledger_row(number)[index / 64].fetch_and(~(std::uint64_t{1} << index % 64), std::memory_order_acq_rel);
}
bool is_held(std::uint32_t number, std::uint32_t index) {
    return (ledger_row(number)[index / 64].load(std::memory_order_acquire) >> index % 64 & 1) != 0;
}
bool is_held_by_others(std::uint32_t index, std::uint32_t self) {
    const std::uint32_t highest = Region::instance().header().process_high_water.load(std::memory_order_acquire);
    for (std::uint32_t number = 1; number <= highest; ++number) {
        if (number != self && is_held(number, index)) return true;
    }
    return false;
}

// Set where an object that has ended had pins, which are to be settled as soon as no guard is held.
std::atomic<bool> pins_dropped{false};

// Needs the guard, or an object that nobody else can see. Every step may be done twice.
void finish_ending(ObjectHead& head, std::uint32_t index) {
    auto& region = Region::instance();
    if (head.has_pins.load(std::memory_order_relaxed) != 0) {
        if (abandon_pins(kOfObject | index)) pins_dropped.store(true, std::memory_order_relaxed);
        os::kill_point(os::KillPoint::pin_dropped);
        head.has_pins.store(0, std::memory_order_relaxed);
    }
    if (head.has_extents.load(std::memory_order_relaxed) != 0) {
        region.release_extents_of(kOfObject | index);
        head.has_extents.store(0, std::memory_order_relaxed);
    }
    head.pins.store(0, std::memory_order_relaxed);
    head.user_lock.reset();
    head.depth.store(0, std::memory_order_relaxed);
    const bool small = is_small(region.objects(), index);
    std::byte* const data = reinterpret_cast<std::byte*>(&head + 1);
    const std::size_t in_first_page = (small ? kSmallObjectSize : std::size_t{4096}) - sizeof(ObjectHead);
    std::memset(data, 0, in_first_page);
    if (!small) {
        const bool kept = index - region.objects().small_count < kKeptLargeObjects;
        (kept ? os::clear_pages : os::punch_hole)(data + in_first_page, kLargeObjectSize - 4096);
    }
    head.generation.fetch_add(1, std::memory_order_release);
    head.state.store(0, std::memory_order_release);
    auto& hint = region.header().free_hints[small ? 0 : 1];
    if (index < hint.load(std::memory_order_relaxed)) hint.store(index, std::memory_order_relaxed);
}

// Needs the guard. Ends the object unless a message or a process needs it, other than the one with that number.
void end_unless_needed(ObjectHead& head, std::uint32_t index, std::uint32_t number) {
    const std::uint32_t state = head.state.load(std::memory_order_relaxed);
    const bool is_needed = head.pins.load(std::memory_order_acquire) != 0 || is_held_by_others(index, number);
    if (stage_of(state) != Stage::live || is_needed) return;
    head.state.store(state_of(kind_of(state), Stage::ending, number), std::memory_order_release);
    os::kill_point(os::KillPoint::object_ending);
    finish_ending(head, index);
    os::kill_point(os::KillPoint::object_ended);
}

// Needs the guard. Takes the process's reference away. The bit goes last: as long as it is set, the recovery of this process ends what
// a death leaves half ended.
void let_go(ObjectHead& head, std::uint32_t index, std::uint32_t number) {
    end_unless_needed(head, index, number);
    clear_held(number, index);
}

// Finishes what a pin is on its way out for. The entry is freed last, so that a recovery comes by here again after a death.
void settle(Pin& pin, ThreadId self) {
    const std::uint32_t use = pin.use.load(std::memory_order_acquire);
    const std::uint32_t object = pin.object.load(std::memory_order_acquire);
    if (object == 0 || object > object_count(Region::instance().objects())) return;
    ObjectHead& head = *head_at(object - 1);
    const Guard guard(head, self);
    // Another may have been here, and the entry used again.
    if (pin.use.load(std::memory_order_relaxed) != use || pin.object.load(std::memory_order_relaxed) != object) return;
    const std::uint32_t holder = pin.holder.load(std::memory_order_relaxed);
    if (holder != kDropped && holder != kUncounted) return;
    if (head.generation.load(std::memory_order_relaxed) == pin.generation.load(std::memory_order_relaxed)) {
        if (holder == kDropped) {
            pin.holder.store(kUncounted, std::memory_order_release);
            os::kill_point(os::KillPoint::pin_uncounted);
            head.pins.fetch_sub(1, std::memory_order_acq_rel);
        }
        end_unless_needed(head, object - 1, 0);
    }
    free_pin(pin, pin.holder.load(std::memory_order_relaxed));
}

// Ends what only messages of ended queues have named, in which there may be queues again. Not with a guard held.
void settle_dropped(ThreadId self) {
    while (pins_dropped.load(std::memory_order_relaxed) && pins_dropped.exchange(false, std::memory_order_relaxed)) {
        for_each_pin([&](Pin& pin) {
            if (pin.holder.load(std::memory_order_acquire) == kDropped) settle(pin, self);
        });
    }
}

// True where the pin was the owner's.
bool drop_pin(Pin& pin, const PinOwner& owner, ThreadId self) {
    if (!is_of(pin, owner)) return false;
    std::uint32_t holder = owner.holder;
    if (pin.object.load(std::memory_order_acquire) == 0) {
        free_pin(pin, holder);
    } else if (pin.holder.compare_exchange_strong(holder, kDropped, std::memory_order_acq_rel)) {
        os::kill_point(os::KillPoint::pin_dropped);
        settle(pin, self);
    }
    return true;
}

// What a dead process leaves: what it was writing and had not read to the end, its pools' results, and what it was giving back.
void recover_pins(std::uint32_t number) {
    for_each_pin([&](Pin& pin) {
        const std::uint32_t holder = pin.holder.load(std::memory_order_acquire);
        if (holder == number) {
            drop_pin(pin, {number, pin.scope.load(std::memory_order_relaxed), pin.message.load()}, kRecoverer);
        } else if (holder == (kClaimed | number)) {
            free_pin(pin, holder);
        } else if (holder == kDropped || holder == kUncounted) {
            settle(pin, kRecoverer);
        }
    });
    settle_dropped(kRecoverer);
}

// Called with the recovery lock: the dead process's number is not given away before this has returned.
void recover_objects(std::uint32_t number) {
    const std::uint32_t count = object_count(Region::instance().objects());
    LedgerWord* const row = ledger_row(number);
    for (std::uint32_t first = 0; first < count; first += 64) {
        for (std::uint64_t held = row[first / 64].load(std::memory_order_acquire); held != 0; held &= held - 1) {
            const auto index = first + static_cast<std::uint32_t>(std::countr_zero(held));
            ObjectHead& head = *head_at(index);
            head.guard.recover(number);
            head.user_lock.recover(number);
            const Guard guard(head, kRecoverer);
            const std::uint32_t state = head.state.load(std::memory_order_relaxed);
            if (stage_of(state) == Stage::making && state >> 16 == number) finish_ending(head, index);
            if (const Recover recover = rules_of(state).recover; recover && stage_of(state) == Stage::live) {
                recover(head, number);
            }
            let_go(head, index, number);
        }
    }
    recover_pins(number);
}

// The handles of this process. Leaked: handles with static lifetime are destroyed after everything else.
struct Handles {
    std::mutex mutex;
    std::unordered_map<std::uint32_t, std::weak_ptr<const detail::SharedObject>> objects;
    std::unordered_map<std::uint32_t, const detail::SharedObject*> current;
};

Handles& handles() {
    static auto* const all = new Handles;
    static const bool watching = [] {
        ::pthread_atfork(objects_before_fork, objects_forked, objects_after_fork);
        return true;
    }();
    static_cast<void>(watching);
    return *all;
}

// From the beginning, for the deaths of processes that used shared objects when this one has not.
[[maybe_unused]] const bool kPrepared = (Region::set_recovery(recover_objects), true);

// Needs the handles' mutex.
detail::ObjectRef enter(ObjectHead& head, std::uint32_t index, std::uint32_t generation) {
    auto object = std::make_shared<const detail::SharedObject>(&head, index, generation);
    handles().objects[index] = object;
    handles().current[index] = object.get();
    return object;
}

// Puts one more handle of the object in front of a message's chain.
PinTicket pin_object(const detail::SharedObject& object, std::uint32_t& first) {
    ObjectHead& head = object.head();
    const ThreadId self = this_thread();
    const Guard guard(head, self);
    Pin& pin = claim_pin(self & kNumberMask);
    pin.generation.store(object.generation(), std::memory_order_relaxed);
    pin.object.store(object.index() + 1, std::memory_order_relaxed);
    pin.next.store(first, std::memory_order_relaxed);
    pin.holder.store(self & kNumberMask, std::memory_order_release);
    os::kill_point(os::KillPoint::object_pinned);
    head.pins.fetch_add(1, std::memory_order_acq_rel);
    first = pin_number(pin);
    return {first, pin.use.load(std::memory_order_relaxed)};
}

// Needs the guard. The pin that a reader with that number may take over; null where the sender keeps the handle, or it was read before.
Pin* pin_of(const PinTicket& ticket, const detail::SharedObject& object, std::uint32_t number) {
    Pin* const pin = find_pin(ticket.pin);
    if (pin == nullptr) return nullptr;
    const std::uint32_t holder = pin->holder.load(std::memory_order_acquire);
    const bool is_readers = (holder == number || holder == kAdrift) &&
                            pin->use.load(std::memory_order_relaxed) == ticket.use &&
                            pin->object.load(std::memory_order_relaxed) == object.index() + 1 &&
                            pin->generation.load(std::memory_order_relaxed) == object.generation();
    return is_readers ? pin : nullptr;
}

// Needs the guard, and that the reader's own reference is in the ledger. An entry in a chain stays there until its message goes.
void take_over(Pin& pin, ObjectHead& head, std::uint32_t number) {
    const bool adrift = pin.holder.load(std::memory_order_relaxed) == kAdrift;
    if (adrift) pin.holder.store(number, std::memory_order_release);
    pin.object.store(0, std::memory_order_release);
    os::kill_point(os::KillPoint::pin_uncounted);
    head.pins.fetch_sub(1, std::memory_order_acq_rel);
    if (adrift) free_pin(pin, number);
}

std::uint32_t claim_object(ObjectKind kind, bool small, std::uint32_t number) {
    auto& region = Region::instance();
    const auto& objects = region.objects();
    const std::uint32_t begin = small ? 0 : objects.small_count;
    const std::uint32_t end = small ? objects.small_count : object_count(objects);
    auto& hint = region.header().free_hints[small ? 0 : 1];
    const std::uint32_t wanted = state_of(kind, Stage::making, number);
    for (const bool from_hint : {true, false}) {
        const std::uint32_t first = from_hint ? std::max(begin, hint.load(std::memory_order_relaxed)) : begin;
        for (std::uint32_t index = first; index < end; ++index) {
            auto& state = head_at(index)->state;
            std::uint32_t nobody = 0;
            if (state.load(std::memory_order_relaxed) != 0) continue;
            // The bit comes first: what this process leaves half made is then found by its recovery.
            set_held(number, index);
            os::kill_point(os::KillPoint::object_claimed);
            if (state.compare_exchange_strong(nobody, wanted, std::memory_order_acq_rel)) {
                hint.store(index + 1, std::memory_order_relaxed);
                return index;
            }
            clear_held(number, index);
        }
    }
    throw StartError(
        small ? "131072 locks, events and values exist at once in this family of processes: destroy some first"
              : "32768 queues, semaphores, conditions and arrays exist at once in this family of processes: "
                "destroy some first");
}

}    // namespace

std::uint32_t index_of(const ObjectHead& head) noexcept {
    const Region& region = Region::instance();
    const auto& objects = region.objects();
    const Offset offset = region.offset_of(&head);
    return static_cast<std::uint32_t>(offset < objects.large_begin
                                          ? (offset - objects.small_begin) / kSmallObjectSize
                                          : (offset - objects.large_begin) / kLargeObjectSize + objects.small_count);
}

RegisterKind::RegisterKind(ObjectKind kind, KindRules kind_rules) noexcept {
    rules()[static_cast<std::size_t>(kind)] = kind_rules;
}

Guard::Guard(ObjectHead& head, ThreadId self) noexcept : head_(head), self_(self) {
    // A recovery that has it already was cut off by a death, and this one is in its place.
    if (head.guard.lock(self, os::kNever) != Acquired::yes) {
        const std::uint32_t state = head.state.load(std::memory_order_relaxed);
        if (state != 0 && stage_of(state) == Stage::ending) {
            finish_ending(head, index_of(head));
        } else {
            const std::uint32_t generation = head.generation.load(std::memory_order_relaxed);
            head.pins.store(count_pins(index_of(head), generation), std::memory_order_release);
            if (const Repair repair = rules_of(state).repair) repair(head);
        }
        head.guard.mark_consistent(self);
    }
}

detail::ObjectRef make_object(ObjectKind kind, std::size_t bytes) {
    auto& all = handles();
    const std::uint32_t number = this_thread() & kNumberMask;
    const std::lock_guard lock(all.mutex);
    const std::uint32_t index = claim_object(kind, bytes <= kSmallObjectSize - sizeof(ObjectHead), number);
    ObjectHead& head = *head_at(index);
    os::kill_point(os::KillPoint::object_referred);
    head.state.store(state_of(kind, Stage::live, 0), std::memory_order_release);
    return enter(head, index, head.generation.load(std::memory_order_relaxed));
}

Offset claim_for(const detail::SharedObject& object, std::size_t bytes) noexcept {
    object.head().has_extents.store(1, std::memory_order_relaxed);
    return Region::instance().claim_extents_for(kOfObject | object.index(), bytes);
}

Offset try_claim_for(const detail::SharedObject& object, std::size_t bytes) noexcept {
    object.head().has_extents.store(1, std::memory_order_relaxed);
    return Region::instance().try_claim_extents_for(kOfObject | object.index(), bytes);
}

void leave_objects() noexcept {
    if (!Region::exists()) return;
    auto& all = handles();
    const std::lock_guard lock(all.mutex);
    if (all.current.empty()) return;
    const std::uint32_t number = Region::instance().own_number();
    for (const auto& [index, object] : all.current) {
        ObjectHead& head = object->head();
        const Guard guard(head);
        if (head.generation.load(std::memory_order_relaxed) != object->generation()) continue;
        if (const Recover leave = rules_of(head.state.load(std::memory_order_relaxed)).leave) leave(head, number);
    }
}

void objects_before_fork() noexcept { handles().mutex.lock(); }
void objects_forked() noexcept { handles().mutex.unlock(); }

void objects_after_fork() noexcept {
    auto& region = Region::instance();
    region.after_fork();
    forget_thread();
    auto& all = handles();
    if (!all.current.empty()) {
        const std::uint32_t number = region.own_number();
        for (const auto& [index, object] : all.current) {
            if (number == 0) break;
            ObjectHead& head = object->head();
            const Guard guard(head);
            if (head.generation.load(std::memory_order_relaxed) == object->generation()) set_held(number, index);
        }
    }
    all.mutex.unlock();
}

void drop_pins(std::uint32_t first, const PinOwner& owner) noexcept {
    const ThreadId self = this_thread();
    for (Pin* pin = find_pin(first); pin != nullptr;) {
        const std::uint32_t next = pin->next.load(std::memory_order_relaxed);
        if (!drop_pin(*pin, owner, self)) break;
        pin = find_pin(next);
    }
    settle_dropped(self);
}

void drop_all_pins(const PinOwner& owner) noexcept {
    const ThreadId self = this_thread();
    for_each_pin([&](Pin& pin) { drop_pin(pin, owner, self); });
    settle_dropped(self);
}

std::size_t count_objects() noexcept {
    if (!Region::exists()) return 0;
    std::size_t count = 0;
    for (std::uint32_t index = 0; index < object_count(Region::instance().objects()); ++index) {
        if (head_at(index)->state.load(std::memory_order_relaxed) != 0) ++count;
    }
    return count;
}

}    // namespace shm

namespace detail {

SharedObject::~SharedObject() {
    auto& all = shm::handles();
    const std::lock_guard lock(all.mutex);
    const auto place = all.current.find(index_);
    // While this was on its way out another handle may have been made, which has taken over the process's reference.
    if (place == all.current.end() || place->second != this) return;
    all.current.erase(place);
    all.objects.erase(index_);
    const std::uint32_t number = shm::Region::instance().own_number();
    if (number == 0) return;
    {
        const shm::Guard guard(*head_);
        if (head_->generation.load(std::memory_order_relaxed) != generation_) return;
        const std::uint32_t state = head_->state.load(std::memory_order_relaxed);
        if (const shm::Recover leave = shm::rules_of(state).leave) leave(*head_, number);
        shm::let_go(*head_, index_, number);
    }
    shm::settle_dropped(shm::this_thread());
}

void* object_data(const ObjectRef& object) noexcept { return object->data(); }

void encode_object(Writer& writer, const ObjectRef& object) {
    if (object == nullptr) throw_cannot_encode("it holds a handle that was moved from");
    if (writer.leaves_family()) {
        throw_cannot_encode(
            "it holds a Lock, a Queue or another shared object, which is memory of this machine: to another rank send "
            "the values themselves, or mpi::broadcast_value() for one that all tasks read");
    }
    shm::PinTicket ticket;
    if (!writer.keep(object)) ticket = shm::pin_object(*object, writer.pins());
    static_assert(sizeof(std::uint32_t) * 2 + sizeof ticket == kEncodedObject);
    writer.put(object->index());
    writer.put(object->generation());
    writer.put(ticket);
}

void drop_pins(std::uint32_t first) noexcept {
    const std::uint32_t number = shm::Region::instance().own_number();
    if (number != 0) shm::drop_pins(first, {number});    // 0: in a forked child, whose parent's they are
}

ObjectRef decode_object(Reader& reader, std::uint32_t kind_mask) {
    const auto index = reader.get<std::uint32_t>();
    const auto generation = reader.get<std::uint32_t>();
    const auto ticket = reader.get<shm::PinTicket>();
    if (reader.enters_family())
        throw CodecError("a result names a shared object of another rank's machine: return the values themselves");
    if (index >= shm::object_count(shm::Region::instance().objects()))
        throw_damaged("it names an object that can't be");
    auto& all = shm::handles();
    const std::uint32_t number = shm::this_thread() & shm::kNumberMask;
    shm::ObjectHead& head = *shm::head_at(index);
    ObjectRef object;    // outlives the lock, which its end takes
    const std::lock_guard lock(all.mutex);
    const shm::Guard guard(head);
    const std::uint32_t state = head.state.load(std::memory_order_relaxed);
    if (head.generation.load(std::memory_order_relaxed) != generation || shm::stage_of(state) != shm::Stage::live) {
        throw ObjectGone(
            "a handle names a shared object that exists no more: keep a handle of it until the receiver has its own");
    }
    if ((kind_mask >> static_cast<std::uint32_t>(shm::kind_of(state)) & 1) == 0) {
        throw_damaged("it names a shared object of another kind");
    }
    if (const auto known = all.objects.find(index); known != all.objects.end()) object = known->second.lock();
    if (object == nullptr || object->generation() != generation) {
        shm::set_held(number, index);
        object = shm::enter(head, index, generation);
    }
    if (shm::Pin* const pin = shm::pin_of(ticket, *object, number)) {
        reader.took_over(object);
        shm::take_over(*pin, head, number);
    }
    return object;
}

}    // namespace detail

}    // namespace multihull
