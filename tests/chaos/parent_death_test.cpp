// The program killed with its workers busy, and Ctrl-C: everything that it started is gone at once, and nothing stays on disk.
//
// The victim is this program run again, marked in its environment, so that whatever it starts can be found.
#include "chaos/chaos.hpp"

#include <multihull/process.hpp>

#include <cstring>
#include <fcntl.h>
#include <set>
#include <sys/wait.h>

namespace chaos {
namespace {

constexpr const char* kMark = "MULTIHULL_CHAOS_VICTIM";
constexpr const char* kMethod = "MULTIHULL_CHAOS_METHOD";
constexpr int kReadyFd = 3;    // where the victim says that it is busy

int hang_on(int) {
    for (;;) ::pause();
}
int burn(int) {
    for (std::atomic<unsigned> i{0};;) ++i;
}
// A task that waits for programs it started: some below a shell, one that has let go of its parent.
int start_others(int) { return std::system("(sleep 3600 & sleep 3600 & sleep 3600); true"); }
int start_stray(int) { return std::system("(setsid sleep 3600 >/dev/null 2>&1 &) ; sleep 3600; true"); }
int write_much(int) {
    for (;;) std::fprintf(stderr, "%s", "");
}

mh::StartMethod method_of(const std::string& name) {
    if (name == "fork") return mh::StartMethod::fork;
    return name == "spawn" ? mh::StartMethod::spawn : mh::StartMethod::forkserver;
}

// Runs in the victim only.
TEST(Victim, DISABLED_WorksUntilItIsKilled) {
    const char* const method = std::getenv(kMethod);
    ASSERT_NE(method, nullptr);
    mh::set_start_method(method_of(method));
    mh::Pool pool({.processes = 6});
    mh::Pool idle({.processes = 2});
    idle.apply(ping, 1);
    mh::Process process(hang_on, 1);
    process.start();
    std::vector<mh::Future<int>> futures;
    for (const auto task : {hang_on, burn, start_others, start_stray, write_much}) {
        futures.push_back(pool.apply_async(task, 1));
    }
    // All five run when the sixth worker has nothing left to take before this one.
    pool.apply(ping, 1);
    std::this_thread::sleep_for(50ms);
    [[maybe_unused]] const auto written = ::write(kReadyFd, "!", 1);
    const auto many = pool.map_async(ping, std::views::iota(0, 1'000'000'000));
    many.wait();
}

std::string environment_of(const std::filesystem::path& folder) {
    std::ifstream file(folder / "environ", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

std::vector<pid_t> marked(const std::string& mark) {
    const std::string entry = std::string(kMark) + "=" + mark;
    return processes([&](pid_t, const std::filesystem::path& folder) {
        const std::string environment = environment_of(folder);
        return environment.find(entry + '\0') != std::string::npos;
    });
}

std::set<std::string> files_of_ours() {
    std::set<std::string> found;
    for (const char* folder : {"/dev/shm", "/tmp"}) {
        std::error_code error;
        for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
            const std::string name = entry.path().filename();
            if (std::string(folder) == "/dev/shm" || name.find("multihull") != std::string::npos) {
                found.insert(entry.path());
            }
        }
    }
    return found;
}

class ParentDeath : public ::testing::TestWithParam<mh::StartMethod> {
protected:
    // Starts a victim in a process group of its own, and waits until its tasks run.
    pid_t start_victim(const std::string& mark) {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
        std::vector<std::string> environment{std::string(kMark) + "=" + mark,
                                             std::string(kMethod) + "=" + name_of(GetParam())};
        for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::setpgid(0, 0);
            ::dup2(ends[1], kReadyFd);
            const int null = ::open("/dev/null", O_WRONLY);
            ::dup2(null, STDOUT_FILENO);
            std::vector<char*> pointers;
            for (auto& entry : environment) pointers.push_back(entry.data());
            pointers.push_back(nullptr);
            char program[] = "/proc/self/exe";
            char filter[] = "--gtest_filter=Victim.*";
            char disabled[] = "--gtest_also_run_disabled_tests";
            char* arguments[] = {program, filter, disabled, nullptr};
            ::execve(program, arguments, pointers.data());
            ::_exit(127);
        }
        ::close(ends[1]);
        char byte = 0;
        EXPECT_EQ(::read(ends[0], &byte, 1), 1) << "the victim did not come to work";
        ::close(ends[0]);
        // Its tasks' own programs are on their way.
        eventually([&] { return marked(mark).size() >= 14; }, 20s);
        return pid;
    }

    void expect_all_gone(const std::string& mark, std::chrono::steady_clock::time_point since) {
        std::vector<pid_t> left;
        const bool gone = eventually([&] { return (left = marked(mark)).empty(); }, 20s);
        const auto took =
            std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - since);
        RecordProperty("milliseconds", static_cast<int>(took.count()));
        EXPECT_TRUE(gone);
        for (const pid_t pid : left) {
            ADD_FAILURE() << "still there: " << pid << " " << first_line("/proc/" + std::to_string(pid) + "/comm")
                          << ", child of " << parent_of(pid);
            ::kill(pid, SIGKILL);
        }
    }
};

TEST_P(ParentDeath, KilledProgramTakesEverythingAlong) {
    const auto files = files_of_ours();
    for (int round = 0; round < rounds(2); ++round) {
        const std::string mark = std::to_string(::getpid()) + "-k" + std::to_string(round);
        const pid_t victim = start_victim(mark);
        const auto now = std::chrono::steady_clock::now();
        ASSERT_EQ(::kill(victim, SIGKILL), 0);
        int status = 0;
        ASSERT_EQ(::waitpid(victim, &status, 0), victim);
        expect_all_gone(mark, now);
    }
    EXPECT_EQ(files_of_ours(), files);
}

TEST_P(ParentDeath, OneInterruptEndsAll) {
    const std::string mark = std::to_string(::getpid()) + "-i";
    const pid_t victim = start_victim(mark);
    const auto now = std::chrono::steady_clock::now();
    ASSERT_EQ(::kill(-victim, SIGINT), 0);
    int status = 0;
    if (!eventually([&] { return ::waitpid(victim, &status, WNOHANG) == victim; })) {
        ::kill(victim, SIGKILL);
        ::waitpid(victim, &status, 0);
        ADD_FAILURE() << "the program outlived its Ctrl-C";
    }
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
    expect_all_gone(mark, now);
}

INSTANTIATE_TEST_SUITE_P(By, ParentDeath,
                         ::testing::Values(mh::StartMethod::fork, mh::StartMethod::forkserver, mh::StartMethod::spawn),
                         [](const auto& param) { return name_of(param.param); });

// What a worker's task has started ends with the worker, to the last grandchild.
TEST(Orphans, EndWithTheirWorker) {
    const auto strays = [] {
        return processes([](pid_t, const std::filesystem::path& folder) {
                   return environment_of(folder).find(std::string(kMark) + "=orphans" + '\0') != std::string::npos;
               })
            .size();
    };
    mh::Pool pool({.processes = 1});
    const auto future = pool.apply_async(
        [](int) { return std::system("env MULTIHULL_CHAOS_VICTIM=orphans sh -c '(sleep 3600; true); true'"); }, 1);
    ASSERT_TRUE(eventually([&] { return strays() >= 2; }));
    EXPECT_TRUE(future.cancel());
    ended(future, "a cancelled task with children");
    EXPECT_TRUE(eventually([&] { return strays() == 0; }, 20s));
}

}    // namespace
}    // namespace chaos
