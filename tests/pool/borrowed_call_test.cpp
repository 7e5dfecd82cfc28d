// A call whose bytes lie in another family's memory.
#include "pool/engine.hpp"
#include "shm/foreign_region.hpp"
#include "support/board.hpp"

#include <multihull/detail/submit.hpp>
#include <multihull/future.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace {

namespace shm = multihull::shm;
using multihull::detail::BorrowedBytes;
using multihull::detail::CallBuffer;
using multihull::detail::CallThunk;
using multihull::detail::Engine;
using multihull::detail::SharedBlock;
using test::Board;

int twice(int x) { return 2 * x; }
int hold(const std::string& path, int x) {
    Board board(path);
    ++board[0];
    board.wait_until_at_least(1, 1);
    return x;
}

TEST(BorrowedCallTest, is_run_and_while_it_runs_nothing_is_read_at_its_place_here) {
    using F = int (*)(const std::string&, int);
    using I = multihull::detail::InvocationOf<F, std::string, int>;
    Board board;
    const auto engine = std::make_shared<Engine>(multihull::PoolOptions{.processes = 1});
    engine->borrow_from(shm::address_of_own_region());    // its own, for want of another family
    engine->start();
    // Leaves its bytes in the place of a task.
    EXPECT_EQ(multihull::detail::submit_function(engine, nullptr, &twice, 4).get(), 8);

    CallBuffer bytes;
    multihull::detail::encode_callable(bytes.writer(), F{&hold});
    I::encode_arguments(bytes.writer(), board.path(), 17);
    const std::size_t size = bytes.writer().size();
    const SharedBlock block = SharedBlock::take(bytes);
    CallBuffer call(BorrowedBytes{shm::kForeign | block.offset(), size});
    const auto [completion, task] =
        submit_to(engine, multihull::detail::Registered<&CallThunk<F, I>::run, F>::token(), call, nullptr);
    const multihull::Future<int> future(completion, task, &multihull::detail::read_task<int>);

    ASSERT_TRUE(board.wait_until_at_least(0, 1));
    const auto held = engine->snapshot(0).held;
    ASSERT_EQ(held.size(), 1U);
    ASSERT_TRUE(held.front());
    EXPECT_EQ(held.front()->leading, 0U) << "which function it is, only the call's owner and the worker can tell";
    board[1] = 1;
    EXPECT_EQ(future.get(), 17);
    engine->close();
    engine->join();
}

}    // namespace
