// Whole runs of mpiexec that something happens to: a rank is killed, the run is asked to end, a rank has another build.
#include "os/fault.hpp"
#include "support/board.hpp"
#include "support/folder.hpp"
#include "support/sanitizer.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

/// A run of mpiexec with these arguments. What MPI writes lies in a folder of its own, as a killed rank leaves its part behind.
class Launch {
public:
    explicit Launch(std::vector<std::string> arguments)
        : mark_("MULTIHULL_MPI_TEST=" + std::to_string(::getpid()) + "-" + std::to_string(++count)) {
        arguments.insert(arguments.begin(), MPIEXEC);
        pid_ = ::fork();
        if (pid_ != 0) return;
        ::dup2(::open((folder_ / "out").c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
        ::dup2(STDOUT_FILENO, STDERR_FILENO);
        std::vector<char*> argv;
        for (std::string& argument : arguments) argv.push_back(argument.data());
        argv.push_back(nullptr);
        ::putenv(mark_.data());
        ::setenv("TMPDIR", folder_.path().c_str(), 1);
        ::setenv("OMPI_MCA_btl_vader_backing_directory", folder_.path().c_str(), 1);
        ::execv(argv[0], argv.data());
        ::_exit(127);
    }
    Launch(const Launch&) = delete;
    Launch& operator=(const Launch&) = delete;
    ~Launch() {
        if (pid_ > 0) end();
        EXPECT_TRUE(all_gone());
    }

    void signal(int number) const { ::kill(pid_, number); }
    std::string output() const { return read_file(folder_ / "out"); }
    bool prints(const std::string& text) const {
        return test::eventually([&] { return output().find(text) != std::string::npos; });
    }
    /// As a shell has it; -1 when it does not end.
    int wait() {
        int status = 0;
        const bool ended = test::eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; });
        if (!ended) {
            end();
            return -1;
        }
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

private:
    void end() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }
    /// Whether everything that it started is gone.
    bool all_gone() const {
        return test::eventually([&] {
            for (const auto& entry : fs::directory_iterator("/proc")) {
                if (read_file(entry.path() / "environ").find(mark_) != std::string::npos) return false;
            }
            return true;
        });
    }

    static inline int count = 0;
    test::Folder folder_;
    std::string mark_;
    pid_t pid_ = -1;
};

TEST(Trouble, one_rank_needs_no_launcher) {
    const std::string command = std::string(PROGRAM) + " --victim alone";
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    int answer = 0;
    EXPECT_EQ(std::fscanf(pipe, "%d", &answer), 1);
    EXPECT_EQ(::pclose(pipe), 0);
    EXPECT_EQ(answer, 42);
}

bool is_open_mpi() {
    std::FILE* const pipe = ::popen(MPIEXEC " --version", "r");
    char line[256] = {};
    const bool read = pipe != nullptr && std::fgets(line, sizeof line, pipe) != nullptr;
    if (pipe != nullptr) ::pclose(pipe);
    return read && std::string(line).find("Open") != std::string::npos;
}

TEST(Trouble, a_lost_rank_ends_the_run_with_a_sentence) {
    Launch run({"-n", "3", PROGRAM, "--victim", "lose"});
    EXPECT_GT(run.wait(), 0);
    // MPICH's launcher ends the others before rank 0 can say it, and has a sentence of its own.
    const std::string sentence = is_open_mpi() ? "was lost" : "BAD TERMINATION";
    EXPECT_NE(run.output().find(sentence), std::string::npos) << run.output();
}

TEST(Trouble, what_other_ranks_are_at_ends_where_a_lost_rank_breaks_all) {
    if (!is_open_mpi()) GTEST_SKIP() << "only Open MPI's launcher lets the others live";
    Launch run({"--enable-recovery", "-n", "3", PROGRAM, "--victim", "lose-one"});
    EXPECT_GE(run.wait(), 0);
    EXPECT_NE(run.output().find("lost: 2, the other worker has ended"), std::string::npos) << run.output();
}

