#include "failure.hpp"

#include <fmt/format.h>
#include <multihull/error.hpp>

#include <array>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <new>
#include <string_view>

namespace app {

namespace {

/// Libraries through which every crash or wait passes on its way; where the trouble began is above them.
bool is_plumbing(std::string_view module) {
    constexpr std::array kNames{"libc.so", "libpthread", "ld-linux", "libstdc++", "libgcc_s", "linux-vdso"};
    for (const char* name : kNames) {
        if (module.find(name) != std::string_view::npos) {
            return true;
        }
    }
    return module.empty();
}

/// ` in render (librsvg-2.so.2)`; empty where the stack is not known.
std::string place(const multihull::Stack& stack) {
    for (const multihull::Frame& frame : stack.frames()) {
        if (is_plumbing(frame.module)) {
            continue;
        }
        const std::string module = std::filesystem::path(frame.module).filename().string();
        return frame.function.empty() ? fmt::format(" in {}", module)
                                      : fmt::format(" in {} ({})", frame.function, module);
    }
    return {};
}

/// GLib and Rust end the process where an allocation fails, having said so.
bool ran_out_of_memory(std::string_view last_stderr) {
    return last_stderr.find("failed to allocate") != std::string_view::npos ||
           last_stderr.find("memory allocation of") != std::string_view::npos;
}

std::string describe_crash(const multihull::WorkerCrashed& error) {
    if (ran_out_of_memory(error.last_stderr())) {
        return "out of memory";
    }
    if (error.signal() == 0) {
        return fmt::format("its decoder ended the worker with exit status {}", error.exit_status().value_or(0));
    }
    if (error.signal() == SIGKILL) {
        return "its worker was killed with SIGKILL (by the system if memory is short)";
    }
    return fmt::format("crashed with {}{}", error.signal_name(), place(error.stack()));
}

}    // namespace

std::string describe(const std::exception_ptr& error) {
    using Seconds = std::chrono::duration<double>;
    try {
        std::rethrow_exception(error);
    } catch (const multihull::WorkerCrashed& crash) {
        return describe_crash(crash);
    } catch (const multihull::TaskTimeout& timeout) {
        return fmt::format("timed out after {:g} s{}", Seconds(timeout.limit()).count(), place(timeout.stack()));
    } catch (const std::bad_alloc&) {
        return "out of memory";
    } catch (const std::exception& other) {
        return other.what();
    } catch (...) {
        return "failed with an error of an unknown type";
    }
}

bool ends_the_run(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const multihull::BrokenPool&) {
        return true;
    } catch (const multihull::PoolClosed&) {
        return true;
    } catch (const multihull::StartError&) {
        return true;
    } catch (...) {
        return false;
    }
}

}    // namespace app
