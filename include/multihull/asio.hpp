// Multihull in an event loop: what takes time as asynchronous operations with completion tokens. See docs/asio.md.
//
// Needs the CMake target Multihull::asio.
#pragma once

#include <multihull/asio/connect.hpp>
#include <multihull/asio/connection.hpp>
#include <multihull/asio/future.hpp>
#include <multihull/asio/listener.hpp>
#include <multihull/asio/net.hpp>
#include <multihull/asio/pool.hpp>
#include <multihull/asio/process.hpp>
#include <multihull/asio/queue.hpp>
#include <multihull/asio/submit.hpp>
