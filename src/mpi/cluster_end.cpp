// What ends before its time: a task that is cancelled, a cluster that is shut down or terminated.
#include "mpi/cluster.hpp"

#include "mpi/world.hpp"
#include "pool/engine.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <utility>

namespace multihull::mpi {

bool Cluster::cancel(Task& task) {
    if (!ours()) return false;
    std::unique_lock guard(mutex_);
    for (;;) {
        // It may be given back, and go elsewhere, while this waits for whoever has it.
        const Task::Place place = task.place_;
        const std::uint64_t sending = task.sending_;
        if (place == Task::Place::ended) return false;
        if (place == Task::Place::queued) {
            finish(task.shared_from_this(),
                   std::make_exception_ptr(Cancelled("the task was cancelled before it started")));
            return true;
        }
        if (place == Task::Place::local) {
            guard.unlock();
            if (task.local_.completion->cancel(task.local_.task)) return true;
        } else {
            const auto answer = world_.ask(task.rank_, Say::cancel, {number_, task.id_, 0});
            guard.unlock();
            if (world_.wait_for(answer)) return true;
        }
        guard.lock();
        if (task.place_ == place && task.sending_ == sending) return false;
    }
}

void Cluster::abandon(Task& task) {
    if (!ours()) return;
    std::unique_lock guard(mutex_);
    task.unwanted_ = true;
    switch (task.place_) {
        case Task::Place::ended:
            break;
        case Task::Place::queued:
            finish(task.shared_from_this(),
                   std::make_exception_ptr(Cancelled("the task was cancelled before it started")));
            break;
        case Task::Place::local:
            task.local_.completion->abandon(task.local_.task);
            break;
        case Task::Place::sent: {
            const auto answer = world_.ask(task.rank_, Say::withdraw, {number_, task.id_, 0});
            guard.unlock();
            world_.wait_for(answer);
            break;
        }
    }
}

void Cluster::close(bool cancel_waiting) {
    require_usable();
    std::vector<World::Pending> answers;
    {
        const std::lock_guard guard(mutex_);
        closed_ = true;
        if (cancel_waiting) {
            const auto why = std::make_exception_ptr(
                Cancelled("the task was cancelled before it started: its executor was shut down"));
            drop_queue(why);
            for (const Link& link : links_) {
                if (link.rank == 0 || link.lost || link.outstanding == 0) continue;
                answers.push_back(world_.ask(link.rank, Say::withdraw_all, {number_, 0, 0}));
            }
        }
        close_links();
    }
    if (engine_ && cancel_waiting) engine_->cancel_waiting();
    for (const auto& answer : answers) world_.wait_for(answer);
    world_.wake();
}

// Needs mutex_. When everything that may still go to any rank has ended.
void Cluster::close_links() {
    const bool still_queued = std::any_of(queue_.begin(), queue_.end(),
                                          [](const TaskPtr& task) { return task->place_ != Task::Place::ended; });
    if (!closed_ || links_closed_ || still_queued || sent_count_ != 0) return;
    links_closed_ = true;
    for (Link& link : links_) {
        if (link.lost) continue;
        if (link.rank == 0) {
            engine_->close();
            link.closed = true;
        } else {
            world_.post(link.rank, [&](Packet& packet) {
                packet.put(Say::close);
                packet.put(Request{number_, 0, 0});
            });
        }
    }
    changed_.notify_all();
}

void Cluster::join() {
    require_usable();
    {
        std::unique_lock guard(mutex_);
        if (!closed_)
            throw Error("executor " + options_.name + " still takes tasks: call shutdown() before waiting for its end");
        changed_.wait(guard, [&] {
            return links_closed_ &&
                   std::all_of(links_.begin(), links_.end(), [](const Link& link) { return link.closed; });
        });
    }
    if (engine_) engine_->join();
    callbacks_.wait_idle();
    const std::lock_guard guard(mutex_);
    local_.clear();    // they hold this cluster
}

void Cluster::terminate(bool kill) {
    require_usable();
    {
        const std::lock_guard guard(mutex_);
        closed_ = true;
        drop_queue(std::make_exception_ptr(Cancelled("the task was cancelled: its workers were ended")));
        end_workers(kill);
    }
    if (engine_) {
        if (kill) {
            engine_->terminate();
        } else {
            engine_->terminate_gently();
        }
    }
    world_.wake();
}

// Needs mutex_. Of the other ranks.
void Cluster::end_workers(bool kill) {
    for (const Link& link : links_) {
        if (link.rank == 0 || link.closed) continue;
        world_.post(link.rank, [&](Packet& packet) {
            packet.put(Say::terminate);
            packet.put(Request{number_, kill ? 1U : 0U, 0});
        });
    }
}

bool Cluster::over() const {
    const std::lock_guard guard(mutex_);
    return links_closed_ && std::all_of(links_.begin(), links_.end(), [](const Link& link) { return link.closed; });
}

}    // namespace multihull::mpi
