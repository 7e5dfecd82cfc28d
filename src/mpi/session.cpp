#include "mpi/cluster.hpp"
#include "mpi/world.hpp"
#include "process/zygote.hpp"

#include <multihull/error.hpp>
#include <multihull/log.hpp>
#include <multihull/mpi.hpp>
#include <multihull/parallel_options.hpp>
#include <multihull/process.hpp>

#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/types.h>
#include <unistd.h>
#include <utility>

namespace multihull::mpi {

namespace {

std::atomic<bool> was_started{false};
World* own_world = nullptr;

/// Parallel({.backend = "mpi"}): loops share one executor, which lives until the session ends.
class Backend final : public ParallelBackend {
public:
    void run(std::size_t, std::size_t, std::size_t, const std::function<void(std::size_t)>&) override {
        throw Error("the backend \"mpi\" runs calls in other processes");
    }
    std::shared_ptr<multihull::detail::CallRunner> runner() override { return World::current().shared_cluster(); }
};

/// Where memory runs out, the kernel is to end the worker that took it, not its rank, whose end would be the run's.
void offer_to_oom_killer(pid_t forkserver) {
    std::ofstream("/proc/" + std::to_string(forkserver) + "/oom_score_adj") << 500;
}

Cluster& cluster_of(const std::shared_ptr<multihull::detail::CallRunner>& runner) {
    return static_cast<Cluster&>(*runner);
}

}    // namespace

Session::Session(int argc, char** argv, SessionOptions options) {
    if (was_started.exchange(true))
        throw Error("there is, or was, an MPI session: MPI can be started once in a program, so keep the first one");
    // The forkserver, which all workers are copies of, knows nothing of MPI.
    init(argc, argv);
    // A launcher that asks a rank to end signals its whole process group. What that means is the program's to say, which then ends its
    // workers, or has them finish.
    if (const auto forkserver = multihull::detail::Zygote::forkserver()) {
        ::setpgid(forkserver->pid(), 0);
        offer_to_oom_killer(forkserver->pid());
    }
    own_world = new World(arrive(), options, argv);
    register_parallel_backend("mpi", [] { return std::make_unique<Backend>(); });
}

Session::~Session() {
    if (!own_world->ours()) return;
    own_world->end_shared_cluster();
    delete std::exchange(own_world, nullptr);
}

std::size_t Session::size() const noexcept { return own_world->size(); }

const std::string& Session::host(std::size_t rank) const { return own_world->meeting().hosts.at(rank); }

Traffic Session::traffic() const noexcept { return own_world->traffic(); }

PoolExecutor::PoolExecutor(std::size_t max_workers)
    : runner_(World::current().make_cluster({}, multihull::detail::checked_workers(max_workers))) {}

PoolExecutor::PoolExecutor(PoolOptions options) : runner_(World::current().make_cluster(std::move(options), 0)) {}

PoolExecutor::~PoolExecutor() {
    if (!cluster_of(runner_).ours()) return;
    try {
        shutdown();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("while an executor ended: ") + error.what());
    }
}

void PoolExecutor::shutdown(bool wait, bool cancel_futures) {
    cluster_of(runner_).close(cancel_futures);
    if (wait) cluster_of(runner_).join();
}

void PoolExecutor::terminate_workers() { cluster_of(runner_).terminate(false); }

void PoolExecutor::kill_workers() { cluster_of(runner_).terminate(true); }

std::size_t PoolExecutor::max_workers() const noexcept { return runner_->workers(); }

}    // namespace multihull::mpi
