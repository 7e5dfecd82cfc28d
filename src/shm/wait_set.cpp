#include "shm/wait_set.hpp"

#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/futex.hpp"

#include <algorithm>
#include <bit>

namespace multihull::shm {

namespace {

constexpr std::int64_t kLook = 100'000'000;         // ns: how long a lost wake-up can stay lost where nobody supervises
constexpr std::int64_t kCrowdedLook = 2'000'000;    // ns: for those who found every place taken

constexpr std::uint64_t bit_of(std::uint32_t place) { return std::uint64_t{1} << place % 64; }

// A waker is about to write into the place; it must not meet the next owner there. If it died, it never will.
void await_grant(const std::atomic<std::uint32_t>& word) noexcept {
    const std::int64_t patience = os::now_ns() + kLook;
    for (std::uint32_t state = 0; (state = word.load(std::memory_order_acquire)) != WaitSet::kGranted;) {
        if (!os::futex_wait(word, state, patience)) return;
    }
}

}    // namespace

std::uint32_t WaitSet::enlist(ThreadId self) noexcept {
    const std::uint32_t first = (self ^ self >> 13) % kPlaces;
    for (std::uint32_t i = 0; i < kPlaces; ++i) {
        const std::uint32_t place = (first + i) % kPlaces;
        std::uint32_t nobody = 0;
        if (places_[place].owner.load(std::memory_order_relaxed) != 0 ||
            !places_[place].owner.compare_exchange_strong(nobody, self, std::memory_order_acquire)) {
            continue;
        }
        places_[place].word.store(kWaiting, std::memory_order_relaxed);
        waiting_[place / 64].fetch_or(bit_of(place), std::memory_order_seq_cst);
        os::kill_point(os::KillPoint::waiter_enlisted);
        return place;
    }
    return kNoPlace;
}

bool WaitSet::sleep(std::uint32_t place, std::int64_t deadline) noexcept {
    const std::int64_t now = os::now_ns();
    if (place == kNoPlace) {
        const std::atomic<std::uint32_t> nothing{0};
        os::futex_wait(nothing, 0, std::min(deadline, now + kCrowdedLook));
        return true;
    }
    os::futex_wait(places_[place].word, kWaiting, std::min(deadline, now + kLook));
    return leave_if_woken(place);
}

bool WaitSet::leave_if_woken(std::uint32_t place) noexcept {
    const auto& word = places_[place].word;
    if (word.load(std::memory_order_acquire) != kGranted) {
        if ((waiting_[place / 64].load(std::memory_order_seq_cst) & bit_of(place)) != 0) return false;
        // A bit that is gone is a decision, and as good as a grant: were it set again, two wake-ups could be decided for this one.
        await_grant(word);
    }
    // The bit is set only where the grant was meant for the place's last owner.
    waiting_[place / 64].fetch_and(~bit_of(place), std::memory_order_seq_cst);
    places_[place].owner.store(0, std::memory_order_release);
    return true;
}

bool WaitSet::withdraw(std::uint32_t place) noexcept {
    if (place == kNoPlace) return true;
    const bool undecided =
        (waiting_[place / 64].fetch_and(~bit_of(place), std::memory_order_seq_cst) & bit_of(place)) != 0;
    if (!undecided) await_grant(places_[place].word);
    places_[place].owner.store(0, std::memory_order_release);
    return undecided;
}

void WaitSet::grant(std::uint32_t place) noexcept {
    auto& word = places_[place].word;
    word.store(kGranted, std::memory_order_release);
    os::kill_point(os::KillPoint::waiter_granted);
    os::futex_wake(word, 1);
}

bool WaitSet::wake_one() noexcept {
    const std::uint32_t turn = turn_.fetch_add(1, std::memory_order_relaxed);
    for (std::uint32_t i = 0; i < waiting_.size(); ++i) {
        auto& word = waiting_[(turn + i) % waiting_.size()];
        for (std::uint64_t bits = word.load(std::memory_order_seq_cst); bits != 0;) {
            const auto lowest =
                static_cast<std::uint32_t>(std::countr_zero(std::rotr(bits, static_cast<int>(turn % 64))));
            const std::uint32_t in_word = (lowest + turn) % 64;
            const std::uint64_t bit = std::uint64_t{1} << in_word;
            bits = word.fetch_and(~bit, std::memory_order_seq_cst);
            if ((bits & bit) != 0) {
                os::kill_point(os::KillPoint::waiter_chosen);
                grant((turn + i) % static_cast<std::uint32_t>(waiting_.size()) * 64 + in_word);
                return true;
            }
        }
    }
    return false;
}

void WaitSet::wake_all() noexcept {
    for (std::uint32_t i = 0; i < waiting_.size(); ++i) {
        for (std::uint64_t bits = waiting_[i].exchange(0, std::memory_order_seq_cst); bits != 0; bits &= bits - 1) {
            os::kill_point(os::KillPoint::waiter_chosen);
            grant(i * 64 + static_cast<std::uint32_t>(std::countr_zero(bits)));
        }
    }
}

void WaitSet::interrupt(std::uint32_t place) noexcept {
    if (place >= kPlaces) return;
    waiting_[place / 64].fetch_and(~bit_of(place), std::memory_order_seq_cst);
    grant(place);
}

void WaitSet::recover(std::uint32_t number) noexcept {
    // All of the dead one's bits are gone before anybody is woken: one who sleeps again at once must not find a waker choosing them.
    for (std::uint32_t place = 0; place < kPlaces; ++place) {
        std::uint32_t owner = places_[place].owner.load(std::memory_order_acquire);
        if (owner == 0 || (owner & kNumberMask) != number) continue;
        waiting_[place / 64].fetch_and(~bit_of(place), std::memory_order_seq_cst);
        places_[place].owner.compare_exchange_strong(owner, 0, std::memory_order_acq_rel);
    }
    for (std::uint32_t place = 0; place < kPlaces; ++place) {
        if (places_[place].owner.load(std::memory_order_acquire) == 0) continue;
        waiting_[place / 64].fetch_and(~bit_of(place), std::memory_order_seq_cst);
        grant(place);
    }
}

}    // namespace multihull::shm