TEST(Trouble, a_lost_ranks_tasks_are_done_by_others_where_the_launcher_lets_them) {
    if (!is_open_mpi()) GTEST_SKIP() << "only Open MPI's launcher has the option";
    for (const auto& [how, right] : {std::pair("redo", "right: 40"),
                                     {"redo-here", "right: 40"},
                                     {"redo-one", "right: 40"},
                                     {"redo-flood", "right: 400"}}) {
        Launch run({"--enable-recovery", "-n", "3", PROGRAM, "--victim", how});
        EXPECT_GE(run.wait(), 0);
        EXPECT_NE(run.output().find(right), std::string::npos) << how << ": " << run.output();
    }
}

/// Places on the way of a value at which a rank is killed that was to hand it on.
std::vector<std::string> ways_to_die() {
    std::vector<std::string> ways{"signal"};
    if (multihull::os::kFailpoints) ways.insert(ways.end(), {"announced", "received", "forwarded"});
    return ways;
}

TEST(Trouble, a_value_reaches_all_ranks_where_one_is_lost_that_hands_it_on) {
    if (!is_open_mpi()) GTEST_SKIP() << "only Open MPI's launcher lets the others live";
    for (const std::string& way : ways_to_die()) {
        Launch run({"--enable-recovery", "-n", "9", PROGRAM, "--victim", "redo-values", way});
        EXPECT_GE(run.wait(), 0) << way << run.output();
        EXPECT_NE(run.output().find("ended: 3, all have them"), std::string::npos) << way << run.output();
    }
}

TEST(Trouble, a_rank_that_dies_at_a_bell_keeps_nobody_asleep) {
    if (!is_open_mpi()) GTEST_SKIP() << "only Open MPI's launcher lets the others live";
    if (!multihull::os::kFailpoints) GTEST_SKIP() << "this build has no kill points";
    for (const char* const where : {"awaited", "silenced"}) {
        Launch run({"--enable-recovery", "-n", "4", PROGRAM, "--victim", "redo-bells", where});
        EXPECT_GE(run.wait(), 0) << where << run.output();
        EXPECT_NE(run.output().find("lost, wrong: 0"), std::string::npos) << where << run.output();
    }
}

TEST(Trouble, nobody_waits_for_a_value_where_a_lost_rank_breaks_all) {
    for (const std::string& way : ways_to_die()) {
        std::vector<std::string> arguments{"-n", "9", PROGRAM, "--victim", "lose-values", way};
        if (is_open_mpi()) arguments.insert(arguments.begin(), "--enable-recovery");
        Launch run(std::move(arguments));
        EXPECT_GE(run.wait(), 0) << way << run.output();
        if (!is_open_mpi()) continue;
        EXPECT_NE(run.output().find("ended: 1, broken"), std::string::npos) << way << run.output();
    }
}

TEST(Trouble, a_rank_without_memory_refuses_what_needs_it) {
    if (test::kAsan) GTEST_SKIP() << "the address sanitizer needs memory to say that there is none";
    Launch run({"-n", "2", PROGRAM, "--victim", "starve"});
    EXPECT_GE(run.wait(), 0) << run.output();
    const bool told = run.output().find("settled: ") != std::string::npos;
    EXPECT_TRUE(told || run.output().find("was lost") != std::string::npos) << run.output();
    EXPECT_EQ(run.output().find("0 of 5 maps refused"), std::string::npos) << run.output();
}

