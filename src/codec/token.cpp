#include <multihull/detail/token.hpp>

#include "shm/region.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <elf.h>
#include <link.h>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace multihull::detail {

class ThunkTable;

namespace {

constexpr int kModuleShift = 48;
constexpr Token kOffsetMask = (Token{1} << kModuleShift) - 1;

struct Module {
    std::uintptr_t base = 0;
    std::uintptr_t code_begin = 0;    // executable segments, first to last
    std::uintptr_t code_end = 0;
    std::uint64_t identity = 0;
};

// FNV-1a: stable across processes and builds, and only ever compared for equality.
std::uint64_t hash_bytes(const void* data, std::size_t size, std::uint64_t hash = 0xcbf29ce484222325) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

std::uint64_t build_id(const dl_phdr_info& info) {
    for (int i = 0; i < info.dlpi_phnum; ++i) {
        const auto& segment = info.dlpi_phdr[i];
        if (segment.p_type != PT_NOTE) continue;
        const auto* note = reinterpret_cast<const char*>(info.dlpi_addr + segment.p_vaddr);
        const char* const end = note + segment.p_memsz;
        while (note + sizeof(ElfW(Nhdr)) <= end) {
            ElfW(Nhdr) header;
            std::memcpy(&header, note, sizeof header);
            const char* name = note + sizeof header;
            const char* content = name + ((header.n_namesz + 3U) & ~3U);
            if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
                return hash_bytes(content, header.n_descsz);
            }
            note = content + ((header.n_descsz + 3U) & ~3U);
        }
    }
    // Linked without a build-id: its path and the shape of its segments are the next best thing.
    std::uint64_t hash = hash_bytes(info.dlpi_name, std::strlen(info.dlpi_name));
    return hash_bytes(info.dlpi_phdr, sizeof(*info.dlpi_phdr) * info.dlpi_phnum, hash);
}

int add_module(dl_phdr_info* info, std::size_t, void* list) {
    Module module;
    module.base = info->dlpi_addr;
    module.code_begin = ~std::uintptr_t{0};
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
        module.code_begin = std::min(module.code_begin, info->dlpi_addr + segment.p_vaddr);
        module.code_end = std::max(module.code_end, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
    }
    if (module.code_end != 0) {
        module.identity = build_id(*info);
        static_cast<std::vector<Module>*>(list)->push_back(module);
    }
    return 0;
}

class ModuleTable;

// Made on first use and never destroyed: tasks may run until the process ends. A forked child goes on with them, whole, because
// nobody else works on them during a fork.
constinit std::atomic<ModuleTable*> the_modules{nullptr};
constinit std::atomic<ThunkTable*> the_thunks{nullptr};

