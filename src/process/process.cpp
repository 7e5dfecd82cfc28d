#include <multihull/process.hpp>

#include "os/clock.hpp"
#include "os/poll.hpp"
#include "os/process.hpp"
#include "process/exchange.hpp"
#include "process/process_child.hpp"
#include "process/self.hpp"
#include "process/supervisor.hpp"
#include "process/zygote.hpp"
#include "shm/growth.hpp"

#include <multihull/detail/message.hpp>
#include <multihull/error.hpp>
#include <multihull/log.hpp>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <functional>
#include <mutex>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

namespace multihull {

namespace {

std::atomic<unsigned> process_count{0};

void bury(pid_t pid) {
    if (pid != 0 && shm::Region::exists()) shm::Region::instance().bury(pid);
}

}    // namespace

struct Process::State {
    // What is known of the child; shared with the supervisor's thread for children of a zygote, and where somebody is to be told of its end.
    struct Child final : detail::ChildListener, detail::ProcessEnd, std::enable_shared_from_this<Child> {
        std::mutex mutex;
        std::condition_variable changed;
        pid_t pid = 0;
        os::Fd pidfd;
        int start_error = 0;
        std::optional<int> code;
        bool own = false;        // forked by this process, which therefore reaps it
        bool watched = false;    // of its own: by the supervisor
        std::vector<std::function<void()>> callbacks;

        void on_born(pid_t born, os::Fd fd) override {
            const std::lock_guard guard(mutex);
            pid = born;
            pidfd = std::move(fd);
            changed.notify_all();
        }
        void on_not_born(int error) override {
            const std::lock_guard guard(mutex);
            start_error = error;
            changed.notify_all();
        }
        void on_died(int status) override;
        std::optional<int> exitcode() override;
        void on_end(std::function<void()> callback) override;

    private:
        void watch_end();
    };

    // Watches for the end of a process that no zygote watches.
    class EndWatch final : public detail::Supervised {
    public:
        explicit EndWatch(std::shared_ptr<Child> child) : child_(std::move(child)) {}
        void on_readable(int fd) override {
            detail::Supervisor::instance().unwatch(fd);
            static_cast<void>(child_->exitcode());
        }
        std::int64_t tick(std::int64_t) override { return os::kNever; }

    private:
        std::shared_ptr<Child> child_;
    };

    ProcessOptions options;
    std::unique_ptr<detail::CallBase> call;
    std::vector<std::shared_ptr<const void>>
        kept;    // what the call names, for as long as the child may not have read it
    std::shared_ptr<Child> child = std::make_shared<Child>();
    std::uint32_t generation = detail::fork_generation();
    bool started = false;
    std::shared_ptr<detail::Zygote> zygote;    // of its own, for spawn
    shm::Offset call_block = 0;                // its call in shared memory, for children of a zygote
    std::size_t call_capacity = 0;

    bool ours() const noexcept { return generation == detail::fork_generation(); }

    detail::Writer& write_call(detail::Writer& writer) {
        writer.keep_in(kept);
        detail::CallPreamble preamble{};
        preamble.token = call->token();
        preamble.memory = options.limits.memory;
        preamble.cpu_ns = options.limits.cpu_time.count();
        preamble.daemon = options.daemon ? 1 : 0;
        detail::encode(writer, preamble);
        call->encode_to(writer);
        return writer;
    }

    void start_by_fork();
    void start_by_zygote(const std::shared_ptr<detail::Zygote>& from);
    std::optional<int> poll(bool block, std::int64_t deadline);
};

namespace {

// The started processes of this program, for active_children(). Made anew in a forked child, which has none.
struct Registry {
    std::mutex mutex;
    std::vector<std::pair<const void*, std::function<std::optional<ProcessInfo>()>>> entries;
};

constinit std::atomic<Registry*> the_registry{nullptr};
const detail::ForkChildHook kForgetRegistry([] { the_registry.store(nullptr); });

Registry& registry() {
    Registry* current = the_registry.load();
    if (current != nullptr) return *current;
    auto* fresh = new Registry;
    if (the_registry.compare_exchange_strong(current, fresh)) return *fresh;
    delete fresh;
    return *current;
}

}    // namespace

Process::Process(ProcessOptions options, std::unique_ptr<detail::CallBase> call) : state_(std::make_unique<State>()) {
    if (options.name.empty()) options.name = "Process-" + std::to_string(process_count.fetch_add(1) + 1);
    state_->options = std::move(options);
    state_->call = std::move(call);
}

Process::Process(Process&&) noexcept = default;

Process& Process::operator=(Process&& other) noexcept {
    if (this != &other) {
        finish();
        state_ = std::move(other.state_);
    }
    return *this;
}

Process::~Process() { finish(); }

Process::State& Process::state() const {
    if (!state_) throw Error("this Process was closed or moved from: make a new one");
    return *state_;
}

void Process::finish() noexcept {
    if (!state_ || !state_->started || !state_->ours()) return;
    try {
        if (!exitcode()) {
            if (state_->options.daemon || std::uncaught_exceptions() > 0) kill();
            join();
        }
        close();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("while a Process object ended: ") + error.what());
    }
}

