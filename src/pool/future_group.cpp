#include <multihull/detail/future_group.hpp>
#include <multihull/return_when.hpp>

#include "os/clock.hpp"
#include "pool/future_waits.hpp"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_set>

namespace multihull::detail {

struct FutureGroup::State final : TaskListener {
    struct Member {
        std::shared_ptr<Completion> completion;
        std::uint32_t task;
    };
    struct Hash {
        std::size_t operator()(const FutureWaits::Key& key) const noexcept {
            return (reinterpret_cast<std::uintptr_t>(key.first) >> 4) * 0x9e3779b97f4a7c15U + key.second;
        }
    };

    std::vector<Member> members;
    std::unordered_set<FutureWaits::Key, Hash> known;
    bool watched = false;    // those that had not ended have a callback
    std::vector<bool> told;
    std::size_t left = 0;    // members that were not told

    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::uint64_t> ended;

    FutureWaits::Key key(std::size_t member) const noexcept {
        return {members[member].completion.get(), members[member].task};
    }
    bool ready(std::size_t member) const noexcept { return members[member].completion->ready(members[member].task); }

    void task_done(std::uint64_t tag) noexcept override {
        const std::lock_guard guard(mutex);
        ended.push_back(tag);
        changed.notify_one();
    }

    // In two rounds: what has ended already comes first, in order.
    void watch() {
        watched = true;
        told.resize(members.size());
        left = members.size();
        std::vector<std::size_t> running;
        for (std::size_t i = 0; i < members.size(); ++i) {
            if (ready(i)) {
                ended.push_back(i);
            } else {
                running.push_back(i);
            }
        }
        for (const std::size_t i : running) FutureWaits::instance().add(key(i), *this, i);
    }

    std::optional<std::uint64_t> take(std::int64_t deadline_ns) {
        std::unique_lock guard(mutex);
        while (ended.empty()) {
            if (deadline_ns == kNoDeadline) {
                changed.wait(guard);
                continue;
            }
            const std::int64_t time_left = deadline_ns - os::now_ns();
            if (time_left <= 0) return std::nullopt;
            changed.wait_for(guard, std::chrono::nanoseconds(time_left));
        }
        const std::uint64_t member = ended.front();
        ended.pop_front();
        return member;
    }
};

FutureGroup::FutureGroup() : state_(std::make_unique<State>()) {}
FutureGroup::FutureGroup(FutureGroup&&) noexcept = default;
FutureGroup& FutureGroup::operator=(FutureGroup&& other) noexcept {
    std::swap(state_, other.state_);
    return *this;
}

FutureGroup::~FutureGroup() {
    if (!state_) return;
    for (std::size_t i = 0; i < state_->members.size(); ++i) {
        if (state_->watched && !state_->told[i]) FutureWaits::instance().remove(state_->key(i), *state_);
        state_->members[i].completion->release(state_->members[i].task);
    }
}

bool FutureGroup::add(std::shared_ptr<Completion> completion, std::uint32_t task) {
    if (!state_->known.emplace(completion.get(), task).second) return false;
    completion->retain(task);
    state_->members.push_back({std::move(completion), task});
    return true;
}

std::size_t FutureGroup::size() const noexcept { return state_->members.size(); }

std::optional<std::size_t> FutureGroup::next(std::int64_t deadline_ns) {
    if (!state_->watched) state_->watch();
    while (state_->left != 0) {
        const auto member = state_->take(deadline_ns);
        if (!member) break;
        if (state_->told[*member]) continue;
        if (!state_->ready(*member)) {
            FutureWaits::instance().add(state_->key(*member), *state_, *member);
            continue;
        }
        state_->told[*member] = true;
        --state_->left;
        return *member;
    }
    return std::nullopt;
}

bool FutureGroup::failed(std::size_t member) const {
    const auto& [completion, task] = state_->members[member];
    const std::exception_ptr why = completion->failure(task);
    if (!why) return false;
    try {
        std::rethrow_exception(why);
    } catch (const Cancelled&) {
        return false;
    } catch (...) {
        return true;
    }
}

bool FutureGroup::wait_all(std::int64_t deadline_ns) const {
    return std::ranges::all_of(state_->members, [&](const State::Member& member) {
        return member.completion->wait(member.task, deadline_ns);
    });
}

bool FutureGroup::ready(std::size_t member) const noexcept { return state_->ready(member); }

void wait_group(FutureGroup& group, ReturnWhen when, std::int64_t deadline_ns) {
    switch (when) {
        case ReturnWhen::ALL_COMPLETED:
            group.wait_all(deadline_ns);
            return;
        case ReturnWhen::FIRST_COMPLETED:
            for (std::size_t i = 0; i < group.size(); ++i) {
                if (group.ready(i)) return;
            }
            group.next(deadline_ns);
            return;
        case ReturnWhen::FIRST_EXCEPTION:
            while (const auto member = group.next(deadline_ns)) {
                if (group.failed(*member)) return;
            }
            return;
    }
}

}    // namespace multihull::detail
