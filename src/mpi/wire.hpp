// The records that ranks send one another; see README.md. Several travel in one packet.
//
// Both ends run the same build (they met), so records are structs as they are in memory.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/pool_options.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

namespace multihull::mpi {

/// What does not fit into this many bytes travels as bulk.
inline constexpr std::size_t kBulk = std::size_t{16} << 10;
/// A packet is sent when it has come to this size.
inline constexpr std::size_t kFullPacket = std::size_t{64} << 10;

enum class Say : std::uint8_t {
    // Rank 0.
    open,             ///< A cluster begins: its settings follow.
    task,             ///< A call; its options and bytes follow.
    cancel,           ///< A task, even one that runs. Answered.
    withdraw,         ///< A task that has not begun. Answered.
    withdraw_all,     ///< Every task of the cluster that has not begun. Answered.
    give_back,        ///< Some tasks that have not begun, the last ones first. Answered by `returned`.
    close,            ///< No more tasks come. Answered by `closed` when the workers have left.
    terminate,        ///< Ends the cluster's workers.
    modules,          ///< More libraries that tokens speak of.
    value,            ///< A value that all tasks may read. Other ranks hand it on.
    forget,           ///< Nobody needs that value any more.
    lost,             ///< A rank that handed values on to this one, or had them from it, is lost.
    finish_values,    ///< Answered when all values have come, and were handed on.
    end,              ///< The session is over; 1: all end MPI together, 0: one of them is lost.
    // The others.
    done,        ///< A task has ended: its outcome follows.
    answer,      ///< To a request, by its number.
    returned,    ///< Names of tasks that will not be run here.
    want,        ///< A value that does not come any more from who was to hand it on.
    closed,      ///< The cluster's workers have left.
};

struct OpenHead {
    std::uint32_t cluster;
    std::uint32_t workers;
    std::uint32_t crowded;    ///< There are more threads that wait awake than processors.
    std::uint32_t size;       ///< Of the settings.
    std::uint32_t values;     ///< How many values the settings name; their numbers come behind them.
};

enum class CallBytes : std::uint8_t {
    here,      ///< In the packet.
    bulk,      ///< Behind it.
    lent,      ///< In rank 0's shared memory, where this rank's workers can look: at this offset (64 bits).
    around,    ///< In the packet, but for what is lent: how many pieces (32 bits), and a LentHead for each, come first. Those are bulk.
    fetched,    ///< The same, but that workers read the pieces in rank 0's memory.
};

struct TaskHead {
    std::uint32_t cluster;
    std::uint32_t id;
    multihull::detail::Token token;
    std::uint8_t is_map;
    std::uint8_t has_options;
    CallBytes call;
    std::uint8_t names_values;    ///< How many (32 bits), and their numbers, come behind the options.
    std::uint32_t call_size;      ///< With what is lent.
};
struct LentHead {
    std::uint64_t position;    ///< In the call.
    std::uint64_t size;
    std::uint64_t address;    ///< In rank 0.
};
/// Behind the TaskHead of a map.
struct MapHead {
    std::uint64_t count;
    std::uint64_t output_size;
    std::uint64_t inputs_size;
    std::uint64_t inputs_are_bulk;
    std::uint64_t inputs_lent;    ///< Where they are in rank 0's shared memory; 0: they travel.
};
/// In place of TaskHead::call_size where that is kHuge.
inline constexpr std::uint32_t kHuge = ~std::uint32_t{0};

struct Request {
    std::uint32_t cluster;
    std::uint32_t
        id;    ///< The task; of give_back: how many; of terminate: 1 for SIGKILL; of finish_values: the last one's number.
    std::uint64_t number;    ///< Of the request, for its answer.
};

enum class Outcome : std::uint8_t { value, exception, map };

struct DoneHead {
    std::uint32_t cluster;
    std::uint32_t id;
    Outcome outcome;
    std::uint8_t is_bulk;
    std::uint8_t pool_broke;    ///< The cluster's workers can't be used any more; the exception says why.
    std::uint64_t size;
};

struct Answer {
    std::uint64_t number;
    std::uint64_t yes;
};

/// One element of a map's results; all of them come first, then their bytes.
struct Cell {
    std::uint64_t end;       ///< Where its bytes end, counted from the end of the cells.
    std::uint64_t failed;    ///< 1: the bytes are an exception's.
};

struct Modules {
    std::uint32_t first;
    std::uint32_t count;
};

struct ValueHead {
    std::uint64_t number;
    std::uint64_t size;
    std::uint32_t is_bulk;
    std::uint32_t hand_on;    ///< To the children in the tree.
};
struct LostHead {
    std::uint32_t rank;
    std::uint32_t unused;
    std::uint64_t last;    ///< The number of the last value that it was to hand on.
};

/// Fills a packet.
class Packet {
public:
    std::vector<std::byte>& bytes() noexcept { return bytes_; }
    const std::vector<std::byte>& bytes() const noexcept { return bytes_; }
    bool empty() const noexcept { return bytes_.empty(); }

    template <class T>
        requires std::is_trivially_copyable_v<T>
    void put(const T& value) {
        write(std::as_bytes(std::span(&value, 1)));
    }
    void write(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

private:
    std::vector<std::byte> bytes_;
};

/// That many numbers of values.
std::vector<std::uint64_t> get_numbers(multihull::detail::Reader& reader, std::uint32_t count);

/// The settings of a pool as they travel, initializer and exit function included. Adds what these name to `kept`.
std::vector<std::byte> encode_settings(const PoolOptions& options, std::vector<std::shared_ptr<const void>>& kept);
PoolOptions decode_settings(std::span<const std::byte> bytes);

/// The settings of one task.
void encode_options(Packet& packet, const TaskOptions& options);
TaskOptions decode_options(multihull::detail::Reader& reader);

}    // namespace multihull::mpi