void Process::State::start_by_fork() {
    detail::watch_forks();
    detail::warn_if_threaded("a Process started by fork");
    detail::keep_descriptors_of_family();
    // The child inherits what its arguments hold; here it is closed at the end of this function.
    detail::MessageDescriptors descriptors;
    detail::VectorGrowth growth;
    detail::Writer writer({}, growth, &descriptors);
    write_call(writer);
    const ProcessInfo self = current_process();
    const pid_t parent = ::getpid();
    // The kernel ties "die with the parent" to the parent's thread: only the main thread lasts as long as the program.
    const bool tie = ::gettid() == parent;
    const pid_t pid = os::fork_process();
    if (pid == 0) {
        if (tie && !os::die_with_parent(parent)) ::_exit(1);
        detail::detach_stream(STDIN_FILENO);
        detail::Reader reader(writer.bytes(), &descriptors);
        detail::run_child(reader, options.name, parent, self.name());
    }
    if (pid < 0) {
        throw StartError("process " + options.name + " can't be started (fork: " + os::errno_text(errno) +
                         "): raise the limits on processes (ulimit -u) or free some memory");
    }
    child->own = true;
    child->pid = pid;
    try {
        child->pidfd = os::open_pidfd(pid);
    } catch (const std::system_error& error) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        throw StartError("process " + options.name + " can't be watched (" + error.what() +
                         "): raise the limit on open files (ulimit -n)");
    }
}

void Process::State::start_by_zygote(const std::shared_ptr<detail::Zygote>& from) {
    detail::keep_descriptors_of_family();
    detail::MessageDescriptors descriptors;
    shm::HeapGrowth growth;
    detail::Writer writer({}, growth, &descriptors);
    detail::encode(writer, options.name);
    detail::encode(writer, current_process().name());
    write_call(writer);
    if (descriptors.list().size() > detail::kMaxChildFds) {
        throw CodecError("the call of process " + options.name + " holds more than " +
                         std::to_string(detail::kMaxChildFds) +
                         " file descriptors: send the others through a Connection");
    }
    const std::size_t size = writer.size();
    const auto [block, capacity] = growth.take();
    const std::uint64_t words[] = {block, size};
    os::flush_standard_streams();
    std::vector<int> fds;
    for (const auto& descriptor : descriptors.list()) fds.push_back(descriptor.fileno());
    from->fork_child(detail::token_of(reinterpret_cast<const void*>(&detail::child_entry)), words, fds, child);
    descriptors.list().clear();
    std::unique_lock guard(child->mutex);
    child->changed.wait(guard, [&] { return child->pid != 0 || child->start_error != 0; });
    if (child->start_error != 0) {
        const int error = child->start_error;
        guard.unlock();
        shm::Heap::instance().free(block, capacity);
        throw StartError(
            "process " + options.name + " can't be started (" + os::errno_text(error) +
            "): raise the limits on processes (ulimit -u) and open files (ulimit -n), or free some memory");
    }
    guard.unlock();
    call_block = block;
    call_capacity = capacity;
}

Process& Process::start() {
    State& self = state();
    if (self.started) throw StartError("process " + self.options.name + " was started before: a Process runs once");
    switch (self.options.start_method.value_or(default_start_method())) {
        case StartMethod::fork:
            self.start_by_fork();
            break;
        case StartMethod::forkserver: {
            const auto server = detail::Zygote::forkserver();
            if (!server) {
                throw StartError(
                    "the start method forkserver needs multihull::init(argc, argv) as main's first line; it was not "
                    "called");
            }
            self.start_by_zygote(server);
            break;
        }
        case StartMethod::spawn:
            self.zygote = detail::Zygote::spawn();
            try {
                self.start_by_zygote(self.zygote);
            } catch (...) {
                self.zygote->leave_now();
                throw;
            }
            self.zygote->leave_when_empty();
            break;
    }
    self.started = true;
    self.call.reset();    // what was moved into the child is gone from here
    Registry& all = registry();
    const std::lock_guard guard(all.mutex);
    all.entries.emplace_back(&self, [&self]() -> std::optional<ProcessInfo> {
        if (self.poll(false, 0)) return std::nullopt;
        return ProcessInfo(self.child->pid, self.options.name, self.options.daemon);
    });
    return *this;
}

