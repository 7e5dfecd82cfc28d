// Anonymous shared memory and waiting on it.
#include "os/memory.hpp"
#include "os/clock.hpp"
#include "os/futex.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

namespace os = multihull::os;

TEST(MemoryTest, a_memfd_is_shared_with_those_who_map_it) {
    const os::Fd fd = os::make_memfd("test", 8192);
    const os::Mapping first = os::map_shared(fd, 8192);
    const os::Mapping second = os::map_shared(fd, 8192);
    std::memset(first.data(), 7, 8192);
    EXPECT_EQ(std::memcmp(first.data(), second.data(), 8192), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        second.data()[5] = std::byte{9};
        ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    EXPECT_EQ(first.data()[5], std::byte{9});
}

TEST(MemoryTest, copies_past_caches_whatever_the_size_and_the_place) {
    std::vector<unsigned char> from(1000);
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<unsigned char>(i * 7 + 1);
    for (std::size_t size = 0; size < 300; ++size) {
        for (const std::size_t place : {0, 1, 8, 63, 64, 65}) {
            std::vector<unsigned char> to(500, 0);
            os::copy_past_caches(to.data() + place, from.data() + size % 13, size);
            for (std::size_t i = 0; i < to.size(); ++i) {
                const bool inside = i >= place && i < place + size;
                ASSERT_EQ(to[i], inside ? from[size % 13 + i - place] : 0) << size << " at " << place << ": " << i;
            }
        }
    }
}

TEST(MemoryTest, a_memfd_cannot_be_shrunk_under_its_users) {
    const os::Fd fd = os::make_memfd("test", 8192);
    EXPECT_NE(::ftruncate(fd.get(), 0), 0);
    EXPECT_NE(::ftruncate(fd.get(), 4096), 0);
    struct stat now {};
    ASSERT_EQ(::fstat(fd.get(), &now), 0);
    EXPECT_EQ(now.st_size, 8192);
    EXPECT_TRUE((::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST(MemoryTest, a_mapping_moves_and_unmaps_itself) {
    const os::Fd fd = os::make_memfd("test", 4096);
    os::Mapping first = os::map_shared(fd, 4096);
    std::byte* const place = first.data();
    os::Mapping second = std::move(first);
    EXPECT_FALSE(first);    // NOLINT: what a moved-from mapping is, is what is tested
    EXPECT_EQ(second.data(), place);
    second = os::map_shared(fd, 4096);
    second.reset();
    EXPECT_FALSE(second);
    EXPECT_EQ(second.data(), nullptr);
}

TEST(MemoryTest, a_hole_reads_as_zeros_and_takes_no_memory) {
    constexpr std::size_t kSize = std::size_t{4} << 20;
    const os::Fd fd = os::make_memfd("test", kSize);
    const os::Mapping mapping = os::map_shared(fd, kSize);
    os::populate(mapping.data(), kSize);
    std::memset(mapping.data(), 1, kSize);
    struct stat full {};
    ::fstat(fd.get(), &full);
    os::punch_hole(mapping.data() + 4096, kSize / 2);
    struct stat after {};
    ::fstat(fd.get(), &after);
    EXPECT_LT(after.st_blocks, full.st_blocks);
    EXPECT_EQ(mapping.data()[4095], std::byte{1});
    EXPECT_EQ(mapping.data()[4096], std::byte{0});
    EXPECT_EQ(mapping.data()[4096 + kSize / 2 - 1], std::byte{0});
    EXPECT_EQ(mapping.data()[4096 + kSize / 2], std::byte{1});
}

TEST(MemoryTest, cleared_pages_read_as_zeros_and_stay_where_they_were_there) {
    constexpr std::size_t kPage = 4096;
    const os::Fd fd = os::make_memfd("test", 8 * kPage);
    const os::Mapping mapping = os::map_shared(fd, 8 * kPage);
    for (const std::size_t page : {0U, 1U, 3U, 4U, 7U}) std::memset(mapping.data() + page * kPage, 1, kPage);
    struct stat before {};
    ::fstat(fd.get(), &before);
    os::clear_pages(mapping.data() + kPage, 6 * kPage);
    struct stat after {};
    ::fstat(fd.get(), &after);
    EXPECT_EQ(after.st_blocks, before.st_blocks);
    for (std::size_t at = 0; at < 8 * kPage; at += kPage / 2) {
        EXPECT_EQ(mapping.data()[at], std::byte{at < kPage || at >= 7 * kPage}) << at;
    }
}

TEST(FutexTest, does_not_sleep_when_the_word_has_changed) {
    const std::atomic<std::uint32_t> word{5};
    EXPECT_TRUE(os::futex_wait(word, 4, os::kNever));
}

TEST(FutexTest, gives_up_at_its_deadline) {
    const std::atomic<std::uint32_t> word{5};
    EXPECT_FALSE(os::futex_wait(word, 5, os::now_ns()));
    const std::int64_t deadline = os::now_ns() + 5'000'000;
    while (os::futex_wait(word, 5, deadline)) {}
    EXPECT_GE(os::now_ns(), deadline);
}

TEST(FutexTest, wakes_sleepers_across_processes) {
    const os::Fd fd = os::make_memfd("test", 4096);
    const os::Mapping mapping = os::map_shared(fd, 4096);
    auto& word = *new (mapping.data()) std::atomic<std::uint32_t>(0);
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
        children.push_back(::fork());
        if (children.back() == 0) {
            while (word.load() == 0) os::futex_wait(word, 0, os::kNever);
            ::_exit(3);
        }
    }
    word.store(1);
    os::futex_wake_all(word);
    for (const pid_t child : children) {
        int status = 0;
        ::waitpid(child, &status, 0);
        EXPECT_EQ(WEXITSTATUS(status), 3);
    }
    os::futex_wake(word, 1);
}

}    // namespace
