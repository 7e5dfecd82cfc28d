// Executors and futures, as Python's concurrent.futures.
#pragma once

#include <multihull/as_completed.hpp>
#include <multihull/executor.hpp>
#include <multihull/future.hpp>
#include <multihull/process_pool_executor.hpp>
#include <multihull/return_when.hpp>
#include <multihull/serial_executor.hpp>
#include <multihull/thread_pool_executor.hpp>
