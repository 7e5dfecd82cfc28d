#include "process/inner_limits.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <string>

namespace multihull::detail {

namespace {

constexpr const char* kProcessors = "MULTIHULL_INNER_CPUS";
// What the variables below were set to here: a value that the user has set is another.
constexpr const char* kThreads = "MULTIHULL_INNER_THREADS";

struct Library {
    const char* variable;
    const char* setter;    // of those that may have read their variable already: it takes an int
};
constexpr std::array<Library, 4> kLibraries{{{"OMP_NUM_THREADS", "omp_set_num_threads"},
                                             {"OPENBLAS_NUM_THREADS", "openblas_set_num_threads"},
                                             {"MKL_NUM_THREADS", "MKL_Set_Num_Threads"},
                                             {"BLIS_NUM_THREADS", nullptr}}};

thread_local std::size_t share_of_thread = 0;

std::size_t number_in(const char* text) noexcept {
    std::size_t number = 0;
    if (text != nullptr) std::from_chars(text, text + std::strlen(text), number);
    return number;
}

void call_setter(const char* name, std::size_t threads) noexcept {
    if (name == nullptr) return;
    if (auto* const setter = reinterpret_cast<void (*)(int)>(::dlsym(RTLD_DEFAULT, name)))
        setter(static_cast<int>(threads));
}

}    // namespace

std::size_t processors_to_share(std::size_t usable) noexcept {
    std::size_t share = usable;
    if (const std::size_t inner = number_in(std::getenv(kProcessors)); inner != 0) share = std::min(share, inner);
    if (share_of_thread != 0) share = std::min(share, share_of_thread);
    return share;
}

std::size_t inner_share(std::size_t workers, std::size_t usable) noexcept {
    return std::max<std::size_t>(processors_to_share(usable) / std::max<std::size_t>(workers, 1), 1);
}

void set_inner_limits(std::size_t processors, std::size_t threads) noexcept {
    ::setenv(kProcessors, std::to_string(processors).c_str(), 1);
    if (threads == 0) return;
    const char* const before = std::getenv(kThreads);
    const std::string ours = before == nullptr ? std::string() : std::string(before);
    const std::string now = std::to_string(threads);
    for (const Library& library : kLibraries) {
        const char* const set = std::getenv(library.variable);
        if (set != nullptr && ours != set) continue;
        ::setenv(library.variable, now.c_str(), 1);
        call_setter(library.setter, threads);
    }
    ::setenv(kThreads, now.c_str(), 1);
}

void set_inner_limits_of_thread(std::size_t processors) noexcept {
    share_of_thread = processors;
    // OpenMP counts for each thread; BLAS libraries count for the program, whose own this is to say.
    if (std::getenv("OMP_NUM_THREADS") == nullptr) call_setter("omp_set_num_threads", processors);
}

}    // namespace multihull::detail
