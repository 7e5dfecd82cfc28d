// Queues between processes: whole messages, in order, from any number of putters to any number of takers.
//
// Handles: copies name the same queue, in whichever process they land. Safe across processes and threads. put() is complete when it
// returns: there is no thread that feeds, nothing to flush and nothing to join first. A process may be killed at any instruction of
// put() or get(): the others go on, a message that was put completely is not lost unless the dead had taken it, none is torn and none
// comes twice. Protocol and kill points: src/channel/README.md.
#pragma once

#include <multihull/detail/queue_core.hpp>
#include <multihull/detail/queue_in_place.hpp>
#include <multihull/error.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>

namespace multihull {

/// A first-in, first-out queue of values that can travel.
///
/// ```cpp
/// multihull::Queue<std::string> queue;
/// multihull::Process worker(print_all, queue);
/// worker.start();
/// queue.put("hello");
/// ```
template <class T>
class Queue {
public:
    using value_type = T;

    /// A queue that takes up to `maxsize` messages; 0: as many as memory does. Throws StartError when there is no room for another
    /// queue.
    explicit Queue(std::size_t maxsize = 0) : Queue(make(maxsize, false)) {}

    /// Puts a value, waiting for room where there is a limit. Throws QueueClosed when the queue was closed, std::bad_alloc when shared
    /// memory is used up.
    void put(const T& value) { put_before(value, detail::queue_deadline(-1)); }
    void put(T&& value) { put_before(value, detail::queue_deadline(-1)); }
    /// The same, but throws QueueFull when there is no room for that long.
    void put(const T& value, std::chrono::nanoseconds timeout) {
        if (!put_before(value, detail::queue_deadline(timeout.count()))) detail::throw_queue_full();
    }
    void put(T&& value, std::chrono::nanoseconds timeout) {
        if (!put_before(value, detail::queue_deadline(timeout.count()))) detail::throw_queue_full();
    }
    /// Puts the value if there is room now, or within that time; false otherwise.
    bool try_put(const T& value) { return put_before(value, 0); }
    bool try_put(T&& value) { return put_before(value, 0); }
    bool try_put_for(const T& value, std::chrono::nanoseconds timeout) {
        return put_before(value, detail::queue_deadline(timeout.count()));
    }

    /// Takes the oldest value, waiting for one. Throws QueueClosed when the queue was closed and everything has been taken.
    T get() {
        auto value = get_before(detail::queue_deadline(-1));
        return std::move(*value);
    }
    /// The same, but throws QueueEmpty when there is none for that long.
    T get(std::chrono::nanoseconds timeout) {
        auto value = get_before(detail::queue_deadline(timeout.count()));
        if (!value) detail::throw_queue_empty();
        return std::move(*value);
    }
    /// Takes the oldest value if there is one now, or within that time; empty otherwise.
    std::optional<T> try_get() { return get_before(0); }
    std::optional<T> try_get_for(std::chrono::nanoseconds timeout) {
        return get_before(detail::queue_deadline(timeout.count()));
    }

    /// Memory in the queue for one value, to be filled in place and then given to publish(): nothing is copied. For values that are the
    /// same bytes everywhere, and with a count for vectors of them and strings. Given back when it is destroyed, or its process dies.
    Loan<T> loan()
        requires(detail::kInPlaceValue<T>)
    {
        return Loan<T>(core_.loan(sizeof(T)));
    }
    Loan<T> loan(std::size_t count)
        requires(detail::kInPlaceRange<T>)
    {
        return Loan<T>(core_.loan(Loan<T>::size_of(count)), count);
    }
    /// Puts what was filled in place.
    void publish(Loan<T>&& loan) {
        const std::size_t size = loan.size_;
        core_.put(loan.block_, size, 0, detail::queue_deadline(-1));
    }
    /// Takes the oldest value where it lies: the view frees it when it is destroyed. Throws as get().
    View<T> get_view()
        requires(detail::kInPlaceValue<T> || detail::kInPlaceRange<T>)
    {
        auto message = std::make_unique<detail::QueueMessage>();
        core_.take(*message, detail::queue_deadline(-1));
        return View<T>(std::move(message));
    }

