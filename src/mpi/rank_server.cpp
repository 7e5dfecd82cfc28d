#include "mpi/rank_server.hpp"

#include "mpi/local_task.hpp"
#include "mpi/rank_watch.hpp"
#include "mpi/threads.hpp"
#include "mpi/world.hpp"
#include "pool/fetched_call.hpp"

#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
#include <unistd.h>
#include <utility>

namespace multihull::mpi {

using multihull::detail::Reader;

namespace {

/// How long a rank that was asked to end (SIGTERM) waits for rank 0 to do so in good order. Shorter than the time that Slurm gives.
constexpr std::int64_t kGraceNs = 20'000'000'000;

std::atomic<int> termination{0};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only write lock-free atomics");

void on_termination(int signal) { termination.store(signal, std::memory_order_relaxed); }

// Ctrl-C and SIGTERM reach every rank: it is rank 0, where the program runs, that acts on them.
void leave_signals_to_rank_0() {
    ::signal(SIGINT, SIG_IGN);
    struct sigaction action {};
    action.sa_handler = on_termination;
    action.sa_flags = SA_RESTART;
    ::sigemptyset(&action.sa_mask);
    ::sigaction(SIGTERM, &action, nullptr);
}

}    // namespace

int serve(Transport& transport, const Meeting& meeting) {
    leave_signals_to_rank_0();
    const auto server = std::make_shared<RankServer>(transport, meeting);
    const auto watch = std::make_shared<RankWatch>([server](std::uint32_t) { server->orphaned(); });
    const Facts& first = meeting.ranks.front();
    if (first.machine == arrive().facts.machine) watch->add(0, first.pid);
    const int status = server->run();
    watch->stop();
    return status;
}

int RankServer::run() {
    while (!over_) {
        // First what this processor may just have given way for.
        const std::int64_t now = os::now_ns();
        bool did = look_for_ends(now);
        did |= flush(now);
        did |= transport_.progress();
        did |= receive();
        if (finish_values_ && values_.finished(finish_values_->id)) answer(*std::exchange(finish_values_, {}), true);
        did |= flush(now);
        if (orphaned_.load(std::memory_order_relaxed)) {
            transport_.give_up_the_end();
            std::fprintf(stderr, "multihull: rank %d ends: rank 0 is gone\n", transport_.rank());
            ::_exit(1);
        }
        if (const int signal = termination.load(std::memory_order_relaxed); signal != 0) {
            if (asked_to_end_ns_ == 0) asked_to_end_ns_ = now;
            if (now - asked_to_end_ns_ > kGraceNs) ::_exit(128 + signal);
        }
        const std::int64_t then = os::now_ns();
        if (did) {
            sleeper_.stay_awake();
            poll_.something_happened(then);
        } else {
            pause(then);
        }
    }
    // A session may end in the middle of things: an executor that was never shut down.
    for (auto& [number, pool] : pools_) {
        if (pool.engine) pool.engine->terminate();
        if (pool.closer.joinable()) pool.closer.join();
    }
    return 0;
}

bool RankServer::anything_running() const noexcept {
    for (const auto& [number, pool] : pools_) {
        if (!pool.entries.empty()) return true;
    }
    return false;
}

RankServer::Pool* RankServer::find(std::uint32_t cluster) {
    const auto place = pools_.find(cluster);
    return place == pools_.end() ? nullptr : &place->second;
}

// What rank 0 says.

bool RankServer::receive() {
    bool any = false;
    int rank = 0;
    std::span<const std::byte> packet;
    while (transport_.receive_packet(rank, packet)) {
        if (rank == 0) {
            read_packet(packet);
        } else {
            read_values(rank, packet);
        }
        any = true;
    }
    return any;
}

void RankServer::read_packet(std::span<const std::byte> bytes) {
    Reader reader(bytes);
    while (reader.remaining() != 0) {
        const Say what = reader.get<Say>();
        if (what == Say::open) {
            open(reader);
        } else if (what == Say::task) {
            take_task(reader);
        } else if (what == Say::value) {
            values_.take(0, reader);
        } else if (what == Say::forget) {
            values_.forget(reader.get<std::uint64_t>());
        } else if (what == Say::lost) {
            rank_lost(reader.get<LostHead>());
        } else if (what == Say::modules) {
            const auto head = reader.get<Modules>();
            std::vector<std::uint64_t> identities(head.count);
            reader.read(identities.data(), identities.size() * sizeof(std::uint64_t));
            multihull::detail::adopt_module_numbers(head.first, identities);
        } else if (what == Say::end) {
            over_ = true;
            if (reader.get<std::uint8_t>() == 0) transport_.give_up_the_end();
        } else {
            const auto request = reader.get<Request>();
            Pool* const pool = find(request.cluster);
            bool yes = false;
            switch (what) {
                case Say::cancel:
                case Say::withdraw:
                    yes = pool != nullptr && withdraw(*pool, request.id, what == Say::cancel);
                    break;
                case Say::withdraw_all:
                    if (pool != nullptr) withdraw_all(*pool);
                    break;
                case Say::give_back:
                    if (pool != nullptr) give_back(*pool, request);
                    continue;
                case Say::close:
                    if (pool != nullptr) start_closing(*pool);
                    continue;
                case Say::terminate:
                    if (pool != nullptr) terminate(*pool, request.id != 0);
                    continue;
                case Say::finish_values:
                    finish_values_ = request;
                    continue;
                default:
                    throw CodecError("rank 0 sent something that is no message");
            }
            answer(request, yes);
        }
    }
}

void RankServer::answer(const Request& request, bool yes) {
    hurry_ = true;
    Packet& packet = record();
    packet.put(Say::answer);
    packet.put(Answer{request.number, yes ? 1U : 0U});
}

// Another rank hands on what it had from rank 0.
void RankServer::read_values(int rank, std::span<const std::byte> bytes) {
    Reader reader(bytes);
    while (reader.remaining() != 0) {
        if (reader.get<Say>() != Say::value) throw CodecError("a rank other than 0 sent something that is no value");
        values_.take(rank, reader);
    }
}

void RankServer::rank_lost(const LostHead& head) {
    for (const std::uint64_t number : values_.neighbour_lost(head.rank, head.last)) {
        hurry_ = true;
        Packet& packet = record();
        packet.put(Say::want);
        packet.put(number);
    }
}

void RankServer::open(Reader& reader) {
    const auto head = reader.get<OpenHead>();
    Pool& pool = pools_[head.cluster];
    pool.cluster = head.cluster;
    pool.workers = head.workers;
    pool.crowded = head.crowded != 0;
    if (pool.crowded) poll_.be_crowded();
    const auto settings = reader.view(head.size);
    pool.settings.assign(settings.begin(), settings.end());
    pool.missing = 1 + head.values;
    const auto ready = [this, cluster = head.cluster] {
        Pool* const there = find(cluster);
        if (there != nullptr && --there->missing == 0) make_engine(*there);
    };
    for (const std::uint64_t number : get_numbers(reader, head.values)) values_.when_settled(number, ready);
    ready();
}

void RankServer::make_engine(Pool& pool) {
    try {
        PoolOptions options = decode_settings(std::exchange(pool.settings, {}));
        options.processes = pool.workers;
        options.start_method = StartMethod::forkserver;
        auto engine = std::make_shared<multihull::detail::Engine>(std::move(options));
        if (pool.crowded) engine->idle_workers_give_way();
        if (meeting_.reaches.back() != Reach::none) engine->borrow_from(meeting_.ranks.front().region);
        engine->start();
        pool.engine = std::move(engine);
    } catch (...) {
        pool.no_engine = std::current_exception();
    }
    for (const auto& task : std::exchange(pool.behind, {})) begin(task);
}

void RankServer::take_task(Reader& reader) {
    auto task = std::make_shared<Arriving>();
    task->head = reader.get<TaskHead>();
    task->call_size = task->head.call_size == kHuge ? reader.get<std::uint64_t>() : task->head.call_size;
    if (task->head.is_map) task->map = reader.get<MapHead>();
    if (task->head.has_options) task->options = decode_options(reader);
    Pool& pool = pools_.at(task->head.cluster);
    pool.arriving.push_back(task);
    ++task->missing;    // this call itself
    if (task->head.names_values != 0) {
        for (const std::uint64_t number : get_numbers(reader, reader.get<std::uint32_t>())) {
            ++task->missing;
            values_.when_settled(number, [this, task] { piece_came(task); });
        }
    }
    if (task->head.call == CallBytes::lent) {
        task->borrowed = {shm::kForeign | reader.get<std::uint64_t>(), task->call_size};
    } else if (task->head.call == CallBytes::fetched) {
        take_plan(reader, *task);
    } else {
        task->call = SharedBlock(std::max<std::size_t>(task->call_size, 1));
        take_call(reader, task);
    }
    if (task->head.is_map && task->map.inputs_lent == 0) {
        task->inputs = SharedBlock(std::max<std::size_t>(task->map.inputs_size, 1));
        piece(reader, task->map.inputs_are_bulk != 0, {task->inputs.data(), task->map.inputs_size}, task);
    }
    piece_came(task);
}

// The worker that runs it gets the pieces.
void RankServer::take_plan(Reader& reader, Arriving& task) {
    using multihull::detail::FetchedPiece;
    multihull::detail::FetchPlan plan{task.call_size, reader.get<std::uint32_t>()};
    std::vector<FetchedPiece> pieces;
    std::size_t rest = task.call_size;
    for (std::uint64_t i = 0; i < plan.pieces; ++i) {
        const auto head = reader.get<LentHead>();
        pieces.push_back({head.position, head.size, head.address});
        rest -= head.size;
    }
    task.call_size = sizeof plan + pieces.size() * sizeof(FetchedPiece) + rest;
    task.call = SharedBlock(task.call_size);
    std::byte* place = task.call.data();
    std::memcpy(place, &plan, sizeof plan);
    place += sizeof plan;
    std::memcpy(place, pieces.data(), pieces.size() * sizeof(FetchedPiece));
    reader.read(place + pieces.size() * sizeof(FetchedPiece), rest);
}

void RankServer::take_call(Reader& reader, const std::shared_ptr<Arriving>& task) {
    const std::span<std::byte> whole(task->call.data(), task->call_size);
    if (task->head.call == CallBytes::bulk) {
        piece(reader, true, whole, task);
        return;
    }
    std::vector<LentHead> lent(task->head.call == CallBytes::around ? reader.get<std::uint32_t>() : 0);
    reader.read(lent.data(), lent.size() * sizeof(LentHead));
    std::size_t at = 0;
    for (const LentHead& head : lent) {
        piece(reader, false, whole.subspan(at, head.position - at), task);
        piece(reader, true, whole.subspan(head.position, head.size), task);
        at = head.position + head.size;
    }
    piece(reader, false, whole.subspan(at), task);
}

// From the packet, or straight to where it is wanted.
void RankServer::piece(Reader& reader, bool is_bulk, std::span<std::byte> place,
                       const std::shared_ptr<Arriving>& task) {
    if (!is_bulk) {
        reader.read(place.data(), place.size());
        return;
    }
    ++task->missing;
    transport_.receive_bulk(0, place, [this, task] { piece_came(task); });
}

void RankServer::piece_came(const std::shared_ptr<Arriving>& task) {
    if (--task->missing == 0) begin(task);
}

void RankServer::begin(const std::shared_ptr<Arriving>& task) {
    if (task->withdrawn) return;
    Pool* const owner = find(task->head.cluster);
    if (owner == nullptr) return;    // rank 0 gave its tasks up and closed it
    Pool& pool = *owner;
    if (pool.missing != 0) {
        pool.behind.push_back(task);
        return;
    }
    pool.arriving.remove(task);
    try {
        if (!pool.engine) std::rethrow_exception(pool.no_engine);
        const TaskOptions* const options = task->head.has_options ? &task->options : nullptr;
        std::optional<CallBuffer> buffer;
        if (task->borrowed.size != 0) {
            buffer.emplace(task->borrowed);
        } else {
            buffer.emplace(std::move(task->call), task->call_size);
            if (task->head.call == CallBytes::fetched) buffer->be_plan();
        }
        Entry entry;
        entry.id = task->head.id;
        entry.is_map = task->head.is_map != 0;
        if (!entry.is_map) {
            entry.task = submit_to(pool.engine, task->head.token, *buffer, options);
        } else {
            MapPlan plan;
            plan.token = task->head.token;
            plan.count = task->map.count;
            plan.output_size = task->map.output_size;
            plan.cells = true;
            plan.max_parts = 1;
            if (task->map.inputs_lent != 0) {
                plan.input_offset = shm::kForeign | task->map.inputs_lent;
            } else {
                plan.input_offset = task->inputs.offset();
                plan.input_capacity = task->inputs.size();
                task->inputs.release();
            }
            entry.task = {multihull::detail::submit_map(pool.engine, *buffer, plan, options), 0};
        }
        if (pool.entries.empty()) pool.last_end_ns = os::now_ns();
        pool.entries.push_back(std::move(entry));
    } catch (...) {
        report_failure(pool, task->head.id, std::current_exception());
    }
}

bool RankServer::withdraw(Pool& pool, std::uint32_t id, bool even_running) {
    const auto arriving =
        std::find_if(pool.arriving.begin(), pool.arriving.end(), [&](const auto& task) { return task->head.id == id; });
    if (arriving != pool.arriving.end()) {
        forget_arriving(pool, arriving);
        report_failure(pool, id, std::make_exception_ptr(Cancelled("the task was cancelled before it started")));
        return true;
    }
    for (auto entry = pool.entries.begin(); entry != pool.entries.end(); ++entry) {
        if (entry->id != id) continue;
        auto& [completion, task] = entry->task;
        const bool yes = even_running ? completion->cancel(task) : mpi::withdraw(*pool.engine, *completion, task);
        // Who asked is to find it ended.
        if (completion->ready(task)) {
            report(pool, *entry);
            pool.entries.erase(entry);
        }
        return yes;
    }
    return false;
}

// Its bytes go on arriving, and are dropped then.
std::uint32_t RankServer::forget_arriving(Pool& pool, std::list<std::shared_ptr<Arriving>>::iterator task) {
    (*task)->withdrawn = true;
    const std::uint32_t id = (*task)->head.id;
    pool.arriving.erase(task);
    return id;
}

void RankServer::withdraw_all(Pool& pool) {
    while (!pool.arriving.empty()) withdraw(pool, pool.arriving.front()->head.id, false);
    for (std::size_t i = pool.entries.size(); i > 0; --i) withdraw(pool, pool.entries[i - 1].id, false);
}

void RankServer::terminate(Pool& pool, bool kill) {
    while (!pool.arriving.empty()) withdraw(pool, pool.arriving.front()->head.id, false);
    if (!pool.engine) return;
    if (kill) {
        pool.engine->terminate();
    } else {
        pool.engine->terminate_gently();
    }
}

void RankServer::give_back(Pool& pool, const Request& request) {
    std::vector<std::uint32_t> ids;
    while (ids.size() < request.id && !pool.arriving.empty()) {
        ids.push_back(forget_arriving(pool, std::prev(pool.arriving.end())));
    }
    for (std::size_t i = pool.entries.size(); i > 0 && ids.size() < request.id; --i) {
        Entry& entry = pool.entries[i - 1];
        if (!mpi::withdraw(*pool.engine, *entry.task.completion, entry.task.task)) continue;
        ids.push_back(entry.id);
        entry.task.completion->release(entry.task.task);
        pool.entries.erase(pool.entries.begin() + static_cast<std::ptrdiff_t>(i - 1));
    }
    Packet& packet = record();
    packet.put(Say::returned);
    packet.put(Request{pool.cluster, static_cast<std::uint32_t>(ids.size()), 0});
    packet.write(std::as_bytes(std::span(ids)));
    hurry_ = true;
}

// In a thread of its own: exit functions may take their time, and other pools go on.
void RankServer::start_closing(Pool& pool) {
    pool.closed = std::make_shared<std::atomic<bool>>(false);
    if (!pool.engine) {
        pool.closed->store(true);
        return;
    }
    pool.closer = start_thread("mh-closer", [this, engine = pool.engine, closed = pool.closed] {
        try {
            engine->close();
            engine->join();
        } catch (const std::exception& error) {
            log(LogLevel::error, std::string("while an executor's workers ended: ") + error.what());
        }
        closed->store(true);
        ring_own();
    });
}

}    // namespace multihull::mpi