/// A control group of 256 MiB of memory; empty where this machine does not let one be made.
class MemoryGroup {
public:
    MemoryGroup() {
        for (const auto& [parent, limit] : {std::pair("/sys/fs/cgroup/memory/", "memory.limit_in_bytes"),
                                            std::pair("/sys/fs/cgroup/", "memory.max")}) {
            const fs::path path = parent + ("multihull-test-" + std::to_string(::getpid()));
            std::error_code error;
            if (!fs::create_directory(path, error)) continue;
            path_ = path;
            if (std::ofstream(path / limit) << (256 << 20) << std::flush) return;
            remove();
        }
    }
    MemoryGroup(const MemoryGroup&) = delete;
    MemoryGroup& operator=(const MemoryGroup&) = delete;
    ~MemoryGroup() {
        if (path_.empty()) return;
        EXPECT_TRUE(test::eventually([&] { return ::rmdir(path_.c_str()) == 0; }));
    }

    const fs::path& path() const noexcept { return path_; }

private:
    void remove() {
        ::rmdir(path_.c_str());
        path_.clear();
    }

    fs::path path_;
};

TEST(Trouble, a_worker_is_killed_before_its_rank_where_memory_runs_out) {
    const MemoryGroup group;
    if (group.path().empty()) GTEST_SKIP() << "this machine lets nobody make a control group";
    Launch run({"-n", "2", PROGRAM, "--victim", "crowd", group.path()});
    EXPECT_EQ(run.wait(), 0) << run.output();
    EXPECT_NE(run.output().find("right: 16, killed: 4"), std::string::npos) << run.output();
}

TEST(Trouble, ranks_can_be_spawned_where_no_launcher_started_them) {
    if (!is_open_mpi()) GTEST_SKIP() << "Debian's MPICH can't";
    Launch run({"-n", "1", PROGRAM, "--victim", "spawn"});
    EXPECT_EQ(run.wait(), 0) << run.output();
    EXPECT_NE(run.output().find("workers: 4"), std::string::npos) << run.output();
}

TEST(Trouble, another_build_is_refused) {
    Launch run({"-n", "1", PROGRAM, "--victim", "alone", ":", "-n", "1", OTHER_PROGRAM, "--victim", "alone"});
    EXPECT_GT(run.wait(), 0);
    EXPECT_NE(run.output().find("refused: rank 1 on "), std::string::npos) << run.output();
    EXPECT_NE(run.output().find("runs another build of this program"), std::string::npos) << run.output();
}

TEST(Trouble, a_refusal_is_said_however_late_rank_0_says_it) {
    const std::string word = "refused-late";
    Launch run({"-n", "1", PROGRAM, "--victim", word, ":", "-n", "1", OTHER_PROGRAM, "--victim", word});
    EXPECT_GT(run.wait(), 0);
    EXPECT_NE(run.output().find("runs another build of this program"), std::string::npos) << run.output();
}

/// The numbers behind a word in a text.
std::vector<pid_t> pids(const std::string& text, const std::string& word) {
    std::vector<pid_t> found;
    for (std::size_t place = 0; (place = text.find(word, place)) != std::string::npos;) {
        place += word.size();
        found.push_back(std::stoi(text.substr(place)));
    }
    return found;
}

TEST(Trouble, a_run_that_is_asked_to_end_keeps_its_results) {
    Launch run({"-n", "3", PROGRAM, "--victim", "end"});
    ASSERT_TRUE(run.prints("begun")) << run.output();
    // As launchers do, but for the SIGKILL that would follow.
    for (const pid_t rank : pids(run.output(), "rank ")) ::kill(-::getpgid(rank), SIGTERM);
    EXPECT_EQ(run.wait(), 0) << run.output();
    EXPECT_NE(run.output().find("kept in order: yes"), std::string::npos) << run.output();
}

TEST(Trouble, all_end_with_the_launcher_or_rank_0) {
    for (const int signal : {SIGINT, SIGTERM, SIGKILL, 0}) {
        Launch run({"-n", "3", PROGRAM, "--victim", "work"});
        ASSERT_TRUE(run.prints("begun ")) << run.output();
        if (signal != 0) {
            run.signal(signal);
        } else {
            ::kill(pids(run.output(), "begun ").front(), SIGKILL);
        }
        EXPECT_GT(run.wait(), 0) << run.output();
    }
}

}    // namespace
