// Start and join of one process, from a small parent and from one with a gigabyte of memory in use.
#include "bare_process.hpp"
#include "harness.hpp"

#include <multihull/process.hpp>

#include <sys/mman.h>

#include <vector>

namespace bench {

namespace {

constexpr std::size_t kGigabyte = std::size_t{1} << 30;
constexpr std::size_t kPage = 4096;

void leave_at_once() {}

// In pages of the usual size, whatever the machine's settings are: fork() pays for each of them.
void use_a_gigabyte() {
    void* const memory = ::mmap(nullptr, kGigabyte, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(memory != MAP_FAILED, "mmap() of a gigabyte failed");
    ::madvise(memory, kGigabyte, MADV_NOHUGEPAGE);
    for (std::size_t i = 0; i < kGigabyte; i += kPage) static_cast<volatile char*>(memory)[i] = 1;
}

std::vector<Competitor> lives(multihull::StartMethod method, void (*bare)()) {
    return {
        {std::string(kMultihull),
         [method] {
             return median_of(10, [&] {
                 multihull::Process process({.start_method = method}, leave_at_once);
                 process.start();
                 process.join();
                 require(process.exitcode() == 0, "a process");
             });
         }},
        {std::string(kBare), [bare] { return median_of(10, bare); }},
    };
}

}    // namespace

std::vector<Competitor> prepare_process_fork(const Settings&) {
    return lives(multihull::StartMethod::fork, &fork_and_wait);
}
std::vector<Competitor> prepare_process_forkserver(const Settings&) {
    return lives(multihull::StartMethod::forkserver, &fork_and_wait);
}
std::vector<Competitor> prepare_process_spawn(const Settings&) {
    return lives(multihull::StartMethod::spawn, &spawn_and_wait);
}
std::vector<Competitor> prepare_process_fork_big(const Settings& settings) {
    use_a_gigabyte();
    return prepare_process_fork(settings);
}
std::vector<Competitor> prepare_process_forkserver_big(const Settings& settings) {
    use_a_gigabyte();
    return prepare_process_forkserver(settings);
}
std::vector<Competitor> prepare_process_spawn_big(const Settings& settings) {
    use_a_gigabyte();
    return prepare_process_spawn(settings);
}

}    // namespace bench
