#include <multihull/manager.hpp>

#include "channel/address.hpp"
#include "manager/reference.hpp"
#include "manager/server.hpp"
#include "os/clock.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "process/self.hpp"

#include <multihull/log.hpp>
#include <multihull/pipe.hpp>

#include <array>
#include <csignal>
#include <mutex>
#include <sys/random.h>
#include <thread>
#include <unistd.h>

namespace multihull {

namespace detail {

namespace {

std::string random_key() {
    std::array<unsigned char, 32> bytes;
    if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) os::throw_errno("getrandom");
    std::string key;
    for (const unsigned char byte : bytes) {
        constexpr std::string_view kDigits = "0123456789abcdef";
        key += kDigits[byte >> 4];
        key += kDigits[byte & 15];
    }
    return key;
}

/// What the program has registered, beside SyncManager's types.
struct Registrations {
    std::vector<RegisteredType> types;
    std::vector<RegisteredFunction> functions;
    std::vector<RegisteredObject> objects;
};

ManagerTypes types_of(const Registrations& registered) {
    ManagerTypes all = ManagerTypes::sync_manager();
    for (const RegisteredType& type : registered.types) all.add(manager_type_of(type));
    for (const RegisteredObject& object : registered.objects) all.add(manager_type_of(object, all));
    for (const RegisteredFunction& function : registered.functions) {
        all.add_function(function.name, [call = function.call](Object old, std::span<const Object> args) {
            return call(std::move(old), args);
        });
    }
    return all;
}

/// What the server's process is started with.
struct ServerSettings {
    std::string address;
    std::string authkey;
    std::uint64_t threads;
    pid_t parent;
    Registrations registered;
};

// The server's process: says over the connection where it listens, or why not, and serves.
void run_server(Connection started, const ServerSettings& settings) {
    std::signal(SIGINT, SIG_IGN);    // as Python's: a Ctrl-C is for the program, which then shuts the server down
    std::optional<ManagerServer> server;
    try {
        server.emplace(ManagerServerOptions{.address = settings.address,
                                            .authkey = settings.authkey,
                                            .types = types_of(settings.registered),
                                            .threads = settings.threads});
    } catch (const std::exception& error) {
        started.send(std::string());
        started.send(std::string(error.what()));
        return;
    }
    // However the program ends: nobody is left to shut the server down.
    const os::Fd parent = os::open_pidfd(settings.parent);
    std::thread([&] {
        os::wait_readable(parent.get(), os::kNever);
        server->stop();
    }).detach();
    started.send(server->address());
    started.close();
    server->serve_forever();
    os::flush_standard_streams();
    ::_exit(0);    // with a thread that waits for the parent
}

}    // namespace

}    // namespace detail

struct BaseManager::State {
    ManagerOptions options;
    std::uint32_t generation = detail::fork_generation();
    detail::Registrations registered;
    std::shared_ptr<detail::ManagerClient> client;    // once started or connected
    std::unique_ptr<Process> process;                 // of the server, where it was started here
    bool shut_down = false;

    detail::ManagerClient& server() const {
        if (shut_down) throw ManagerGone("this manager was shut down: make a new one");
        if (!client) throw Error("this manager has no server yet: call start() or connect() first");
        return *client;
    }
};

BaseManager::BaseManager(ManagerOptions options) : state_(std::make_unique<State>()) {
    if (options.authkey.empty()) options.authkey = detail::random_key();
    if (options.address.empty()) options.address = detail::random_address();
    state_->options = std::move(options);
}

BaseManager::~BaseManager() {
    if (state_->generation != detail::fork_generation()) return;
    try {
        if (state_->process) shutdown();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("while a manager ended: ") + error.what());
    }
}

BaseManager::State& BaseManager::unused_state(const char* what) {
    if (state_->client || state_->shut_down) {
        throw Error(std::string(what) + " comes too late: this manager has a server, or had one");
    }
    return *state_;
}

void BaseManager::add_type(detail::RegisteredType type) {
    unused_state("register_type()").registered.types.push_back(std::move(type));
}

