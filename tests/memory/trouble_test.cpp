// A cache that is damaged, full, read-only or on a strange file system: calls return what they should, and the log says it once.
#include "memory/folders.hpp"
#include "os/fault.hpp"

#include <multihull/memory.hpp>
#include <multihull/queue.hpp>

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <sys/stat.h>
#include <vector>

namespace {

namespace fs = std::filesystem;
namespace mh = multihull;
namespace os = multihull::os;

int calls = 0;

std::vector<std::string> split(const std::string& text) {
    ++calls;
    std::vector<std::string> words(1);
    for (const char c : text) {
        if (c == ' ') {
            words.emplace_back();
        } else {
            words.back() += c;
        }
    }
    return words;
}

class TroubleTest : public ::testing::Test {
protected:
    void SetUp() override { calls = 0; }
    void TearDown() override {
#ifdef MULTIHULL_FAILPOINTS
        os::clear_failures();
#endif
    }
    void expect_calls(int expected) { EXPECT_EQ(std::exchange(calls, 0), expected); }

    const std::vector<std::string> words{"a", "b", "c"};
    test::Folder folder;
    std::string path = folder.path() + "/cache";
    test::Log log;
};

TEST_F(TroubleTest, ComputesDamagedResultsAgain) {
    for (const auto compress : {mh::Compression{}, mh::zstd()}) {
        for (const std::size_t from : {std::size_t{1}, std::size_t{1} << 30}) {
            const mh::Memory memory(path, {.compress = compress, .map_from = from});
            memory.clear();
            const auto cached = memory.cache("split", split);
            cached("a b c");
            expect_calls(1);
            const auto file = test::newest_entry(path);
            const std::string good = test::read_file(file);
            const auto expect_again = [&](std::size_t at) {
                EXPECT_EQ(cached("a b c"), words) << at;
                EXPECT_EQ(cached("a b c"), words) << at;
                expect_calls(1);
                const auto lines = log.take();
                ASSERT_EQ(lines.size(), 1U) << at;
                EXPECT_NE(lines[0].find(file.string() + " can't be used ("), std::string::npos) << lines[0];
            };
            for (std::size_t i = 0; i < good.size(); ++i) {
                std::string bad = good;
                bad[i] = static_cast<char>(bad[i] ^ (1 << i % 8));
                test::write_file(file, bad);
                expect_again(i);
                if (i % 8 != 0) continue;
                test::write_file(file, good.substr(0, i));
                expect_again(i);
            }
            test::write_file(file, "");
            auto shelved = cached.call_and_shelve("a b c");
            expect_calls(1);
            log.take();
            test::write_file(file, "");
            EXPECT_FALSE(cached.check_call_in_cache("a b c"));
            EXPECT_TRUE(log.take().empty());
            EXPECT_THROW(shelved.get(), mh::Error);
            EXPECT_EQ(log.take().size(), 1U);
        }
    }
}

TEST_F(TroubleTest, DoesNotTakeTheResultOfOtherArguments) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("split", split);
    cached("a b");
    const auto other = test::newest_entry(path);
    cached("a b c");
    const auto file = test::newest_entry(path);
    ASSERT_NE(file, other);
    fs::copy_file(other, file, fs::copy_options::overwrite_existing);
    EXPECT_EQ(cached("a b c"), words);
    expect_calls(3);
    EXPECT_EQ(log.take().size(), 1U);
}

TEST_F(TroubleTest, IsNotMadeToWaitByWhatIsNoFile) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("split", split);
    cached("a b c");
    const auto file = test::newest_entry(path);
    fs::remove(file);
    ASSERT_EQ(::mkfifo(file.c_str(), 0666), 0);
    EXPECT_EQ(cached("a b c"), words);
    EXPECT_EQ(cached("a b c"), words);
    expect_calls(2);
    // A symbolic link is replaced, not followed.
    fs::remove(file);
    fs::create_symlink(folder.path() + "/target", file);
    test::write_file(folder.path() + "/target", "mine");
    EXPECT_EQ(cached("a b c"), words);
    EXPECT_EQ(cached("a b c"), words);
    expect_calls(1);
    EXPECT_EQ(test::read_file(folder.path() + "/target"), "mine");
}