    /// How many values are in the queue: already another number, perhaps, when the caller looks at it.
    std::size_t qsize() const noexcept { return core_.qsize(); }
    bool empty() const noexcept { return core_.qsize() == 0; }
    bool full() const noexcept { return core_.maxsize() != 0 && core_.qsize() >= core_.maxsize(); }
    /// The limit it was made with; 0 for none.
    std::size_t maxsize() const noexcept { return core_.maxsize(); }

    /// Closes the queue for everybody: put() throws QueueClosed from now on, and get() when the queue is empty. Whoever waits is told.
    void close() { core_.close(); }
    bool closed() const noexcept { return core_.closed(); }

    /// For multihull::wait(): ready when get() would not wait.
    std::shared_ptr<detail::WaitSource> wait_source() const { return core_.wait_source(); }
    /// For multihull::asio.
    const detail::QueueCore& core() const noexcept { return core_; }

protected:
    friend struct Codec<Queue<T>>;
    explicit Queue(detail::QueueCore core) noexcept : core_(std::move(core)) {}
    static detail::QueueCore make(std::size_t maxsize, bool joinable) {
        detail::require_travels<T>();
        return detail::QueueCore::make(maxsize, joinable);
    }

    template <class V>
    bool put_before(V& value, std::int64_t deadline) {
        detail::QueueWriter message(core_);
        detail::encode(message.writer(), value);
        return message.put(deadline);
    }
    std::optional<T> get_before(std::int64_t deadline) {
        detail::QueueMessage message;
        if (!core_.take(message, deadline)) return std::nullopt;
        detail::Reader reader(message.bytes());
        return detail::decode<T>(reader);
    }

    detail::QueueCore core_;
};

/// A queue without a limit and without frills: Python's name for it.
template <class T>
class SimpleQueue : public Queue<T> {
public:
    SimpleQueue() : Queue<T>(0) {}

private:
    friend struct Codec<SimpleQueue<T>>;
    explicit SimpleQueue(detail::QueueCore core) noexcept : Queue<T>(std::move(core)) {}
};

/// Thrown by JoinableQueue::join() when processes died that had taken values and not called task_done(): nobody will.
class TasksLost : public Error {
public:
    explicit TasksLost(std::size_t count);
    /// How many values they had taken.
    std::size_t count() const noexcept { return count_; }

private:
    std::size_t count_;
};

/// A queue whose takers say when they are done with what they took, and whose putters can wait for that.
template <class T>
class JoinableQueue : public Queue<T> {
public:
    explicit JoinableQueue(std::size_t maxsize = 0) : Queue<T>(Queue<T>::make(maxsize, true)) {}

    /// Says that one value that this process took is dealt with. Throws SyncError where there is none.
    void task_done() { this->core_.task_done(); }
    /// Waits until every value that was put has been taken and dealt with. Throws TasksLost, once, when some never will be because the
    /// process that took them has died.
    void join() { this->core_.join(detail::queue_deadline(-1)); }
    /// The same, for that long at most; false when there was more to do.
    bool join(std::chrono::nanoseconds timeout) { return this->core_.join(detail::queue_deadline(timeout.count())); }

private:
    friend struct Codec<JoinableQueue<T>>;
    explicit JoinableQueue(detail::QueueCore core) noexcept : Queue<T>(std::move(core)) {}
};

template <class T>
struct Codec<Queue<T>> {
    static void encode(detail::Writer& writer, const Queue<T>& queue) { queue.core_.encode(writer); }
    static Queue<T> decode(detail::Reader& reader) { return Queue<T>(detail::QueueCore::decode(reader)); }
};
template <class T>
struct Codec<SimpleQueue<T>> {
    static void encode(detail::Writer& writer, const SimpleQueue<T>& queue) { Codec<Queue<T>>::encode(writer, queue); }
    static SimpleQueue<T> decode(detail::Reader& reader) { return SimpleQueue<T>(detail::QueueCore::decode(reader)); }
};
template <class T>
struct Codec<JoinableQueue<T>> {
    static void encode(detail::Writer& writer, const JoinableQueue<T>& queue) {
        Codec<Queue<T>>::encode(writer, queue);
    }
    static JoinableQueue<T> decode(detail::Reader& reader) {
        return JoinableQueue<T>(detail::QueueCore::decode(reader));
    }
};

}    // namespace multihull