void BaseManager::add_function(detail::RegisteredFunction function) {
    unused_state("register_function()").registered.functions.push_back(std::move(function));
}

void BaseManager::add_object(detail::RegisteredObject object) {
    unused_state("register_object()").registered.objects.push_back(std::move(object));
}

void BaseManager::throw_no_constructor(const std::string& name) {
    throw Error("the type registered as " + name +
                " has no default constructor: give register_type() a constructor<Args...>()");
}

void BaseManager::start() {
    State& state = unused_state("start()");
    auto [here, there] = Pipe();
    detail::ServerSettings settings{state.options.address, state.options.authkey, state.options.threads, ::getpid(),
                                    state.registered};
    auto process = std::make_unique<Process>(ProcessOptions{.name = "Manager",
                                                            .daemon = true,
                                                            .start_method = state.options.start_method},
                                             &detail::run_server, std::move(there), std::move(settings));
    process->start();
    try {
        const auto address = here.recv<std::string>();
        if (address.empty()) throw Error(here.recv<std::string>());
        state.options.address = address;
    } catch (const EndOfFile&) {
        process->join();
        throw StartError("the process of a manager's server ended before it served: its stderr says why");
    }
    state.client = detail::ManagerClient::of(state.options.address, state.options.authkey);
    state.process = std::move(process);
}

void BaseManager::connect() {
    State& state = unused_state("connect()");
    auto client = detail::ManagerClient::of(state.options.address, state.options.authkey);
    client->control_once("dummy", Object::tuple());
    state.client = std::move(client);
}

Server BaseManager::get_server() {
    State& state = unused_state("get_server()");
    return Server(std::make_unique<detail::ManagerServer>(
        detail::ManagerServerOptions{.address = state.options.address,
                                     .authkey = state.options.authkey,
                                     .types = detail::types_of(state.registered),
                                     .threads = state.options.threads}));
}

void BaseManager::shutdown() {
    State& state = *state_;
    if (state.shut_down) return;
    if (!state.client) return;
    try {
        state.client->shut_down(state.options.shutdown_timeout);
    } catch (const Error&) {
        // It is gone already, or too busy to listen.
    }
    state.shut_down = true;
    state.client.reset();
    if (!state.process) return;
    if (!state.process->join(state.options.shutdown_timeout)) {
        state.process->terminate();
        if (!state.process->join(state.options.shutdown_timeout)) state.process->kill();
        state.process->join();
    }
}

bool BaseManager::join(std::chrono::nanoseconds timeout) { return !state_->process || state_->process->join(timeout); }

const std::string& BaseManager::address() const { return state_->options.address; }
const std::string& BaseManager::authkey() const { return state_->options.authkey; }

detail::ProxyRef BaseManager::create_with(std::string_view type, const Object& args, Object kwargs) {
    detail::ManagerClient& server = state_->server();
    std::vector<Object> all{Object(type)};
    for (const Object& arg : args) all.push_back(arg);
    const Object created = server.control("create", Object::tuple(std::move(all)), std::move(kwargs));
    detail::ProxyTarget target{std::string(type), created.at(0).as_str(), {}};
    for (const Object& name : created.at(1)) target.exposed.push_back(name.as_str());
    return detail::ProxyReference::adopt(state_->client, std::move(target));
}

std::size_t BaseManager::number_of_objects() {
    return state_->server().control("number_of_objects", Object::tuple()).as<std::size_t>();
}

std::string BaseManager::debug_info() { return state_->server().control("debug_info", Object::tuple()).as_str(); }

// Servers.

Server::Server(std::unique_ptr<detail::ManagerServer> server) : server_(std::move(server)) {}
Server::Server(Server&&) noexcept = default;
Server& Server::operator=(Server&&) noexcept = default;
Server::~Server() = default;

const std::string& Server::address() const { return server_->address(); }
void Server::serve_forever() { server_->serve_forever(); }
void Server::stop() noexcept { server_->stop(); }

}    // namespace multihull
