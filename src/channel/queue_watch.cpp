// The thread that watches queues for this process: see "Watching" in README.md.
#include <multihull/detail/queue_watch.hpp>

#include "channel/queue_layout.hpp"
#include "os/clock.hpp"
#include "os/fault.hpp"
#include "os/futex.hpp"
#include "os/thread.hpp"
#include "process/self.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace multihull::detail {

using channel::QueueData;
using Side = QueueWatch::Side;

struct WatchEntry {
    enum class State { idle, listed, told };

    ObjectRef queue;
    Side side;
    State state = State::idle;       // under the watcher's lock, as all that follows
    std::uint32_t generation = 0;    // of the process that it was started in
    std::function<void()> told;
};

namespace {

constexpr std::int64_t kLook = 100'000'000;         // ns: how long a lost wake-up can stay lost
constexpr std::int64_t kCrowdedLook = 2'000'000;    // ns: where there is no place to sleep in
// What the kernel waits for at once, without the word by which this thread is called.
constexpr std::size_t kMostWords = os::kMostFutexes - 1;

QueueData& data_of(const ObjectRef& queue) { return *static_cast<QueueData*>(object_data(queue)); }

}    // namespace

// One side of a queue that somebody here waits for.
class WatchedQueue {
public:
    WatchedQueue(ObjectRef queue, Side side) noexcept : queue_(std::move(queue)), side_(side) {}

    std::list<std::shared_ptr<WatchEntry>> waiting;    // not told yet, oldest first
    std::size_t told = 0;                              // of those who were told, how many have not tried yet

    // How many could go on now.
    std::size_t available() const {
        const QueueData& data = data_of(queue_);
        if (data.closed.load(std::memory_order_seq_cst) != 0) return std::numeric_limits<std::size_t>::max();
        const std::uint64_t put = data.put_total.load(std::memory_order_seq_cst);
        const std::uint64_t taken = data.taken_total.load(std::memory_order_seq_cst);
        const std::size_t size = put > taken ? put - taken : 0;
        if (side_ == Side::get) return size;
        if (data.maxsize == 0) return std::numeric_limits<std::size_t>::max();
        return size < data.maxsize ? data.maxsize - size : 0;
    }

    // The watcher's thread only.
    void enlist() {
        if (enlisted_) return;
        place_ = sleepers().enlist(shm::this_thread());
        enlisted_ = true;
    }
    // The word to sleep on; none where every place was taken.
    const std::atomic<std::uint32_t>* word() const {
        return place_ == shm::WaitSet::kNoPlace ? nullptr : &sleepers().word(place_);
    }
    // Whether there was a wake-up for this place, which it has then left.
    bool woken() {
        if (!enlisted_) return false;
        if (place_ != shm::WaitSet::kNoPlace && !sleepers().leave_if_woken(place_)) return false;
        enlisted_ = false;
        return true;
    }
    void leave() {
        if (!enlisted_) return;
        enlisted_ = false;
        if (!sleepers().withdraw(place_)) pass_on();
    }
    // Any thread: wakes one in whichever process.
    void pass_on() const {
        if (available() != 0) sleepers().wake_one();
    }

private:
    shm::WaitSet& sleepers() const { return side_ == Side::get ? data_of(queue_).takers : data_of(queue_).putters; }

    ObjectRef queue_;
    Side side_;
    bool enlisted_ = false;
    std::uint32_t place_ = shm::WaitSet::kNoPlace;
};

namespace {

class QueueWatcher {
public:
    static QueueWatcher& instance();
    static void after_fork() noexcept;

    void start(const std::shared_ptr<WatchEntry>& entry, std::function<void()> told);
    void stop(WatchEntry& entry) noexcept;

private:
    using Key = std::pair<const QueueData*, Side>;

    void run();
    bool tell();
    std::int64_t prepare_sleep(std::vector<os::FutexWord>& words);
    bool settle(WatchEntry& entry) noexcept;
    void ring() noexcept {
        bell_.fetch_add(1, std::memory_order_seq_cst);
        os::futex_wake_all(bell_);
    }

