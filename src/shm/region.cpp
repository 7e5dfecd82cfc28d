#include "shm/region.hpp"

#include "os/clock.hpp"
#include "os/futex.hpp"
#include "os/process.hpp"
#include "os/thread_sanitizer.hpp"
#include "shm/object_layout.hpp"
#include "shm/robust_lock.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>
#include <mutex>
#include <sys/random.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace multihull::shm {

namespace {

constexpr std::uint64_t kMagic = 0x6d756c746968756c;    // "multihul"
constexpr std::size_t kLargest = std::size_t{1} << 40;
constexpr std::size_t kSmallest = std::size_t{256} << 20;

// ThreadSanitizer keeps shadow memory for every mapping and leaves programs about a terabyte of address space.
constexpr std::size_t kFirstTry = os::kThreadSanitizer ? std::size_t{1} << 36 : kLargest;

// Held while a process recovers for a dead one, or frees a number: a number is not given to another process under the hands of
// somebody who takes it for a dead one's. By thread id and not by number, because it is needed when no number is left.
class RecoveryLock {
public:
    explicit RecoveryLock(std::atomic<std::uint32_t>& word) noexcept : word_(word) {
        const auto self = static_cast<std::uint32_t>(::gettid());
        for (std::uint32_t holder = 0; !word_.compare_exchange_strong(holder, self, std::memory_order_acq_rel);) {
            // A dead holder's work is done again by whoever comes next: every recovery may run twice.
            if (!os::is_running(static_cast<pid_t>(holder))) continue;
            os::futex_wait(word_, holder, os::now_ns() + kLook);
            holder = 0;
        }
    }
    ~RecoveryLock() {
        word_.store(0, std::memory_order_release);
        os::futex_wake(word_, 1);
    }
    RecoveryLock(const RecoveryLock&) = delete;
    RecoveryLock& operator=(const RecoveryLock&) = delete;

private:
    static constexpr std::int64_t kLook = 1'000'000;    // ns between two looks whether the holder lives

    std::atomic<std::uint32_t>& word_;
};

constexpr std::size_t round_up(std::size_t value, std::size_t unit) { return (value + unit - 1) / unit * unit; }

// Lives until the process ends, whatever order static objects are destroyed in: pools that outlive main() still need it.
std::atomic<Region*> the_region{nullptr};
std::mutex making;

}    // namespace

Region& Region::instance() {
    if (Region* region = the_region.load(std::memory_order_acquire)) return *region;
    const std::lock_guard guard(making);
    if (Region* region = the_region.load(std::memory_order_acquire)) return *region;
    // An address-space limit (ulimit -v, containers) may allow less than the design size: take what there is.
    for (std::size_t size = kFirstTry;; size /= 4) {
        try {
            auto* region = new Region(os::make_memfd("multihull", size), true);
            the_region.store(region, std::memory_order_release);
            return *region;
        } catch (const std::system_error& error) {
            const int code = error.code().value();
            if (size / 4 >= kSmallest && (code == ENOMEM || code == EFBIG || code == EINVAL)) continue;
            throw StartError(std::string("shared memory can't be reserved (") + error.what() +
                             "): raise the limits on address space (ulimit -v) or open files (ulimit -n)");
        }
    }
}

void Region::attach(os::Fd fd) {
    const std::lock_guard guard(making);
    if (the_region.load(std::memory_order_acquire) == nullptr) {
        the_region.store(new Region(std::move(fd), false), std::memory_order_release);
    }
}

bool Region::exists() noexcept { return the_region.load(std::memory_order_acquire) != nullptr; }

Region::Region(os::Fd fd, bool create) : fd_(std::move(fd)) {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) os::throw_errno("fstat of shared memory");
    const auto size = static_cast<std::size_t>(status.st_size);
    mapping_ = os::map_shared(fd_, size);
    base_ = mapping_.data();
    if (create) create_geometry(size);
    const RegionHeader& h = header();
    if (h.magic != kMagic || h.size != size) throw StartError("this is not a region of shared memory");
    geometry_ = {h.homes_begin, h.home_size, h.extents_begin, h.extent_count};
    objects_ = {h.small_objects_begin, h.large_objects_begin, h.ledger_begin, h.pins_begin,
                h.small_object_count,  h.large_object_count,  h.pin_count};
#ifdef MULTIHULL_FAILPOINTS
    os::kill_points = &header().kill_points;
#endif
}

