// What the system itself charges: processes made by bare calls, without a library.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

namespace bench {

/// fork() of a child that leaves at once, and waitpid() for it.
void fork_and_wait();
/// posix_spawn() of this program, which leaves at once, and waitpid() for it.
void spawn_and_wait();
/// The argument with which spawn_and_wait() starts this program.
inline constexpr const char* kLeaveAtOnce = "--leave-at-once";

/// Forks `count` children that leave at once, then waits for all of them.
void fork_and_wait(int count);

/// A forked child that adds one to what it is sent, over two words of shared memory: the least that a round trip can cost.
class BareEcho {
public:
    /// `awake`: both sides look at their word until it changes; else they sleep on a futex.
    explicit BareEcho(bool awake);
    BareEcho(const BareEcho&) = delete;
    BareEcho& operator=(const BareEcho&) = delete;
    ~BareEcho();

    std::uint32_t add_one(std::uint32_t value);

private:
    struct Words {
        alignas(64) std::atomic<std::uint32_t> request;
        alignas(64) std::atomic<std::uint32_t> answer;
    };
    void wait_change(std::atomic<std::uint32_t>& word, std::uint32_t before) const;
    void put(std::atomic<std::uint32_t>& word, std::uint32_t value) const;

    bool awake_;
    Words* words_;
    pid_t child_;
};

/// A child that dies of a signal, and then one that answers: from the first fork until the answer is here.
void crash_and_start_anew();

}    // namespace bench