    std::mutex mutex_;
    std::map<Key, WatchedQueue> queues_;
    std::atomic<std::uint32_t> bell_{0};
    bool runs_ = false;
};

constinit std::atomic<QueueWatcher*> the_watcher{nullptr};
const ForkChildHook kForgetWatcher(&QueueWatcher::after_fork);

QueueWatcher& QueueWatcher::instance() {
    QueueWatcher* current = the_watcher.load(std::memory_order_acquire);
    if (current != nullptr) return *current;
    watch_forks();
    auto* const fresh = new QueueWatcher;
    if (the_watcher.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
    return *current;
}

// The child has no thread that watches, and what its parent waits for is the parent's.
void QueueWatcher::after_fork() noexcept { the_watcher.store(nullptr); }

void QueueWatcher::start(const std::shared_ptr<WatchEntry>& entry, std::function<void()> told) {
    {
        const std::lock_guard guard(mutex_);
        if (!runs_) {
            // Never joined: it holds only what lives until the process ends.
            os::start_thread("mh-queues", [this] { run(); }).detach();
            runs_ = true;
        }
        static_cast<void>(settle(*entry));
        const Key key(&data_of(entry->queue), entry->side);
        auto& queue = queues_.try_emplace(key, entry->queue, entry->side).first->second;
        entry->told = std::move(told);
        entry->generation = fork_generation();
        queue.waiting.push_back(entry);
        entry->state = WatchEntry::State::listed;
    }
    ring();
}

void QueueWatcher::stop(WatchEntry& entry) noexcept {
    if (entry.generation != fork_generation()) return;
    bool call = false;
    {
        const std::lock_guard guard(mutex_);
        call = settle(entry);
    }
    if (call) ring();
}

// Needs mutex_. What it was told, or waited for, is the others'. Answers whether the watcher's thread is needed for that.
bool QueueWatcher::settle(WatchEntry& entry) noexcept {
    if (entry.state == WatchEntry::State::idle || entry.generation != fork_generation()) return false;
    const auto place = queues_.find({&data_of(entry.queue), entry.side});
    WatchedQueue& queue = place->second;
    const bool was_told = entry.state == WatchEntry::State::told;
    entry.state = WatchEntry::State::idle;
    entry.told = nullptr;
    if (!was_told) {
        std::erase_if(queue.waiting, [&](const auto& other) { return other.get() == &entry; });
        return queue.waiting.empty();
    }
    --queue.told;
    os::kill_point(os::KillPoint::watch_settled);
    if (!queue.waiting.empty()) return true;
    queue.pass_on();
    // Where nobody waits it has no place among the sleepers.
    if (queue.told == 0) queues_.erase(place);
    return false;
}

// Tells as many as can go on; false when there was nobody to tell.
bool QueueWatcher::tell() {
    std::vector<std::function<void()>> calls;
    {
        const std::lock_guard guard(mutex_);
        for (auto place = queues_.begin(); place != queues_.end();) {
            WatchedQueue& queue = place->second;
            const bool woken = queue.woken();
            if (woken) os::kill_point(os::KillPoint::watch_woken);
            const std::size_t available = queue.available();
            const std::size_t before = queue.told;
            while (!queue.waiting.empty() && queue.told < available) {
                WatchEntry& entry = *queue.waiting.front();
                entry.state = WatchEntry::State::told;
                calls.push_back(std::move(entry.told));
                ++queue.told;
                queue.waiting.pop_front();
            }
            // A loop may be slow to try: whoever else sleeps may be quicker. Not if this wake-up is one that was passed on.
            if (woken && (queue.told > before || queue.told == 0)) queue.pass_on();
            if (queue.waiting.empty()) queue.leave();
            place = queue.waiting.empty() && queue.told == 0 ? queues_.erase(place) : std::next(place);
        }
    }
    for (const auto& call : calls) call();
    if (!calls.empty()) os::kill_point(os::KillPoint::watch_told);
    return !calls.empty();
}

// Takes places among those who sleep; answers for how long to sleep.
std::int64_t QueueWatcher::prepare_sleep(std::vector<os::FutexWord>& words) {
    const std::lock_guard guard(mutex_);
    std::int64_t longest = os::kNever;
    for (auto& [key, queue] : queues_) {
        if (queue.waiting.empty()) continue;
        queue.enlist();
        const auto* const word = queue.word();
        const bool fits = word != nullptr && words.size() < kMostWords;
        longest = std::min(longest, fits ? kLook : kCrowdedLook);
        if (fits) words.push_back({word, shm::WaitSet::kWaiting});
        // What came before it had its place has woken nobody.
        if (queue.available() > queue.told) longest = 0;
    }
    return longest;
}

void QueueWatcher::run() {
    count_own_thread(1);
    std::vector<os::FutexWord> words;
    for (;;) {
        const std::uint32_t bell = bell_.load(std::memory_order_seq_cst);
        if (tell()) continue;
        words.clear();
        const std::int64_t longest = prepare_sleep(words);
        if (longest == 0) continue;
        const std::int64_t now = os::now_ns();
        words.push_back({&bell_, bell});
        if (os::futex_wait_any(words, longest == os::kNever ? os::kNever : now + longest)) continue;
        // A kernel that can't: looking now and then.
        os::futex_wait(bell_, bell, longest == os::kNever ? os::kNever : now + std::min(longest, kCrowdedLook));
    }
}

}    // namespace

QueueWatch::QueueWatch(const QueueCore& queue, Side side) : entry_(std::make_shared<WatchEntry>()) {
    entry_->queue = queue.object();
    entry_->side = side;
}

QueueWatch::~QueueWatch() {
    if (started_) QueueWatcher::instance().stop(*entry_);
}

void QueueWatch::start(std::function<void()> told) {
    started_ = true;
    const auto entry = entry_;    // this may be gone before the call returns
    QueueWatcher::instance().start(entry, std::move(told));
}

}    // namespace multihull::detail
