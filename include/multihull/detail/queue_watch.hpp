// Being told when get() or put() of a queue would not wait: all such waits of a program share one thread (src/channel/queue_watch.cpp).
#pragma once

#include <multihull/detail/queue_core.hpp>

#include <functional>
#include <memory>

namespace multihull::detail {

struct WatchEntry;

/// One who waits. Used by one thread at a time; what it tells comes from another.
class QueueWatch {
public:
    enum class Side { get, put };

    QueueWatch(const QueueCore& queue, Side side);
    QueueWatch(const QueueWatch&) = delete;
    QueueWatch& operator=(const QueueWatch&) = delete;
    /// Leaves what it was told, or waited for, to the others. What it has to tell may just be on its way.
    ~QueueWatch();

    /// Has `told()` called once when there is something for it: as many are told as there are messages (or room for them), in the order in
    /// which they came, and everybody when the queue was closed. Who was told should try; what it leaves is told to the next when it starts
    /// again, or ends.
    void start(std::function<void()> told);

private:
    std::shared_ptr<WatchEntry> entry_;
    bool started_ = false;
};

}    // namespace multihull::detail
