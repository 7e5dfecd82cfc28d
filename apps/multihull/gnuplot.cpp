#include "gnuplot.hpp"

#include "failure.hpp"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

namespace app {

namespace {

/// A file in memory, for one end of a program's standard streams.
class Stream {
public:
    Stream() : descriptor_(::memfd_create("gnuplot", MFD_CLOEXEC)) {
        if (descriptor_ < 0) {
            throw EnvironmentError(fmt::format("Cannot draw: {}.", std::generic_category().message(errno)));
        }
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { ::close(descriptor_); }

    int descriptor() const { return descriptor_; }

    void write(std::string_view text) const {
        while (!text.empty()) {
            const ssize_t n = ::write(descriptor_, text.data(), text.size());
            if (n < 0) {
                throw EnvironmentError(fmt::format("Cannot draw: {}.", std::generic_category().message(errno)));
            }
            text.remove_prefix(static_cast<std::size_t>(n));
        }
        ::lseek(descriptor_, 0, SEEK_SET);
    }

    std::string read() const {
        std::string content;
        std::array<char, 65536> buffer{};
        for (off_t at = 0;;) {
            const ssize_t n = ::pread(descriptor_, buffer.data(), buffer.size(), at);
            if (n <= 0) {
                return content;
            }
            content.append(buffer.data(), static_cast<std::size_t>(n));
            at += n;
        }
    }

private:
    int descriptor_;
};

class FileActions {
public:
    FileActions() { posix_spawn_file_actions_init(&actions_); }
    FileActions(const FileActions&) = delete;
    FileActions& operator=(const FileActions&) = delete;
    ~FileActions() { posix_spawn_file_actions_destroy(&actions_); }

    void put(const Stream& stream, int place) {
        posix_spawn_file_actions_adddup2(&actions_, stream.descriptor(), place);
    }
    const posix_spawn_file_actions_t* get() const { return &actions_; }

private:
    posix_spawn_file_actions_t actions_{};
};

}    // namespace

bool has_gnuplot() {
    const char* const path = std::getenv("PATH");
    std::istringstream folders(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        if (::access((folder + "/gnuplot").c_str(), X_OK) == 0) {
            return true;
        }
    }
    return false;
}

std::string run_gnuplot(const std::string& script) {
    const Stream in, out, err;
    in.write(script);
    FileActions streams;
    streams.put(in, STDIN_FILENO);
    streams.put(out, STDOUT_FILENO);
    streams.put(err, STDERR_FILENO);
    // -d: not as somebody's ~/.gnuplot would have it.
    std::string name = "gnuplot", plain = "-d";
    const std::array<char*, 3> arguments{name.data(), plain.data(), nullptr};
    pid_t pid = 0;
    const int error = ::posix_spawnp(&pid, "gnuplot", streams.get(), nullptr, arguments.data(), environ);
    if (error != 0) {
        throw EnvironmentError(fmt::format("Cannot start gnuplot: {}.", std::generic_category().message(error)));
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    std::string picture = out.read();
    if (status != 0 || picture.empty()) {
        std::string said = err.read();
        said = said.substr(0, said.find_last_not_of(" \n") + 1);
        throw EnvironmentError(fmt::format("gnuplot could not draw the picture: {}",
                                           said.empty() ? "it gave no reason." : said));
    }
    return picture;
}

}    // namespace app