TEST_F(TroubleTest, KeepsNoHandles) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("queue", [](int) { return mh::Queue<int>(); });
    cached(1);
    cached(1);
    const auto lines = log.take();
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_NE(lines[0].find("handle of a shared object"), std::string::npos) << lines[0];
}

TEST_F(TroubleTest, WorksWhereNothingCanBeWritten) {
    // Neither root nor anybody else can make a folder in /proc.
    const mh::Memory memory("/proc/multihull-cache");
    const auto cached = memory.cache("split", split);
    EXPECT_EQ(cached("a b c"), words);
    EXPECT_EQ(cached("a b c"), words);
    EXPECT_EQ(cached.call_and_shelve("a b c").get(), words);
    EXPECT_FALSE(cached.check_call_in_cache("a b c"));
    expect_calls(3);
    const auto lines = log.take();
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_NE(lines[0].find("results can't be kept in /proc/multihull-cache ("), std::string::npos) << lines[0];
    memory.clear();
}

#ifdef MULTIHULL_FAILPOINTS

TEST_F(TroubleTest, WorksOnAFullDisk) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("split", split);
    for (const auto call : {os::Call::write_file, os::Call::name_file}) {
        for (const std::uint32_t nth : {1U, 2U}) {
            if (call == os::Call::name_file && nth == 2) continue;
            os::fail_call(call, ENOSPC, nth);
            EXPECT_EQ(cached("a b c"), words);
            os::clear_failures();
            EXPECT_FALSE(cached.check_call_in_cache("a b c"));
            expect_calls(1);
            EXPECT_TRUE(test::leftovers_in(path).empty());
        }
    }
    const auto lines = log.take();
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_NE(lines[0].find("No space left"), std::string::npos) << lines[0];
    EXPECT_EQ(cached("a b c"), words);
    EXPECT_TRUE(cached.check_call_in_cache("a b c"));
    // What can't be replaced stays.
    os::fail_call(os::Call::write_file, ENOSPC);
    EXPECT_EQ(cached.call("a b c"), words);
    os::clear_failures();
    EXPECT_TRUE(cached.check_call_in_cache("a b c"));
}

TEST_F(TroubleTest, WorksWithoutNamelessFiles) {
    const mh::Memory memory(path);
    const auto cached = memory.cache("split", split);
    for (int i = 0; i < 3; ++i) {
        os::fail_call(os::Call::open_nameless, EOPNOTSUPP);
        EXPECT_EQ(cached.call("a b c"), words);
        EXPECT_EQ(cached("a b c"), words);
        expect_calls(1);
        EXPECT_TRUE(test::leftovers_in(path).empty());
    }
    os::fail_call(os::Call::open_nameless, EOPNOTSUPP);
    os::fail_call(os::Call::write_file, ENOSPC);
    EXPECT_EQ(cached.call("a b c"), words);
    os::clear_failures();
    EXPECT_TRUE(cached.check_call_in_cache("a b c"));
    EXPECT_TRUE(test::leftovers_in(path).empty());
    // What a dead writer has left is swept by the next one of that result, and by clear().
    const auto entry = test::newest_entry(path);
    const auto stale = entry.parent_path() / ("." + entry.filename().string() + ".new0");
    test::write_file(stale, "half");
    os::fail_call(os::Call::open_nameless, EOPNOTSUPP);
    cached.call("a b c");
    EXPECT_TRUE(test::leftovers_in(path).empty());
    for (const bool reduce : {false, true}) {
        cached("a b c");
        test::write_file(stale, "half");
        reduce ? static_cast<void>(memory.reduce_size({})) : memory.clear();
        EXPECT_TRUE(test::leftovers_in(path).empty());
    }
}

TEST_F(TroubleTest, WorksWithoutLocks) {
    os::fail_call(os::Call::lock_file, ENOLCK);
    const mh::Memory memory(path);
    const auto cached = memory.cache("split", split);
    EXPECT_EQ(cached("a b c"), words);
    os::fail_call(os::Call::lock_file, EDEADLK);
    EXPECT_EQ(cached("a b"), (std::vector<std::string>{"a", "b"}));
    EXPECT_TRUE(log.take().empty());
}

#endif

}    // namespace
