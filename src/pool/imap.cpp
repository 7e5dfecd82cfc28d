#include <multihull/detail/imap.hpp>

namespace multihull::detail {

void DoneUnits::expect(const ImapUnit& unit, std::uint64_t id) {
    unit.completion->on_done(unit.task, [done = shared_from_this(), id] {
        const std::lock_guard guard(done->mutex_);
        done->done_.push_back(id);
        done->changed_.notify_one();
    });
}

std::uint64_t DoneUnits::wait() {
    std::unique_lock guard(mutex_);
    changed_.wait(guard, [this] { return !done_.empty(); });
    const std::uint64_t id = done_.front();
    done_.pop_front();
    return id;
}

}    // namespace multihull::detail
