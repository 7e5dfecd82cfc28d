#include "mpi/world.hpp"

#include "mpi/broadcast.hpp"
#include "mpi/cluster.hpp"
#include "mpi/poll.hpp"
#include "mpi/rank_watch.hpp"
#include "mpi/threads.hpp"
#include "os/futex.hpp"
#include "shm/region.hpp"

#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sched.h>
#include <stdexcept>
#include <sys/prctl.h>
#include <unistd.h>
#include <utility>

namespace multihull::mpi {

namespace {

std::atomic<World*> the_world{nullptr};

/// The kernel may end a sleep this much late; its own choice of 50 us is longer than most of the sleeps here.
constexpr unsigned long kTimerSlackNs = 1'000;

std::string lost_sentence(const Facts& facts, std::uint32_t rank) {
    return "rank " + std::to_string(rank) + " (process " + std::to_string(facts.pid) + " on " + facts.host +
           ") was lost: it was killed, or ended by itself";
}

}    // namespace

World::World(Arrival arrival, SessionOptions options, char** argv) : options_(options) {
    if (!options_.read_in_place) arrival.facts.region = {};
    thread_ = start_thread("mh-mpi", [this, argv, arrival = std::move(arrival)] { run(arrival, argv); });
    std::unique_lock guard(mutex_);
    changed_.wait(guard, [&] { return met_ || failed_; });
    if (failed_) {
        guard.unlock();
        thread_.join();
        std::rethrow_exception(failed_);
    }
    the_world.store(this, std::memory_order_release);
}

World::~World() {
    the_world.store(nullptr, std::memory_order_seq_cst);
    while (anybody_at_work()) ::sched_yield();
    broadcasts_->finish();
    watch_->stop();
    ending_.store(true);
    wake();
    thread_.join();
}

World* World::current_or_null() noexcept {
    World* const world = the_world.load(std::memory_order_seq_cst);
    return world != nullptr && world->ours() ? world : nullptr;
}

World& World::current() {
    World* const world = the_world.load(std::memory_order_seq_cst);
    if (world != nullptr && !world->ours()) {
        throw Error(
            "the MPI session belongs to the process that made it, not to this forked child: use a Pool of its own "
            "here");
    }
    if (world == nullptr) {
        throw Error(
            "there is no MPI session: make multihull::mpi::Session session(argc, argv) main's first line, and keep it "
            "until the end");
    }
    return *world;
}

// The thread that calls MPI.
void World::run(const Arrival& arrival, char** argv) {
    ::prctl(PR_SET_TIMERSLACK, kTimerSlackNs, 0, 0, 0);
    const auto fail = [&](std::exception_ptr why) {
        const std::lock_guard guard(mutex_);
        failed_ = std::move(why);
        changed_.notify_all();
    };
    std::unique_ptr<Transport> transport;
    int rank = 0;
    try {
        transport = std::make_unique<Transport>(options_.spawn, argv);
        rank = transport->rank();
        meeting_ = meet(*transport, arrival);
        transport->be_polled();
        if (meeting_.bells) transport->ring(meeting_.bells);
    } catch (const StartError&) {
        transport.reset();
        // Rank 0 says why. A launcher ends the others where one ends with another status, and would before that is said.
        if (rank != 0) std::exit(0);
        return fail(std::current_exception());
    } catch (const std::exception& error) {
        if (rank != 0) {
            log(LogLevel::error, "rank " + std::to_string(rank) + " ends: " + error.what());
            ::_exit(1);
        }
        transport.reset();
        return fail(std::current_exception());
    }
    if (rank != 0) {
        int status = 1;
        try {
            status = serve(*transport, meeting_);
        } catch (const std::exception& error) {
            log(LogLevel::error, "rank " + std::to_string(rank) + " ends: " + error.what());
            ::_exit(1);
        }
        transport.reset();
        std::exit(status);
    }
    transport_ = transport.get();
    takes_guests_ = transport->any_thread();
    transport->count_into(counted_);
    outboxes_.resize(size());
    lost_.resize(size());
    died_ = std::make_unique<std::atomic<bool>[]>(size());
    broadcasts_ = std::make_unique<Broadcasts>(*this);
    announced_modules_ = arrival.numbers.size();
    watch_ = std::make_shared<RankWatch>([this](std::uint32_t lost) { rank_died(lost); });
    for (std::uint32_t other = 1; other < size(); ++other) {
        const Facts& facts = meeting_.ranks[other];
        if (facts.machine == meeting_.ranks[0].machine) watch_->add(other, facts.pid);
    }
    {
        const std::lock_guard guard(mutex_);
        met_ = true;
        changed_.notify_all();
    }
    try {
        conduct();
    } catch (const std::exception& error) {
        const auto why =
            std::make_exception_ptr(BrokenPool(std::string("MPI can't be used any more: ") + error.what()));
        log(LogLevel::error, error.what());
        dismiss_guests();
        transport->give_up_the_end();
        const std::lock_guard guard(mutex_);
        failed_ = why;
        for (const auto& [number, cluster] : clusters_) {
            for (std::uint32_t other = 1; other < size(); ++other) cluster->on_lost(other, why, false);
        }
    }
    dismiss_guests();
    const std::lock_guard guard(answers_mutex_);
    answers_over_ = true;
    answered_.notify_all();
}

// What others left for ranks.

bool World::flush() {
    if (!posted_.exchange(false, std::memory_order_acq_rel)) return false;
    std::vector<std::pair<std::uint32_t, std::deque<Batch>>> all;
    {
        const std::lock_guard guard(outbox_mutex_);
        announce_modules();
        for (const std::uint32_t rank : waiting_outboxes_) {
            all.emplace_back(rank, std::exchange(outboxes_[rank].batches, {}));
        }
        waiting_outboxes_.clear();
    }
    for (auto& [rank, batches] : all) {
        for (Batch& batch : batches) {
            if (lost_[rank]) {
                for (const Bulk& bulk : batch.bulks) bulk.sent();
                continue;
            }
            transport_->send_packet(static_cast<int>(rank), std::move(batch.packet.bytes()));
            for (Bulk& bulk : batch.bulks) {
                transport_->send_bulk(static_cast<int>(rank), bulk.bytes, std::move(bulk.sent));
            }
        }
    }
    return true;
}

// Needs outbox_mutex_. Libraries that were loaded since: in front of the first record that may speak of them.
void World::announce_modules() {
    const auto& table = shm::Region::instance().header().modules;
    std::vector<std::uint64_t> fresh;
    for (std::size_t i = announced_modules_; i < shm::kMaxModules; ++i) {
        const std::uint64_t identity = table[i].load(std::memory_order_acquire);
        if (identity == 0) break;
        fresh.push_back(identity);
    }
    if (fresh.empty()) return;
    const Modules head{static_cast<std::uint32_t>(announced_modules_), static_cast<std::uint32_t>(fresh.size())};
    announced_modules_ += fresh.size();
    for (std::uint32_t rank = 1; rank < size(); ++rank) {
        if (outboxes_[rank].batches.empty()) waiting_outboxes_.push_back(rank);
        Batch batch;
        batch.packet.put(Say::modules);
        batch.packet.put(head);
        batch.packet.write(std::as_bytes(std::span(fresh)));
        outboxes_[rank].batches.push_front(std::move(batch));
    }
}

// What ranks say.

bool World::receive() {
    constexpr int kAtOnce = 64;
    bool any = false;
    int rank = 0;
    std::span<const std::byte> packet;
    for (int i = 0; i < kAtOnce && transport_->receive_packet(rank, packet); ++i) {
        read_packet(static_cast<std::uint32_t>(rank), packet);
        any = true;
    }
    if (any) publish_traffic();
    return any;
}

// Needs baton_, with which alone it is written.
void World::publish_traffic() {
    if (traffic_.messages_sent == counted_.messages_sent && traffic_.messages_received == counted_.messages_received)
        return;
    const std::lock_guard guard(traffic_mutex_);
    traffic_ = counted_;
}

void World::read_packet(std::uint32_t rank, std::span<const std::byte> bytes) {
    multihull::detail::Reader reader(bytes);
    while (reader.remaining() != 0) {
        const Say what = reader.get<Say>();
        switch (what) {
            case Say::done: {
                const auto head = reader.get<DoneHead>();
                if (head.is_bulk != 0) {
                    auto result = std::make_shared<RawBytes>(head.size);
                    transport_->receive_bulk(static_cast<int>(rank), result->bytes(), [this, rank, head, result] {
                        if (const auto owner = cluster(head.cluster)) owner->on_done(rank, head, std::move(*result));
                    });
                } else {
                    RawBytes result(head.size);
                    reader.read(result.bytes().data(), head.size);
                    if (const auto owner = cluster(head.cluster)) owner->on_done(rank, head, std::move(result));
                }
                break;
            }
            case Say::answer: {
                const auto said = reader.get<Answer>();
                answer(said.number, said.yes != 0);
                break;
            }
            case Say::returned: {
                const auto head = reader.get<Request>();
                std::vector<std::uint32_t> ids(head.id);
                reader.read(ids.data(), ids.size() * sizeof(std::uint32_t));
                if (const auto owner = cluster(head.cluster)) owner->on_returned(rank, ids);
                break;
            }
            case Say::closed: {
                const auto head = reader.get<Request>();
                if (const auto owner = cluster(head.cluster)) owner->on_closed(rank);
                break;
            }
            case Say::want:
                broadcasts_->send_to(rank, reader.get<std::uint64_t>());
                break;
            default:
                throw CodecError("rank " + std::to_string(rank) + " sent something that is no message");
        }
    }
}

std::shared_ptr<Cluster> World::cluster(std::uint32_t number) {
    const std::lock_guard guard(mutex_);
    const auto place = clusters_.find(number);
    return place == clusters_.end() ? nullptr : place->second;
}

World::Pending World::ask(std::uint32_t rank, Say what, Request request) {
    auto question = std::make_shared<Question>();
    question->rank = rank;
    question->what = what;
    {
        const std::lock_guard guard(answers_mutex_);
        request.number = next_question_++;
        questions_.emplace(request.number, question);
        if (answers_over_) question->answered = true;
    }
    post(rank, [&](Packet& packet) {
        packet.put(what);
        packet.put(request);
    });
    wake();
    return question;
}

bool World::wait_for(const Pending& question) {
    std::unique_lock guard(answers_mutex_);
    answered_.wait(guard, [&] { return question->answered || answers_over_; });
    return question->yes;
}

void World::answer(std::uint64_t number, bool yes) {
    const std::lock_guard guard(answers_mutex_);
    const auto place = questions_.find(number);
    if (place == questions_.end()) return;
    place->second->answered = true;
    place->second->yes = yes;
    questions_.erase(place);
    answered_.notify_all();
}

// Lost ranks.

void World::rank_died(std::uint32_t rank) noexcept {
    died_[rank].store(true, std::memory_order_release);
    any_died_.store(true, std::memory_order_seq_cst);
    wake();
}

void World::look_for_lost() {
    any_died_.store(false);
    for (std::uint32_t rank = 1; rank < size(); ++rank) {
        if (lost_[rank] || !died_[rank].load(std::memory_order_acquire)) continue;
        {
            const std::lock_guard guard(mutex_);
            lost_[rank] = true;
        }
        transport_->give_up(static_cast<int>(rank));
        broadcasts_->rank_lost(rank);
        const bool redo = options_.on_rank_lost == RankLost::redo;
        const std::string sentence = lost_sentence(meeting_.ranks[rank], rank);
        log(LogLevel::error, sentence + (redo ? "; its tasks are given to others" : "; no more tasks are run"));
        const auto why = std::make_exception_ptr(
            BrokenPool(sentence + ", and its tasks with it; start the program again, or have such tasks done elsewhere "
                                  "by SessionOptions::on_rank_lost"));
        std::vector<std::shared_ptr<Cluster>> clusters;
        {
            const std::lock_guard guard(mutex_);
            for (const auto& [number, cluster] : clusters_) clusters.push_back(cluster);
        }
        for (const auto& cluster : clusters) cluster->on_lost(rank, why, redo);
        const std::lock_guard guard(answers_mutex_);
        std::erase_if(questions_, [&](const auto& entry) {
            // Values that nobody asks for are not sent again, so that some rank may never have them all.
            if (entry.second->rank != rank && entry.second->what != Say::finish_values) return false;
            entry.second->answered = true;
            return true;
        });
        answered_.notify_all();
    }
}

Traffic World::traffic() const noexcept {
    const std::lock_guard guard(traffic_mutex_);
    return traffic_;
}

void World::forget_value(std::uint64_t number) noexcept {
    const AtWork here;
    World* const world = current_or_null();
    if (world != nullptr) world->broadcasts_->forget(number);
}

// Clusters.

std::shared_ptr<Cluster> World::shared_cluster() {
    const std::lock_guard guard(shared_mutex_);
    if (!shared_ || !shared_->ours()) shared_ = make_cluster({.name = "Parallel-MPI"}, 0);
    return shared_;
}

void World::end_shared_cluster() noexcept {
    const std::lock_guard guard(shared_mutex_);
    if (!shared_ || !shared_->ours()) return;
    try {
        shared_->terminate(true);
        shared_->join();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("while the workers of a Parallel ended: ") + error.what());
    }
    shared_.reset();
}

