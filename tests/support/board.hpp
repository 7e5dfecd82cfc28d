// Numbers that a test and the tasks it starts share, whichever way their processes came to be: how a test sees that a task runs,
// and says when it may end.
//
// The memory is a memfd of the test's own process, which others open by its path in /proc: nothing is left behind.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

namespace test {

inline constexpr std::chrono::seconds kPatience{120};

/// Waits until the condition holds; false when it does not within two minutes.
template <class Condition>
bool eventually(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    for (auto pause = std::chrono::microseconds(20); !condition();) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(pause);
        if (pause < std::chrono::milliseconds(2)) pause *= 2;
    }
    return true;
}

class Board {
public:
    static constexpr std::size_t kCells = 4096;

    /// A new board, all zeros.
    Board() : fd_(::memfd_create("test board", MFD_CLOEXEC)) {
        if (fd_ < 0 || ::ftruncate(fd_, kSize) != 0) throw std::runtime_error("no memory for a test's board");
        path_ = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_);
        map();
    }
    /// The board of another process.
    explicit Board(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)), path_(path) {
        if (fd_ < 0) throw std::runtime_error("a test's board is gone");
        map();
    }
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;
    ~Board() {
        ::munmap(cells_, kSize);
        ::close(fd_);
    }

    const std::string& path() const noexcept { return path_; }
    std::atomic<std::int64_t>& operator[](std::size_t cell) noexcept { return cells_[cell]; }
    bool wait_until_at_least(std::size_t cell, std::int64_t value) {
        return eventually([&] { return cells_[cell].load() >= value; });
    }

private:
    static constexpr std::size_t kSize = kCells * sizeof(std::atomic<std::int64_t>);

    void map() {
        void* const memory = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
        if (memory == MAP_FAILED) throw std::runtime_error("a test's board can't be mapped");
        cells_ = static_cast<std::atomic<std::int64_t>*>(memory);
    }

    int fd_;
    std::string path_;
    std::atomic<std::int64_t>* cells_ = nullptr;
};

// Cells of hold().
inline constexpr std::size_t kHeld = 0;
inline constexpr std::size_t kLetGo = 1;

/// A task that says that it runs, and ends with `value` when the test lets go.
inline int hold(const std::string& path, int value) {
    Board board(path);
    ++board[kHeld];
    board.wait_until_at_least(kLetGo, 1);
    return value;
}

/// What a function throws, caught; what the test expects it to be is for the test to say.
template <class Expected, class Function>
Expected thrown_by(Function function) {
    try {
        function();
    } catch (const Expected& error) {
        return error;
    }
    throw std::logic_error("nothing was thrown");
}

}    // namespace test
