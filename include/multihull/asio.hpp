// Multihull in an event loop: what takes time as asynchronous operations with completion tokens. See docs/asio.md.
//
// Needs the CMake target Multihull::asio.
#pragma once

#include <multihull/asio/future.hpp>
#include <multihull/asio/net.hpp>
#include <multihull/asio/pool.hpp>
#include <multihull/asio/submit.hpp>