void Region::create_geometry(std::size_t size) {
    RegionHeader& h = header();
    h.magic = kMagic;
    h.size = size;
    const std::size_t page = os::page_size();
    h.small_objects_begin = round_up(sizeof(RegionHeader), page);
    h.small_object_count = static_cast<std::uint32_t>(std::min(kMostSmallObjects, size / 64 / kSmallObjectSize));
    h.large_objects_begin =
        round_up(h.small_objects_begin + std::size_t{h.small_object_count} * kSmallObjectSize, kLargeObjectSize);
    h.large_object_count = static_cast<std::uint32_t>(std::min(kMostLargeObjects, size / 16 / kLargeObjectSize));
    h.ledger_begin = h.large_objects_begin + std::size_t{h.large_object_count} * kLargeObjectSize;
    const std::size_t row = ledger_row_size(h.small_object_count + h.large_object_count);
    h.pins_begin = h.ledger_begin + row * (kMaxProcesses + 1);
    h.pin_count = static_cast<std::uint32_t>(std::min(kMostPins, size / 64 / sizeof(Pin)));
    const std::size_t begin = round_up(h.pins_begin + h.pin_count * sizeof(Pin), page);
    h.home_size = (size - begin) / 2 / kHomes / page * page;
    h.homes_begin = begin;
    if (::getrandom(h.family, sizeof h.family, 0) != sizeof h.family) os::throw_errno("getrandom");
    h.extents_begin = round_up(begin + h.home_size * kHomes, kExtentSize);
    h.extent_count =
        static_cast<std::uint32_t>(std::min<std::size_t>((size - h.extents_begin) / kExtentSize, kMaxExtents));
}

bool Region::in_extents(Offset offset, std::uint64_t size) const noexcept {
    const std::uint64_t begin = geometry_.extents_begin;
    const std::uint64_t end = begin + std::uint64_t{geometry_.extent_count} * kExtentSize;
    return offset >= begin && offset <= end && size <= end - offset;
}

bool Region::owns(Offset place) const noexcept {
    const std::uint32_t number = number_.load(std::memory_order_relaxed);
    return number != 0 && owner_of(place) == number;
}

std::uint32_t Region::owner_of(Offset place) const noexcept {
    if (!in_extents(place, 1)) return 0;
    const std::uint64_t extent = (place - geometry_.extents_begin) / kExtentSize;
    return header().extents[extent].load(std::memory_order_relaxed);
}

// Without a lock, which a thread could hold while another forks.
std::uint32_t Region::own_number() noexcept {
    if (const std::uint32_t number = number_.load(std::memory_order_relaxed)) return number;
    const auto pid = static_cast<std::uint32_t>(::getpid());
    for (int round = 0; round < 2; ++round) {
        for (std::uint32_t i = 0; i < kMaxProcesses; ++i) {
            std::uint32_t nobody = 0;
            if (header().processes[i].load(std::memory_order_relaxed) == 0 &&
                header().processes[i].compare_exchange_strong(nobody, pid, std::memory_order_acq_rel)) {
                std::uint32_t highest = header().process_high_water.load(std::memory_order_relaxed);
                while (highest < i + 1 && !header().process_high_water.compare_exchange_weak(highest, i + 1)) {}
                std::uint32_t none = 0;
                if (number_.compare_exchange_strong(none, i + 1, std::memory_order_relaxed)) return i + 1;
                header().processes[i].store(0, std::memory_order_release);    // another thread was quicker
                return none;
            }
        }
        sweep_dead();
    }
    return 0;
}

std::uint32_t Region::number_of(pid_t pid) const noexcept {
    for (std::uint32_t i = 0; i < kMaxProcesses; ++i) {
        if (header().processes[i].load(std::memory_order_acquire) == static_cast<std::uint32_t>(pid)) return i + 1;
    }
    return 0;
}

Offset Region::claim_home() {
    const std::uint32_t number = own_number();
    for (int round = 0; round < 2 && number != 0; ++round) {
        for (const std::uint32_t wanted : {0U, kAbandonedHome}) {
            for (std::uint32_t i = 0; i < kHomes; ++i) {
                std::uint32_t owner = wanted;
                if (header().homes[i].load(std::memory_order_relaxed) == wanted &&
                    header().homes[i].compare_exchange_strong(owner, number, std::memory_order_acq_rel)) {
                    // Those who still looked at an abandoned one may have written to it.
                    if (wanted == kAbandonedHome) os::punch_hole(at(home_offset(i)), geometry_.home_size);
                    return home_offset(i);
                }
            }
        }
        sweep_dead();
    }
    throw StartError("128 pools exist at once in this family of processes: destroy one before making another");
}

void Region::release_home(Offset home) noexcept {
    const std::uint64_t index = (home - geometry_.homes_begin) / geometry_.home_size;
    os::punch_hole(at(home), geometry_.home_size);
    header().homes[index].store(0, std::memory_order_release);
}

Offset Region::claim_extents(std::size_t bytes) noexcept { return claim_extents_for(own_number(), bytes); }

Offset Region::claim_extents_for(std::uint32_t owner, std::size_t bytes) noexcept {
    if (const Offset place = try_claim_extents_for(owner, bytes); place != 0) return place;
    sweep_dead();
    return try_claim_extents_for(owner, bytes);
}

