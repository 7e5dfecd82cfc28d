#include "manager_command.hpp"

#include "failure.hpp"

#include <multihull/manager.hpp>

#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sys/resource.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace app {

namespace {

namespace fs = std::filesystem;

// The whole file but for a line's end behind the key, which editors put there.
std::string read_key(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::string key{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file) {
        throw EnvironmentError(fmt::format("Cannot read the key from '{}': {}.", path.native(), std::strerror(errno)));
    }
    while (key.ends_with('\n') || key.ends_with('\r')) {
        key.pop_back();
    }
    if (key.empty()) {
        throw EnvironmentError(fmt::format("The file '{}' holds no key: write one into it that nobody can guess.",
                                           path.native()));
    }
    return key;
}

// Who waits for the file finds it whole or not at all.
void write_port_file(const fs::path& path, const std::string& address) {
    const fs::path temporary = path.native() + fmt::format(".{}.tmp", ::getpid());
    std::ofstream file(temporary);
    const bool has_port = address.find('/') == std::string::npos && address.front() != '@';
    file << (has_port ? address.substr(address.rfind(':') + 1) : address) << '\n';
    file.close();
    std::error_code error;
    if (!file || (fs::rename(temporary, path, error), error)) {
        const std::string reason = error ? error.message() : std::strerror(errno);
        fs::remove(temporary, error);
        throw EnvironmentError(fmt::format("Cannot write the port to '{}': {}.", path.native(), reason));
    }
}

// A connection for each thread of each client, and a descriptor for each connection.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        ::setrlimit(RLIMIT_NOFILE, &limit);
    }
}

multihull::Server* running = nullptr;

void stop_server(int) { running->stop(); }

}    // namespace

CLI::App* add_manager_command(CLI::App& program, const std::shared_ptr<ManagerOptions>& options) {
    CLI::App* command = program.add_subcommand("manager", "Serve objects that C++ and Python programs share.");
    command->description(
        "Serve objects that C++ and Python programs share: dicts, lists, queues, locks and the other types of "
        "Python's\n"
        "multiprocessing.Manager. Python needs nothing but its standard library:\n"
        "\n"
        "    from multiprocessing.managers import SyncManager\n"
        "    manager = SyncManager(('localhost', 5000), authkey=open('key', 'rb').read().strip())\n"
        "    manager.connect()\n"
        "    jobs = manager.Queue()\n"
        "\n"
        "Runs until SIGINT, SIGTERM, or a client's shutdown().");
    command
        ->add_option("--address", options->address,
                     "Where to listen: host:port (port 0 lets the system choose), the path of a unix socket, or @name "
                     "for a unix socket without a file")
        ->required()
        ->type_name("ADDR");
    command
        ->add_option("--authkey-file", options->authkey_file,
                     "A file with the key that clients must know; line ends behind it don't count")
        ->required()
        ->type_name("FILE");
    command
        ->add_option("--port-file", options->port_file,
                     "Where to write the port once clients can connect (for another kind of address: the address); "
                     "it is removed at the end")
        ->type_name("FILE");
    return command;
}

int run_manager_command(const ManagerOptions& options) {
    raise_descriptor_limit();
    multihull::BaseManager manager({.address = options.address, .authkey = read_key(options.authkey_file)});
    multihull::Server server = manager.get_server();
    running = &server;
    struct sigaction action {};
    action.sa_handler = stop_server;
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        ::sigaction(signal, &action, nullptr);
    }
    if (!options.port_file.empty()) {
        write_port_file(options.port_file, server.address());
    }
    server.serve_forever();
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
        ::signal(signal, SIG_IGN);    // it ends already
    }
    if (!options.port_file.empty()) {
        std::error_code error;
        fs::remove(options.port_file, error);
    }
    return 0;
}

}    // namespace app
