// What a rank says to rank 0: how its tasks ended.
#include "mpi/rank_server.hpp"

#include "codec/exceptions.hpp"
#include "os/clock.hpp"

#include <multihull/error.hpp>

#include <utility>

namespace multihull::mpi {

using multihull::detail::Reader;
using multihull::detail::VectorGrowth;
using multihull::detail::Writer;

namespace {

/// What has ended is told at once when nothing else is to do, or after this time.
constexpr std::int64_t kFlushNs = 40'000;
constexpr std::int64_t kLookAtAllNs = 1'000'000;

}    // namespace

bool RankServer::look_for_ends(std::int64_t now_ns) {
    bool any = false;
    for (auto place = pools_.begin(); place != pools_.end();) {
        Pool& pool = place->second;
        any |= look_for_ends(pool, now_ns);
        if (pool.closed && pool.closed->load()) {
            if (pool.closer.joinable()) pool.closer.join();
            Packet& packet = record();
            packet.put(Say::closed);
            packet.put(Request{pool.cluster, 0, 0});
            hurry_ = true;
            any = true;
            place = pools_.erase(place);
        } else {
            ++place;
        }
    }
    return any;
}

// Workers take tasks in their order, so those that have ended are among the first; others (a retry goes behind the rest) are looked for
// now and then.
bool RankServer::look_for_ends(Pool& pool, std::int64_t now_ns) {
    constexpr std::size_t kBeyond = 8;
    const bool all = now_ns - pool.looked_at_all_ns > kLookAtAllNs;
    if (all) pool.looked_at_all_ns = now_ns;
    std::size_t ended = 0;
    std::size_t running = 0;
    for (std::size_t i = 0; i < pool.entries.size() && (all || running < pool.workers + kBeyond);) {
        auto& [completion, task] = pool.entries[i].task;
        if (!completion->ready(task)) {
            ++running;
            ++i;
            continue;
        }
        report(pool, pool.entries[i]);
        pool.entries.erase(pool.entries.begin() + static_cast<std::ptrdiff_t>(i));
        ++ended;
    }
    if (ended == 0) return false;
    const std::int64_t each = (now_ns - pool.last_end_ns) * pool.workers / static_cast<std::int64_t>(ended);
    pool.task_ns = (pool.task_ns * 3 + each) / 4;
    pool.last_end_ns = now_ns;
    // To come back for it would cost more than the message.
    if (pool.task_ns >= Poll::kLongTaskNs) hurry_ = true;
    return true;
}

Packet& RankServer::record() {
    if (out_.bytes().size() >= kFullPacket) {
        hurry_ = true;
        flush(out_since_ns_);
    }
    if (out_.empty()) {
        out_.bytes() = transport_.take_buffer();
        out_since_ns_ = os::now_ns();
    }
    return out_;
}

void RankServer::report(Pool& pool, Entry& entry) {
    auto& [completion, task] = entry.task;
    try {
        if (auto why = completion->failure(task)) {
            report_failure(pool, entry.id, why);
        } else if (entry.is_map) {
            report_map(pool, entry);
        } else {
            report_value(pool, entry);
            return;    // which lets go of it when the bytes are away
        }
    } catch (...) {
        report_failure(pool, entry.id, std::current_exception());
    }
    completion->release(task);
}

void RankServer::report_value(Pool& pool, Entry& entry) {
    std::span<const std::byte> bytes;
    auto [completion, task] = entry.task;
    completion->read(
        task,
        [](const multihull::detail::ResultSource& source, void* out) {
            *static_cast<std::span<const std::byte>*>(out) = source.reader->view(source.reader->remaining());
        },
        &bytes);
    const bool bulk = bytes.size() > kBulk;
    Packet& packet = record();
    packet.put(Say::done);
    packet.put(DoneHead{pool.cluster, entry.id, Outcome::value, static_cast<std::uint8_t>(bulk ? 1 : 0), 0,
                        bytes.size()});
    if (!bulk) {
        packet.write(bytes);
        completion->release(task);
        return;
    }
    // From where the worker left it.
    bulks_.push_back({bytes, [completion = completion, task = task] { completion->release(task); }});
}

void RankServer::report_map(Pool& pool, Entry& entry) {
    struct Collected {
        std::vector<Cell> cells;
        std::vector<std::byte> bytes;
    };
    auto collected = std::make_shared<Collected>();
    entry.task.completion->read(
        entry.task.task,
        [](const multihull::detail::ResultSource& source, void* out) {
            auto& [cells, bytes] = *static_cast<Collected*>(out);
            for (std::uint64_t i = 0; i < source.map->count; ++i) {
                std::uint64_t failed = 0;
                try {
                    Reader reader = source.map->element(i);
                    const auto element = reader.view(reader.remaining());
                    bytes.insert(bytes.end(), element.begin(), element.end());
                } catch (...) {
                    VectorGrowth growth;
                    Writer writer({}, growth);
                    multihull::detail::encode_exception(writer, std::current_exception(), {});
                    bytes.insert(bytes.end(), writer.bytes().begin(), writer.bytes().end());
                    failed = 1;
                }
                cells.push_back({bytes.size(), failed});
            }
        },
        collected.get());
    const auto cells = std::as_bytes(std::span(collected->cells));
    const std::size_t size = cells.size() + collected->bytes.size();
    const bool bulk = size > kBulk;
    Packet& packet = record();
    packet.put(Say::done);
    packet.put(DoneHead{pool.cluster, entry.id, Outcome::map, static_cast<std::uint8_t>(bulk ? 1 : 0), 0, size});
    if (!bulk) {
        packet.write(cells);
        packet.write(collected->bytes);
        return;
    }
    collected->bytes.insert(collected->bytes.begin(), cells.begin(), cells.end());
    bulks_.push_back({collected->bytes, [collected] {}});
}

void RankServer::report_failure(Pool& pool, std::uint32_t id, const std::exception_ptr& why) {
    VectorGrowth growth;
    Writer writer({}, growth);
    multihull::detail::encode_exception(writer, why, {});
    std::uint8_t broke = 0;
    try {
        std::rethrow_exception(why);
    } catch (const BrokenPool&) {
        broke = 1;
    } catch (const StartError&) {
        broke = pool.engine ? 0 : 1;
    } catch (...) {
        broke = 0;
    }
    // An exception's text is bounded, but may be long.
    const bool bulk = writer.size() > kBulk;
    Packet& packet = record();
    packet.put(Say::done);
    packet.put(DoneHead{pool.cluster, id, Outcome::exception, static_cast<std::uint8_t>(bulk ? 1 : 0), broke,
                        writer.size()});
    if (!bulk) {
        packet.write(writer.bytes());
        return;
    }
    auto kept = std::make_shared<std::vector<std::byte>>(writer.bytes().begin(), writer.bytes().end());
    bulks_.push_back({*kept, [kept] {}});
}

bool RankServer::flush(std::int64_t now_ns) {
    if (out_.empty()) return false;
    if (!hurry_ && anything_running() && now_ns - out_since_ns_ < kFlushNs && out_.bytes().size() < kFullPacket)
        return false;
    hurry_ = false;
    transport_.send_packet(0, std::move(out_.bytes()));
    out_.bytes().clear();
    for (Bulk& bulk : std::exchange(bulks_, {})) transport_.send_bulk(0, bulk.bytes, std::move(bulk.sent));
    return true;
}

}    // namespace multihull::mpi