Offset Region::try_claim_extents_for(std::uint32_t owner, std::size_t bytes) noexcept {
    const std::size_t count = (bytes + kExtentSize - 1) / kExtentSize;
    if (owner == 0 || count == 0 || count > geometry_.extent_count) return 0;
    auto* extents = header().extents;
    for (std::uint32_t begin = 0; begin + count <= geometry_.extent_count;) {
        std::uint32_t claimed = 0;
        while (claimed < count) {
            std::uint32_t nobody = 0;
            if (!extents[begin + claimed].compare_exchange_strong(nobody, owner, std::memory_order_acq_rel)) break;
            os::kill_point(os::KillPoint::extent_claimed);
            ++claimed;
        }
        if (claimed == count) return extent_offset(begin);
        for (std::uint32_t i = 0; i < claimed; ++i) extents[begin + i].store(0, std::memory_order_release);
        begin += claimed + 1;
    }
    return 0;
}

void Region::release_extents(Offset first, std::size_t bytes) noexcept {
    const auto begin = static_cast<std::uint32_t>((first - geometry_.extents_begin) / kExtentSize);
    const auto count = static_cast<std::uint32_t>((bytes + kExtentSize - 1) / kExtentSize);
    os::punch_hole(at(first), std::size_t{count} * kExtentSize);
    for (std::uint32_t i = 0; i < count; ++i) header().extents[begin + i].store(0, std::memory_order_release);
}

void Region::release_extents_of(std::uint32_t owner) noexcept {
    auto* extents = header().extents;
    for (std::uint32_t begin = 0; begin < geometry_.extent_count; ++begin) {
        std::uint32_t end = begin;
        while (end < geometry_.extent_count && extents[end].load(std::memory_order_relaxed) == owner) ++end;
        if (end == begin) continue;
        os::punch_hole(at(extent_offset(begin)), std::size_t{end - begin} * kExtentSize);
        for (; begin < end; ++begin) extents[begin].store(0, std::memory_order_release);
    }
}

void Region::recover(std::uint32_t number) noexcept {
    const RecoveryLock lock(header().recoverer);
    recover_locked(number);
}

void Region::recover_locked(std::uint32_t number) noexcept {
    if (const Recovery recovery = recovery_.load(std::memory_order_acquire)) recovery(number);
}

bool Region::is_alive(std::uint32_t number) const noexcept {
    if (number == 0 || number > kMaxProcesses) return false;
    const std::uint32_t pid = header().processes[number - 1].load(std::memory_order_acquire);
    return pid != 0 && pid != kDeadProcess && os::is_running(static_cast<pid_t>(pid));
}

bool Region::recover_if_dead(std::uint32_t number, RobustLock* lock) noexcept {
    if (number == 0 || is_alive(number)) return false;
    if (header().recoverer.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(::gettid())) {
        // In the middle of a recovery this thread has come upon a lock that another dead process has left.
        if (lock != nullptr) lock->recover(number);
        return true;
    }
    const RecoveryLock recovery(header().recoverer);
    // A number that was free may have been given to another meanwhile; and whoever was recovering is done, or dead.
    if (is_alive(number)) return false;
    if (number <= kMaxProcesses && header().processes[number - 1].load(std::memory_order_acquire) != 0) {
        recover_locked(number);
    }
    if (lock != nullptr) lock->recover(number);
    return true;
}

void Region::bury(pid_t pid) noexcept {
    const std::uint32_t number = number_of(pid);
    if (number == 0) return;
    auto expected = static_cast<std::uint32_t>(pid);
    if (!header().processes[number - 1].compare_exchange_strong(expected, kDeadProcess, std::memory_order_acq_rel)) {
        return;
    }
    recover(number);
    release_owned(number);
}

void Region::after_fork() noexcept {
    const std::uint32_t number = number_.load(std::memory_order_relaxed);
    // Another hook of this child may have been first, and have claimed a number already.
    if (number != 0 &&
        header().processes[number - 1].load(std::memory_order_relaxed) == static_cast<std::uint32_t>(::getpid())) {
        return;
    }
    number_.store(0, std::memory_order_relaxed);
}

void Region::mark_dead(std::uint32_t number) noexcept {
    header().processes[number - 1].store(kDeadProcess, std::memory_order_release);
    recover(number);
}

void Region::release_owned(std::uint32_t number) noexcept {
    if (header().processes[number - 1].load(std::memory_order_acquire) != kDeadProcess) mark_dead(number);
    release_extents_of(number);
    for (std::uint32_t i = 0; i < kHomes; ++i) {
        if (header().homes[i].load(std::memory_order_relaxed) != number) continue;
        os::punch_hole(at(home_offset(i)), geometry_.home_size);
        header().homes[i].store(kAbandonedHome, std::memory_order_release);
    }
    const RecoveryLock lock(header().recoverer);
    header().processes[number - 1].store(0, std::memory_order_release);
}

void Region::sweep_dead() noexcept {
    for (std::uint32_t i = 0; i < kMaxProcesses; ++i) {
        std::uint32_t pid = header().processes[i].load(std::memory_order_acquire);
        if (pid == 0 || pid == kDeadProcess) continue;
        if (os::is_running(static_cast<pid_t>(pid))) continue;
        // One sweeper wins; the others see somebody else's mark and go on.
        if (header().processes[i].compare_exchange_strong(pid, kDeadProcess, std::memory_order_acq_rel)) {
            recover(i + 1);
            release_owned(i + 1);
        }
    }
}

}    // namespace multihull::shm
