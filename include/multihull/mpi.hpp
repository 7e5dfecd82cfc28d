// One program on many machines: an executor whose workers are on all ranks of an MPI run.
//
// Thread-safe, except Session, which belongs to main(). MPI belongs to a thread of the session's: neither the program nor its tasks may
// call it. Needs the CMake component `mpi` (Multihull::mpi). See docs/mpi.md.
#pragma once

#include <multihull/detail/executor_map.hpp>
#include <multihull/detail/mpi_value.hpp>
#include <multihull/detail/submit.hpp>
#include <multihull/executor.hpp>
#include <multihull/pool_options.hpp>
#include <multihull/process_pool_executor.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>

namespace multihull::mpi {

/// What is done when a rank is lost: killed, or its machine gone. (A task's crash costs the task alone, and no rank.)
enum class RankLost {
    fail,    ///< Every task that has not ended fails with BrokenPool, and so does every later one.
    /// Its tasks are done by the other ranks, those too that had begun: they run twice. Needs a launcher that lets the others live, and
    /// notices the ranks of rank 0's own machine only: see docs/mpi.md.
    redo,
};

/// Settings of a Session.
struct SessionOptions {
    RankLost on_rank_lost = RankLost::fail;
    /// Ranks to start beside those that the launcher started (MPI_Comm_spawn): `{.spawn = 3}` makes four of a program that was started
    /// without one. The launcher, or the MPI's own settings, say on which machines.
    int spawn = 0;
    /// Workers of rank 0's own machine read big arguments where rank 0 has them, and ranks wake one another where all are on that machine.
    /// With false, arguments are sent to all ranks alike, and who waits asks MPI again and again, as between machines.
    bool read_in_place = true;
};

/// What rank 0 has sent and received since the session began.
struct Traffic {
    std::uint64_t messages_sent = 0;
    std::uint64_t bytes_sent = 0;
    std::uint64_t messages_received = 0;
    std::uint64_t bytes_received = 0;
};

/// This program's part in an MPI run; to be made as main's first line, and to end last.
///
/// ```cpp
/// int main(int argc, char** argv) {
///     multihull::mpi::Session session(argc, argv);
///     multihull::mpi::PoolExecutor executor;
///     for (int y : executor.map(square, std::views::iota(0, 1000))) std::cout << y << '\n';
/// }
/// ```
/// Under `mpiexec -n 4`, or srun, only rank 0 goes on behind it: the others work for it here, and end when its session does. Without a
/// launcher there is one rank, and the program runs as it would with a ProcessPoolExecutor.
class Session {
public:
    /// Calls init(), starts MPI, and meets the other ranks. Throws StartError where that fails, or a rank runs another build of this
    /// program; Error where there is a session, or was one: MPI can't be started twice.
    Session(int argc, char** argv, SessionOptions options = {});
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    /// Ends all ranks; every executor must be gone.
    ~Session();

    /// How many ranks there are.
    std::size_t size() const noexcept;
    /// The name of the machine that a rank is on. Throws std::out_of_range.
    const std::string& host(std::size_t rank) const;
    Traffic traffic() const noexcept;
};

/// Worker processes on every rank that run functions of this program: a ProcessPoolExecutor for many machines.
///
/// Functions, arguments and results must travel, as for Pool; what names memory of one machine (a Lock, a Queue, a file descriptor) is
/// refused with a CodecError. A task that crashes, hangs or is killed costs that task, on whichever rank.
class PoolExecutor : public multihull::detail::ExecutorMaps<PoolExecutor> {
public:
    /// Workers for every processor of every rank; ranks of one machine share its processors.
    PoolExecutor() : PoolExecutor(PoolOptions{}) {}
    /// `max_workers` workers in all, dealt out to the ranks in turn, rank 0 last. Throws std::invalid_argument for 0, Error without a
    /// session.
    explicit PoolExecutor(std::size_t max_workers);
    /// With the settings of Pool, which every rank's workers have; `processes` is of each rank, and 0 its share of the processors. The
    /// workers are always started by the forkserver.
    explicit PoolExecutor(PoolOptions options);
    PoolExecutor(const PoolExecutor&) = delete;
    PoolExecutor& operator=(const PoolExecutor&) = delete;
    /// As shutdown(): all that was submitted is finished.
    ~PoolExecutor();

    /// Queues `function(arguments...)` for the next free worker, wherever it is. Never blocks. Throws PoolClosed or BrokenPool.
    ///
    /// Big vectors and strings are not copied here where they are given away, `std::move(values)`, or, if all ranks are on this
    /// machine, lent, `std::cref(values)`. What is lent must stay as it is until the task has ended, as MPI's own buffers must; that
    /// its future is gone ends no task.
    template <class Function, class... Args>
        requires(!std::is_same_v<std::remove_cvref_t<Function>, TaskOptions>)
    auto submit(Function function, Args&&... arguments) {
        return multihull::detail::submit_function(runner_, nullptr, std::move(function),
                                                  std::forward<Args>(arguments)...);
    }
    /// The same with limits of its own: `submit({.timeout = 2s}, f, x)`.
    template <class Function, class... Args>
    auto submit(const TaskOptions& options, Function function, Args&&... arguments) {
        return multihull::detail::submit_function(runner_, &options, std::move(function),
                                                  std::forward<Args>(arguments)...);
    }

    /// Takes no more tasks. With `wait`, returns when the workers of all ranks have left and every callback has returned; with
    /// `cancel_futures`, what waits is cancelled instead of finished.
    void shutdown(bool wait = true, bool cancel_futures = false);
    /// Ends the workers now: asks by SIGTERM, and kills after a second those that have not left. Every task that has not ended
    /// throws Cancelled.
    void terminate_workers();
    /// The same by SIGKILL, at once.
    void kill_workers();

    /// Of all ranks together.
    std::size_t max_workers() const noexcept;

private:
    friend class multihull::detail::ExecutorMaps<PoolExecutor>;

    template <class Function, class... Ranges>
    auto start_map(const MapOptions& options, Function function, Ranges&&... inputs) {
        using Backend =
            multihull::detail::ProcessMapBackend<multihull::detail::CallRunner, Function,
                                                 multihull::detail::Holder<std::ranges::range_value_t<Ranges>>...>;
        return multihull::detail::executor_map(Backend(runner_, std::move(function)), options,
                                               std::forward<Ranges>(inputs)...);
    }

    std::shared_ptr<multihull::detail::CallRunner> runner_;
};

}    // namespace multihull::mpi