template <class Table>
Table& process_wide(std::atomic<Table*>& place) {
    Table* table = place.load(std::memory_order_acquire);
    if (table != nullptr) return *table;
    auto* fresh = new Table;
    if (place.compare_exchange_strong(table, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
    return *table;
}

// The modules of this process, and where those of the family's table are loaded here.
class ModuleTable {
public:
    static ModuleTable& instance() { return process_wide(the_modules); }

    Token token_of(std::uintptr_t code) {
        thread_local constinit Answer last{};
        if (last.code == code && last.scan == scans_.load(std::memory_order_relaxed)) return last.token;
        const std::lock_guard guard(mutex_);
        for (int round = 0; round < 2; ++round) {
            for (const Module& module : modules_) {
                if (code < module.code_begin || code >= module.code_end) continue;
                last = {code, Token{number_of(module)} << kModuleShift | (code - module.base),
                        scans_.load(std::memory_order_relaxed)};
                return last.token;
            }
            scan();
        }
        throw Error(
            "this function can't be called in another process: it is in no module that was loaded from a file "
            "(code made at run time stays in the process that made it)");
    }

    void prepare() {
        const std::lock_guard guard(mutex_);
        if (modules_.empty()) scan();
    }

    std::mutex& mutex() noexcept { return mutex_; }

    bool same_module(std::uintptr_t a, std::uintptr_t b) {
        const std::lock_guard guard(mutex_);
        return std::any_of(modules_.begin(), modules_.end(), [&](const Module& module) {
            const auto holds = [&](std::uintptr_t code) { return code >= module.code_begin && code < module.code_end; };
            return holds(a) && holds(b);
        });
    }

    std::uintptr_t code_of(Token token) {
        thread_local constinit Answer last{};
        if (last.token == token && last.scan == scans_.load(std::memory_order_relaxed)) return last.code;
        const auto number = static_cast<std::uint32_t>(token >> kModuleShift);
        const std::lock_guard guard(mutex_);
        if (number < shm::kMaxModules) {
            const std::uint64_t identity =
                shm::Region::instance().header().modules[number].load(std::memory_order_acquire);
            for (int round = 0; round < 2 && identity != 0; ++round) {
                for (const Module& module : modules_) {
                    if (module.identity != identity) continue;
                    const std::uintptr_t code = module.base + (token & kOffsetMask);
                    if (code >= module.code_begin && code < module.code_end) {
                        last = {code, token, scans_.load(std::memory_order_relaxed)};
                        return code;
                    }
                    throw Error("a task names a place that holds no code; its memory was overwritten");
                }
                scan();
            }
        }
        throw Error(
            "the task's function is in a library that this worker has not loaded: load libraries (dlopen) before "
            "multihull::init() or before the pool is made, or load the same build of them in the pool's initializer");
    }

    std::vector<ModulePlace> places() {
        const std::lock_guard guard(mutex_);
        scan();
        std::vector<ModulePlace> places;
        places.reserve(modules_.size());
        for (const Module& module : modules_) places.push_back({module.identity, module.code_begin, module.code_end});
        return places;
    }

    void number_all() {
        const std::lock_guard guard(mutex_);
        scan();
        for (const Module& module : modules_) number_of(module);
    }

private:
    // Asked with each task for the same function, mostly: each thread knows its last answer, good until modules are looked up anew.
    struct Answer {
        std::uintptr_t code;
        Token token;
        unsigned scan;
    };

    void scan() {
        modules_.clear();
        ::dl_iterate_phdr(add_module, &modules_);
        scans_.fetch_add(1, std::memory_order_relaxed);
    }

    static std::uint32_t number_of(const Module& module) {
        auto* const table = shm::Region::instance().header().modules;
        for (std::uint32_t i = 0; i < shm::kMaxModules; ++i) {
            std::uint64_t identity = table[i].load(std::memory_order_acquire);
            if (identity == 0 &&
                table[i].compare_exchange_strong(identity, module.identity, std::memory_order_acq_rel)) {
                return i;
            }
            if (identity == module.identity) return i;
        }
        throw Error("tasks of one family of processes come from more than 256 libraries: call through fewer");
    }

    std::mutex mutex_;
    std::vector<Module> modules_;
    std::atomic<unsigned> scans_{1};    // 0 in a thread that has asked for nothing
};

constinit std::atomic<ThunkRegistration*> registrations{nullptr};

}    // namespace

ThunkRegistration::ThunkRegistration(Thunk thunk, const std::type_info& callable, bool by_pointer) noexcept
    : thunk_(thunk), callable_(callable), by_pointer_(by_pointer), next_(registrations.load()) {
    while (!registrations.compare_exchange_weak(next_, this)) {}
}

// The registered thunks, made anew when a library that was loaded later has added some.
class ThunkTable {
public:
    static ThunkTable& instance() { return process_wide(the_thunks); }

    const ThunkRegistration* find(Thunk thunk) {
        const std::lock_guard guard(mutex_);
        look();
        const auto entry = thunks_.find(thunk);
        return entry == thunks_.end() ? nullptr : entry->second;
    }

    void prepare() {
        const std::lock_guard guard(mutex_);
        look();
    }

    std::mutex& mutex() noexcept { return mutex_; }

private:
    void look() {
        ThunkRegistration* const head = registrations.load();
        if (head == seen_) return;
        thunks_.clear();
        for (auto* entry = head; entry != nullptr; entry = entry->next_) thunks_.emplace(entry->thunk_, entry);
        seen_ = head;
    }

    std::mutex mutex_;
    ThunkRegistration* seen_ = nullptr;
    std::unordered_map<Thunk, const ThunkRegistration*> thunks_;
};

void prepare_tokens() {
    ModuleTable::instance().prepare();
    ThunkTable::instance().prepare();
}

void lock_tokens_before_fork() noexcept {
    ModuleTable::instance().mutex().lock();
    ThunkTable::instance().mutex().lock();
}

void unlock_tokens_after_fork() noexcept {
    ThunkTable::instance().mutex().unlock();
    ModuleTable::instance().mutex().unlock();
}

std::vector<ModulePlace> module_places() { return ModuleTable::instance().places(); }

std::vector<std::uint64_t> module_numbers() {
    ModuleTable::instance().number_all();
    std::vector<std::uint64_t> identities;
    for (const auto& entry : shm::Region::instance().header().modules) {
        const std::uint64_t identity = entry.load(std::memory_order_acquire);
        if (identity == 0) break;
        identities.push_back(identity);
    }
    return identities;
}

void adopt_module_numbers(std::size_t first, std::span<const std::uint64_t> identities) {
    auto& table = shm::Region::instance().header().modules;
    for (std::size_t i = 0; i < identities.size(); ++i) {
        std::uint64_t there = 0;
        if (first + i >= shm::kMaxModules ||
            (!table[first + i].compare_exchange_strong(there, identities[i], std::memory_order_acq_rel) &&
             there != identities[i])) {
            throw Error(
                "this process has called functions of other libraries than the one it takes tasks from: make the "
                "session main's first line, and load libraries (dlopen) in the same order everywhere");
        }
    }
}

Token token_of(const void* code) { return ModuleTable::instance().token_of(reinterpret_cast<std::uintptr_t>(code)); }

const void* code_of(Token token) { return reinterpret_cast<const void*>(ModuleTable::instance().code_of(token)); }

bool same_module(std::uintptr_t a, std::uintptr_t b) noexcept { return ModuleTable::instance().same_module(a, b); }

Thunk thunk_of(Token token) {
    // Most tasks of a worker call the same few functions.
    struct Known {
        Token token = ~Token{0};
        Thunk thunk = nullptr;
    };
    thread_local std::array<Known, 16> known;
    Known& entry = known[(token >> 4) % known.size()];
    if (entry.token == token) return entry.thunk;
    const auto thunk = reinterpret_cast<Thunk>(ModuleTable::instance().code_of(token));
    if (ThunkTable::instance().find(thunk) == nullptr) {
        throw Error(
            "a task names a function that is not registered here; the worker runs another program, or its memory was "
            "overwritten");
    }
    entry = {token, thunk};
    return thunk;
}

const ThunkRegistration* find_thunk(Token token) noexcept {
    try {
        return ThunkTable::instance().find(reinterpret_cast<Thunk>(ModuleTable::instance().code_of(token)));
    } catch (const std::exception&) {
        return nullptr;
    }
}

}    // namespace multihull::detail