void Process::State::Child::on_died(int status) {
    std::vector<std::function<void()>> told;
    // First: whoever is told of the death finds what it held made right.
    bury(pid);
    {
        const std::lock_guard guard(mutex);
        if (pid == 0) start_error = EMFILE;
        code = status;
        changed.notify_all();
        told.swap(callbacks);
    }
    for (const auto& callback : told) callback();
}

// The exit code if there is one now.
std::optional<int> Process::State::Child::exitcode() {
    std::vector<std::function<void()>> told;
    std::optional<int> now;
    {
        const std::lock_guard guard(mutex);
        // In this order: it may end between the two.
        if (!code && own && os::wait_readable(pidfd.get(), 0)) {
            const auto status = os::reap(pidfd, false);
            bury(pid);
            // Where somebody else reaped it (the program ignores SIGCHLD, or calls waitpid(-1)) its status is lost.
            code = status ? status->code : 255;
            told.swap(callbacks);
        }
        now = code;
    }
    for (const auto& callback : told) callback();
    return now;
}

void Process::State::Child::watch_end() {
    {
        const std::lock_guard guard(mutex);
        if (!own || std::exchange(watched, true)) return;
    }
    try {
        detail::Supervisor::instance().watch(pidfd.get(), std::make_shared<EndWatch>(shared_from_this()));
    } catch (...) {
        // Those who have relied on it meanwhile look again, and then watch for themselves.
        std::vector<std::function<void()>> told;
        {
            const std::lock_guard guard(mutex);
            watched = false;
            told.swap(callbacks);
        }
        for (const auto& callback : told) callback();
        throw;
    }
}

void Process::State::Child::on_end(std::function<void()> callback) {
    watch_end();
    {
        const std::lock_guard guard(mutex);
        if (!code) {
            callbacks.push_back(std::move(callback));
            return;
        }
    }
    callback();
}

// The exit code if there is one now (or, with `block`, by the deadline).
std::optional<int> Process::State::poll(bool block, std::int64_t deadline) {
    if (child->own) {
        const auto code = child->exitcode();
        if (code || !block || !os::wait_readable(child->pidfd.get(), deadline)) return code;
        return child->exitcode();
    }
    std::unique_lock guard(child->mutex);
    const auto ended = [&] { return child->code.has_value(); };
    if (block && deadline == os::kNever) {
        child->changed.wait(guard, ended);
    } else if (block) {
        while (!ended() && os::now_ns() < deadline) {
            child->changed.wait_for(guard, std::chrono::nanoseconds(deadline - os::now_ns()));
        }
    }
    return child->code;
}

void Process::join() {
    if (!state().started) throw Error("process " + state().options.name + " can't be joined: it was never started");
    state().poll(true, os::kNever);
}

bool Process::join(std::chrono::nanoseconds timeout) {
    if (!state().started) throw Error("process " + state().options.name + " can't be joined: it was never started");
    return state().poll(true, os::deadline_after(timeout)).has_value();
}

void Process::terminate() {
    if (state().started && !exitcode()) os::signal_process(state().child->pidfd, SIGTERM);
}

void Process::kill() {
    if (state().started && !exitcode()) os::signal_process(state().child->pidfd, SIGKILL);
}

void Process::close() {
    if (!state_) return;
    if (state_->started && state_->ours()) {
        if (!exitcode()) {
            throw Error("process " + state_->options.name + " still runs: join() or terminate() it before close()");
        }
        Registry& all = registry();
        {
            const std::lock_guard guard(all.mutex);
            std::erase_if(all.entries, [&](const auto& entry) { return entry.first == state_.get(); });
        }
        if (state_->zygote) state_->zygote->wait();
        if (state_->call_block != 0) shm::Heap::instance().free(state_->call_block, state_->call_capacity);
    }
    state_.reset();
}

bool Process::is_alive() const { return state().started && !exitcode(); }

std::optional<int> Process::exitcode() const {
    if (!state().started) return std::nullopt;
    return state().poll(false, 0);
}

std::optional<pid_t> Process::pid() const {
    if (!state().started) return std::nullopt;
    return state().child->pid;
}

const std::string& Process::name() const { return state().options.name; }

bool Process::daemon() const { return state().options.daemon; }

int Process::sentinel() const {
    if (!state().started) throw Error("process " + state().options.name + " has no sentinel: it was never started");
    return state().child->pidfd.get();
}

std::shared_ptr<detail::ProcessEnd> Process::ending() const {
    if (!state().started) throw Error("process " + state().options.name + " can't end: it was never started");
    if (!state().ours())
        throw Error("process " + state().options.name + " belongs to the parent of this forked process");
    return state().child;
}

std::vector<ProcessInfo> active_children() {
    std::vector<ProcessInfo> alive;
    Registry& all = registry();
    const std::lock_guard guard(all.mutex);
    for (const auto& [key, look] : all.entries) {
        if (auto info = look()) alive.push_back(std::move(*info));
    }
    return alive;
}

}    // namespace multihull
