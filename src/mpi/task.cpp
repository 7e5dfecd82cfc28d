#include "mpi/task.hpp"

#include "mpi/cluster.hpp"
#include "os/clock.hpp"
#include "os/futex.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace multihull::mpi {

using multihull::detail::copy_bytes;
using multihull::detail::Reader;
using multihull::detail::ResultSource;

namespace {

constexpr std::size_t kBig = 2048;

// Big ones begin in a page where what the worker wrote begins, too: see copies_slowly().
void* allocate(std::size_t size) noexcept {
    if (size < kBig) return std::malloc(size);
    void* place = nullptr;
    return ::posix_memalign(&place, multihull::detail::kMaxAlignment, size) == 0 ? place : nullptr;
}

}    // namespace

RawBytes::RawBytes(std::size_t size) : size_(size) {
    if (size == 0) return;
    bytes_.reset(static_cast<std::byte*>(allocate(size)));
    if (bytes_ == nullptr) throw std::bad_alloc();
}

void RawBytes::Free::operator()(std::byte* bytes) const noexcept { std::free(bytes); }

Task::Task(std::shared_ptr<Cluster> cluster, Token token, const TaskOptions* options)
    : cluster_(std::move(cluster)), token_(token) {
    if (options != nullptr) options_ = std::make_unique<TaskOptions>(*options);
}

Task::~Task() {
    if (local_.completion) local_.completion->release(local_.task);
}

bool Task::ready(std::uint32_t) noexcept {
    const std::uint32_t word = word_.load(std::memory_order_acquire);
    if (word & kDone) return true;
    return (word & kLocal) != 0 && local_.completion->ready(local_.task) &&
           (word_.load(std::memory_order_acquire) & kLocal) != 0;
}

bool Task::wait(std::uint32_t, std::int64_t deadline_ns) {
    constexpr std::int64_t kSpinNs = 5'000;
    cluster_->require_usable();
    if ((word_.load(std::memory_order_acquire) & (kDone | kLocal)) == 0) cluster_->before_waiting(*this, deadline_ns);
    const std::int64_t until = std::min(os::now_ns() + kSpinNs, deadline_ns);
    for (;;) {
        std::uint32_t word = word_.load(std::memory_order_acquire);
        if (word & kDone) return true;
        if (word & kLocal) {
            if (!local_.completion->wait(local_.task, deadline_ns)) return ready(0);
            if (word_.load(std::memory_order_acquire) & kLocal) return true;
            continue;
        }
        if (os::now_ns() < until) {
            os::relax_cpu();
            continue;
        }
        if ((word & kWaiter) == 0) {
            word_.compare_exchange_weak(word, word | kWaiter, std::memory_order_acq_rel);
            continue;
        }
        if (!os::futex_wait(word_, word, deadline_ns)) return ready(0);
    }
}

std::exception_ptr Task::failure(std::uint32_t) {
    if ((word_.load(std::memory_order_acquire) & kDone) == 0) return local_.completion->failure(local_.task);
    if (failure_) return failure_;
    if (outcome_ != Outcome::exception) return nullptr;
    return cluster_->decode_failure(rank_, result_.bytes());
}

void Task::read(std::uint32_t, multihull::detail::ReadResult reader_of, void* out) {
    if ((word_.load(std::memory_order_acquire) & kDone) == 0) {
        local_.completion->read(local_.task, reader_of, out);
        return;
    }
    if (auto why = failure(0)) std::rethrow_exception(std::move(why));
    ResultSource source;
    if (outcome_ == Outcome::map) {
        source.map = this;
        reader_of(source, out);
    } else {
        Reader reader(result_.bytes(), Reader::FromAfar{});
        source.reader = &reader;
        reader_of(source, out);
    }
}

Reader Task::element(std::uint64_t index) const {
    const auto bytes = result_.bytes();
    const auto cell_at = [&](std::uint64_t i) {
        Cell cell;
        std::memcpy(&cell, bytes.data() + i * sizeof cell, sizeof cell);
        return cell;
    };
    const Cell cell = cell_at(index);
    const std::size_t begin = index == 0 ? 0 : cell_at(index - 1).end;
    const auto own = bytes.subspan(count * sizeof(Cell) + begin, cell.end - begin);
    if (cell.failed != 0) std::rethrow_exception(cluster_->decode_failure(rank_, own));
    return {own, Reader::FromAfar{}};
}

bool Task::cancel(std::uint32_t) { return cluster_->cancel(*this); }

void Task::abandon(std::uint32_t) { cluster_->abandon(*this); }

void Task::on_done(std::uint32_t, std::function<void()> callback) {
    {
        const std::lock_guard guard(cluster_->mutex_);
        if (!ready(0) || !callbacks_.empty()) {
            callbacks_.push_back(std::move(callback));
            if (place_ == Place::local) hook_local();
            return;
        }
    }
    callback();
}

void Task::set_local(multihull::detail::Submitted submitted) {
    local_ = std::move(submitted);
    place_ = Place::local;
    change_word(kLocal);
    if (!callbacks_.empty()) hook_local();
}

// The engine tells once; what is added until then is called in the same go.
void Task::hook_local() {
    if (std::exchange(hooked_, true)) return;
    // Apart from this call, whose caller has the lock: the task may have ended, and then the engine calls back at once.
    cluster_->later([self = shared_from_this()] {
        self->local_.completion->on_done(self->local_.task, [self] { self->cluster_->ended_locally(*self); });
    });
}

void Task::change_word(std::uint32_t bits) noexcept {
    const std::uint32_t before = word_.fetch_or(bits, std::memory_order_acq_rel);
    if (before & kWaiter) os::futex_wake_all(word_);
}

Task::Call Task::end(Outcome outcome, RawBytes bytes) noexcept {
    outcome_ = outcome;
    result_ = std::move(bytes);
    place_ = Place::ended;
    change_word(kDone);
    return let_go_of_call();
}

Task::Call Task::end(std::exception_ptr why) noexcept {
    failure_ = std::move(why);
    place_ = Place::ended;
    change_word(kDone);
    return let_go_of_call();
}

/// The whole call in one piece.
SharedBlock Task::gather_call() const {
    SharedBlock whole(std::max<std::size_t>(call_size_, 1));
    std::size_t from = 0;
    std::size_t to = 0;
    const auto copy_until = [&](std::size_t position) {
        copy_bytes(whole.data() + to, call_.data() + from, position - to);
        from += position - to;
        to = position;
    };
    for (const LentBytes& piece : lent_) {
        copy_until(piece.position);
        copy_bytes(whole.data() + to, piece.bytes.data(), piece.bytes.size());
        to += piece.bytes.size();
    }
    copy_until(call_size_);
    for (const auto& named : call_.kept()) whole.keep(named);
    return whole;
}

Task::Call Task::let_go_of_call() noexcept {
    if (on_their_way_ != 0 || place_ != Place::ended) return {};
    if (stranded_) strand_call();
    return {std::exchange(call_, {}), std::exchange(lent_, {}), std::exchange(inputs_, {})};
}

// For workers of a lost rank, which may read it until they have ended, too.
void Task::strand_call() noexcept {
    try {
        cluster_->stranded_.reserve(cluster_->stranded_.size() + 1);
        cluster_->stranded_.push_back({std::exchange(call_, {}), std::exchange(lent_, {}), std::exchange(inputs_, {})});
    } catch (const std::bad_alloc&) {
        // Then they may read what it is not any more; nobody hears of what they make of it.
    }
}

}    // namespace multihull::mpi
