#include "shm/objects.hpp"

#include "os/fault.hpp"
#include "os/memory.hpp"

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

std::uint32_t index_of(const ObjectHead& head) {
    const Region& region = Region::instance();
    const auto& objects = region.objects();
    const Offset offset = region.offset_of(&head);
    return static_cast<std::uint32_t>(offset < objects.large_begin
                                          ? (offset - objects.small_begin) / kSmallObjectSize
                                          : (offset - objects.large_begin) / kLargeObjectSize + objects.small_count);
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

// Needs the guard, or an object that nobody else can see. Every step may be done twice.
void finish_ending(ObjectHead& head, std::uint32_t index) {
    auto& region = Region::instance();
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
    if (!small) os::punch_hole(data + in_first_page, kLargeObjectSize - 4096);
    head.generation.fetch_add(1, std::memory_order_release);
    head.state.store(0, std::memory_order_release);
    auto& hint = region.header().free_hints[small ? 0 : 1];
    if (index < hint.load(std::memory_order_relaxed)) hint.store(index, std::memory_order_relaxed);
}

// Needs the guard. Takes the process's reference away, and ends the object unless somebody else needs it. The bit goes last: as
// long as it is set, the recovery of this process ends what a death leaves half ended.
void let_go(ObjectHead& head, std::uint32_t index, std::uint32_t number) {
    const std::uint32_t state = head.state.load(std::memory_order_relaxed);
    const bool is_needed = head.pins.load(std::memory_order_acquire) != 0 || is_held_by_others(index, number);
    if (stage_of(state) == Stage::live && !is_needed) {
        head.state.store(state_of(kind_of(state), Stage::ending, number), std::memory_order_release);
        os::kill_point(os::KillPoint::object_ending);
        finish_ending(head, index);
        os::kill_point(os::KillPoint::object_ended);
    }
    clear_held(number, index);
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
[[maybe_unused]] const bool prepared = (Region::set_recovery(recover_objects), true);

// Needs the handles' mutex.
detail::ObjectRef enter(ObjectHead& head, std::uint32_t index, std::uint32_t generation) {
    auto object = std::make_shared<const detail::SharedObject>(&head, index, generation);
    handles().objects[index] = object;
    handles().current[index] = object.get();
    return object;
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

RegisterKind::RegisterKind(ObjectKind kind, KindRules kind_rules) noexcept {
    rules()[static_cast<std::size_t>(kind)] = kind_rules;
}

Guard::Guard(ObjectHead& head, ThreadId self) noexcept : head_(head), self_(self) {
    // A recovery that has it already was cut off by a death, and this one is in its place.
    if (head.guard.lock(self, os::kNever) != Acquired::yes) {
        const std::uint32_t state = head.state.load(std::memory_order_relaxed);
        if (state != 0 && stage_of(state) == Stage::ending) {
            finish_ending(head, index_of(head));
        } else if (const Repair repair = rules_of(state).repair) {
            repair(head);
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
    const shm::Guard guard(*head_);
    if (head_->generation.load(std::memory_order_relaxed) != generation_) return;
    const std::uint32_t state = head_->state.load(std::memory_order_relaxed);
    if (const shm::Recover leave = shm::rules_of(state).leave) leave(*head_, number);
    shm::let_go(*head_, index_, number);
}

void* object_data(const ObjectRef& object) noexcept { return object->data(); }

void encode_object(Writer& writer, const ObjectRef& object) {
    if (object == nullptr) throw_cannot_encode("it holds a handle that was moved from");
    if (writer.leaves_family()) {
        throw_cannot_encode(
            "it holds a Lock, a Queue or another shared object, which is memory of this machine: to another rank send "
            "the values themselves, or mpi::broadcast_value() for one that all tasks read");
    }
    if (!writer.keep(object)) {
        const shm::Guard guard(object->head());
        object->head().pins.fetch_add(1, std::memory_order_acq_rel);
    }
    writer.put(object->index());
    writer.put(object->generation());
}

ObjectRef decode_object(Reader& reader, std::uint32_t kind_mask) {
    const auto index = reader.get<std::uint32_t>();
    const auto generation = reader.get<std::uint32_t>();
    if (reader.enters_family())
        throw CodecError("a result names a shared object of another rank's machine: return the values themselves");
    if (index >= shm::object_count(shm::Region::instance().objects()))
        throw_damaged("it names an object that can't be");
    auto& all = shm::handles();
    const std::uint32_t number = shm::this_thread() & shm::kNumberMask;
    shm::ObjectHead& head = *shm::head_at(index);
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
    ObjectRef object;
    if (const auto known = all.objects.find(index); known != all.objects.end()) object = known->second.lock();
    if (object == nullptr || object->generation() != generation) {
        shm::set_held(number, index);
        object = shm::enter(head, index, generation);
    }
    if (reader.takes_over(object) && head.pins.load(std::memory_order_relaxed) > 0) {
        head.pins.fetch_sub(1, std::memory_order_acq_rel);
    }
    return object;
}

}    // namespace detail

}    // namespace multihull