std::shared_ptr<Cluster> World::make_cluster(PoolOptions options, std::size_t total) {
    std::vector<std::uint32_t> workers(size());
    for (std::size_t rank = 0; rank < size(); ++rank) {
        if (total != 0) {
            // In turn, from rank 1 on: rank 0 has the program itself to run.
            const std::size_t turn = (rank + size() - 1) % size();
            workers[rank] = static_cast<std::uint32_t>(total / size() + (turn < total % size() ? 1 : 0));
        } else if (options.processes != 0) {
            workers[rank] = static_cast<std::uint32_t>(options.processes);
        } else {
            workers[rank] = meeting_.default_workers(rank);
        }
        constexpr std::uint32_t kMost = 4096;
        if (workers[rank] > kMost) {
            throw std::invalid_argument("an executor of " + std::to_string(workers[rank]) +
                                        " workers a rank is more than a rank can have (4096): ask for fewer");
        }
    }
    std::shared_ptr<Cluster> cluster;
    {
        const std::lock_guard guard(mutex_);
        cluster = std::make_shared<Cluster>(*this, next_cluster_++, std::move(options), workers);
    }
    cluster->start();
    std::vector<bool> lost;
    {
        const std::lock_guard guard(mutex_);
        if (failed_) std::rethrow_exception(failed_);
        clusters_.emplace(cluster->number(), cluster);
        lost = lost_;
    }
    for (std::uint32_t rank = 1; rank < size(); ++rank) {
        if (lost[rank]) {
            const auto why = std::make_exception_ptr(BrokenPool(lost_sentence(meeting_.ranks[rank], rank)));
            cluster->on_lost(rank, why, options_.on_rank_lost == RankLost::redo);
        }
    }
    return cluster;
}

}    // namespace multihull::mpi
