// Whole runs of mpiexec that something happens to: a rank is killed, the run is asked to end, a rank has another build.
#include "support/board.hpp"
#include "support/folder.hpp"

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

TEST(Trouble, a_lost_rank_ends_the_run_with_a_sentence) {
    Launch run({"-n", "3", PROGRAM, "--victim", "lose"});
    EXPECT_GT(run.wait(), 0);
    EXPECT_NE(run.output().find("was lost"), std::string::npos) << run.output();
}

TEST(Trouble, another_build_is_refused) {
    Launch run({"-n", "1", PROGRAM, "--victim", "alone", ":", "-n", "1", OTHER_PROGRAM, "--victim", "alone"});
    EXPECT_GT(run.wait(), 0);
    EXPECT_NE(run.output().find("refused: rank 1 on "), std::string::npos) << run.output();
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
