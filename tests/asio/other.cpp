// The same operations with the other Asio.
#include "asio/loop.hpp"

#include <multihull/pool.hpp>

namespace {

namespace mh = multihull::asio;
namespace net = multihull::asio::net;

int square(int x) { return x * x; }
int crash(int) { return *static_cast<volatile int*>(nullptr); }

TEST(OtherAsio, awaits_calls_back_and_keeps_promises) {
    net::io_context io;
    mh::Pool pool(io, 1);
    test::run(io, [&]() -> net::awaitable<void> {
        EXPECT_EQ(co_await pool.async_submit(square, 7, net::use_awaitable), 49);
        EXPECT_THROW(co_await pool.async_submit(crash, 7, net::use_awaitable), multihull::WorkerCrashed);
    });
    EXPECT_EQ(pool.async_submit(square, 8, net::use_future).get(), 64);
    test::Board board;
    test::Kept<int> kept;
    net::cancellation_signal stop;
    pool.async_submit(test::hold, board.path(), 1, net::bind_cancellation_slot(stop.slot(), kept.callback()));
    ASSERT_TRUE(board.wait_until_at_least(test::kHeld, 1));
    stop.emit(net::cancellation_type::terminal);
    io.restart();
    io.run();
    EXPECT_TRUE(test::is<multihull::Cancelled>(kept.error));
}

}    // namespace
