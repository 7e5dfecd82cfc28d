// Runs jobs on a pool of worker processes and tells how each ended. Whatever happens to a worker, a run ends.
//
// The main thread submits and collects; at most a few tasks for each worker are under way, so that memory does not grow with
// the number of files, and an interrupt has little to throw away.
#pragma once

#include "contact_sheet.hpp"
#include "image_job.hpp"

#include <multihull/pool.hpp>

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace app {

/// How a run ended.
struct RunResult {
    int signal = 0;                           ///< The signal that interrupted it; 0 where none did.
    std::string stopped;                      ///< Why it was stopped early, a whole sentence; empty where it was not.
    std::size_t workers = 0;                  ///< How many there were.
    double seconds = 0;                       ///< From the start of the pool to its last result.
    std::optional<multihull::Trace> trace;    ///< Where the pool kept one.
};

/// Told of each job when it is over: its index, and why it failed or an empty string. Returns a sentence to stop the run.
using JobEnded = std::function<std::string(std::size_t index, const std::string& failure)>;

/// Called about ten times a second, and after each job.
using Tick = std::function<void()>;

/// The worker pool's options with what every run needs filled in: libvips started, at most one worker a job.
multihull::PoolOptions worker_options(multihull::PoolOptions options, std::size_t job_count);

RunResult run_thumbnails(const std::vector<ThumbnailJob>& jobs, const multihull::PoolOptions& options,
                         const JobEnded& ended, const Tick& tick);
/// The same on all ranks of an MPI run, whose session there must be; `options.processes` is of each rank, 0: its share of the processors.
RunResult run_thumbnails_on_ranks(const std::vector<ThumbnailJob>& jobs, const multihull::PoolOptions& options,
                                  const JobEnded& ended, const Tick& tick);
RunResult run_contact_sheet(const SheetJob& job, const JobEnded& ended);

}    // namespace app
