#include "process/process_child.hpp"

#include "os/process.hpp"
#include "process/self.hpp"
#include "process/throw_trace.hpp"
#include "shm/region.hpp"

#include <multihull/detail/message.hpp>
#include <multihull/process.hpp>
#include <multihull/stack.hpp>

#include <algorithm>
#include <cstdlib>
#include <cxxabi.h>
#include <exception>
#include <sys/resource.h>
#include <unistd.h>

namespace multihull::detail {

namespace {

void apply_limits(const CallPreamble& preamble) {
    if (preamble.memory != 0) os::limit_private_memory(os::private_memory(), preamble.memory);
    if (preamble.cpu_ns > 0) {
        const auto seconds = static_cast<rlim_t>((preamble.cpu_ns + 999'999'999) / 1'000'000'000);
        rlimit limit{};
        ::getrlimit(RLIMIT_CPU, &limit);
        limit.rlim_cur = std::min(seconds, limit.rlim_max);
        ::setrlimit(RLIMIT_CPU, &limit);
    }
}

void print_uncaught(const std::string& name) {
    std::string text = "Process " + name + " (pid " + std::to_string(::getpid()) + ") ended by an uncaught exception";
    const std::type_info* const type = abi::__cxa_current_exception_type();
    if (type != nullptr) {
        int status = 0;
        char* const demangled = abi::__cxa_demangle(type->name(), nullptr, nullptr, &status);
        text += std::string(": ") + (status == 0 ? demangled : type->name());
        std::free(demangled);
    }
    try {
        throw;
    } catch (const std::exception& error) {
        text += std::string(": ") + error.what();
    } catch (...) {
        // Not derived from std::exception: its type is all there is to say.
    }
    text += '\n';
    text += Stack(task_throw_stack()).to_string();
    os::write_all(STDERR_FILENO, text);
}

}    // namespace

void run_child(Reader& reader, const std::string& name, pid_t parent, const std::string& parent_name) {
    int status = 0;
    struct Run {
        Thunk thunk;
        TaskContext* context;
    };
    try {
        const auto preamble = decode<CallPreamble>(reader);
        set_self(ProcessInfo(::getpid(), name, preamble.daemon != 0), ProcessInfo(parent, parent_name, false));
        apply_limits(preamble);
        VectorGrowth growth;
        Writer writer({}, growth);
        TaskContext context(reader, writer);
        Run run{thunk_of(preamble.token), &context};
        call_with_throw_trace(
            [](void* data) {
                auto* const call = static_cast<Run*>(data);
                call->thunk(*call->context);
            },
            &run);
    } catch (...) {
        print_uncaught(name);
        status = 1;
    }
    leave_child(status);
}

void child_entry(const ZygoteRequest& request, std::vector<os::Fd>& fds) {
    const std::byte* const bytes = shm::Region::instance().at(request.words[0]);
    // The parent keeps the block until it has seen this process end.
    MessageDescriptors descriptors;
    for (auto& fd : fds) descriptors.list().emplace_back(fd.release());
    Reader reader(std::span(bytes, request.words[1]), &descriptors);
    const auto name = decode<std::string>(reader);
    const auto parent_name = decode<std::string>(reader);
    run_child(reader, name, static_cast<pid_t>(request.parent_pid), parent_name);
}

}    // namespace multihull::detail
