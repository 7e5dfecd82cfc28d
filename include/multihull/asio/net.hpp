// Which Asio: standalone Asio, or Boost's, as the component Multihull::asio was configured (MULTIHULL_ASIO).
#pragma once

#if defined(MULTIHULL_ASIO_BOOST)
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/system_executor.hpp>
#else
#include <asio/any_io_executor.hpp>
#include <asio/associated_allocator.hpp>
#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/execution_context.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <asio/system_executor.hpp>
#endif

namespace multihull::asio {

/// The Asio that this component was configured for: `::asio` or `boost::asio`. (Within namespace multihull the plain name `asio` means
/// this library's own.)
#if defined(MULTIHULL_ASIO_BOOST)
namespace net = ::boost::asio;
using ErrorCode = ::boost::system::error_code;
#else
namespace net = ::asio;
using ErrorCode = ::std::error_code;
#endif

}    // namespace multihull::asio
