// A fair share of the processors for what runs inside of workers: pools in pools, and the threads of OpenMP and BLAS libraries.
//
// What is said here is for the whole process and its children, through the environment; a thread may have a share of its own.
#pragma once

#include "os/process.hpp"

#include <cstddef>

namespace multihull::detail {

/// How many processors the pools made by this thread may count on: those that this process may use, or its share of them. `usable` is
/// os::usable_cpus(), which costs a dozen system calls, where the caller has it already.
std::size_t processors_to_share(std::size_t usable = os::usable_cpus()) noexcept;

/// The share of one of `workers` that are made now.
std::size_t inner_share(std::size_t workers, std::size_t usable = os::usable_cpus()) noexcept;

/// In a worker, while it has one thread: pools inside of it count on `processors`, libraries with threads of their own are told to use
/// `threads` of them (0: they are left alone), except those that the user has set by the environment.
void set_inner_limits(std::size_t processors, std::size_t threads) noexcept;

/// The same for this thread of a program, as far as it can be said of a thread.
void set_inner_limits_of_thread(std::size_t processors) noexcept;

}    // namespace multihull::detail
