#include "process/symbolize.hpp"

#include <cxxabi.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwelf.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace multihull::detail {
namespace {

struct Free {
    void operator()(void* memory) const noexcept { std::free(memory); }
};

using BuildId = std::vector<unsigned char>;

BuildId build_id_of(Dwfl_Module* module) {
    const unsigned char* bits = nullptr;
    GElf_Addr address = 0;
    const int size = dwfl_module_build_id(module, &bits, &address);
    return size > 0 ? BuildId(bits, bits + size) : BuildId{};
}

BuildId build_id_of(int fd) {
    const std::unique_ptr<Dwarf, decltype(&dwarf_end)> dwarf(dwarf_begin(fd, DWARF_C_READ), &dwarf_end);
    const void* bits = nullptr;
    const ssize_t size = dwarf ? dwelf_elf_gnu_build_id(dwarf_getelf(dwarf.get()), &bits) : -1;
    const auto* const bytes = static_cast<const unsigned char*>(bits);
    return size > 0 ? BuildId(bytes, bytes + size) : BuildId{};
}

std::string path_for(const BuildId& id) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string path = "/usr/lib/debug/.build-id/";
    for (std::size_t i = 0; i < id.size(); ++i) {
        path += kDigits[id[i] >> 4];
        path += kDigits[id[i] & 15];
        if (i == 0) {
            path += '/';
        }
    }
    return path + ".debug";
}

int open_found(const std::string& path, char** found) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        *found = strdup(path.c_str());
    }
    return fd;
}

// libdwfl's own search asks the servers in DEBUGINFOD_URLS. This one looks where distributions put separate debug
// information, and takes only what has the module's build id.
int find_debug_file(Dwfl_Module* module, void**, const char*, Dwarf_Addr, const char* module_file, const char* link,
                    GElf_Word, char** found) {
    try {
        const BuildId id = build_id_of(module);
        if (link != nullptr && link[0] == '/') {
            // What several debug files share, named by one that was already found by its build id.
            return open_found(link, found);
        }
        if (id.size() < 2) {
            return -1;
        }
        std::vector<std::string> paths{path_for(id)};
        if (link != nullptr && module_file != nullptr) {
            const std::string_view file = module_file;
            const std::string folder(file.substr(0, file.rfind('/') + 1));
            paths.push_back(folder + link);
            paths.push_back(folder + ".debug/" + link);
            paths.push_back("/usr/lib/debug" + folder + link);
        }
        for (const std::string& path : paths) {
            const int fd = open_found(path, found);
            if (fd >= 0 && build_id_of(fd) == id) {
                return fd;
            }
            if (fd >= 0) {
                close(fd);
                std::free(std::exchange(*found, nullptr));
            }
        }
    } catch (const std::bad_alloc&) {
        // Then there are no lines; an exception must not pass through libdwfl.
    }
    return -1;
}

// Without the version that a symbol may have, and what the optimizer adds to the names of the parts that it splits off,
// as in `main.cold`.
std::string demangle(std::string_view symbol) {
    const std::string name(symbol.substr(0, symbol.find('@', 1)));
    int status = 0;
    const std::unique_ptr<char, Free> readable(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status));
    if (status != 0 || !readable) {
        return name.substr(0, name.find('.', 1));
    }
    const std::string function = readable.get();
    return function.substr(0, function.find(" [clone "));
}

std::string name_of(Dwarf_Die* function) {
    Dwarf_Attribute attribute;
    const char* name = nullptr;
    if (dwarf_attr_integrate(function, DW_AT_linkage_name, &attribute) != nullptr) {
        name = dwarf_formstring(&attribute);
    }
    if (name == nullptr) {
        name = dwarf_diename(function);
    }
    return name != nullptr ? demangle(name) : std::string();
}

struct Location {
    std::string file;
    int line = 0;
};

Location location_of(Dwarf_Die* unit, Dwarf_Addr address) {
    Location location;
    if (Dwarf_Line* const line = dwarf_getsrc_die(unit, address)) {
        const char* const file = dwarf_linesrc(line, nullptr, nullptr);
        location.file = file != nullptr ? file : "";
        dwarf_lineno(line, &location.line);
    }
    return location;
}

Dwarf_Word number_of(Dwarf_Die* die, unsigned int name) {
    Dwarf_Attribute attribute;
    Dwarf_Word value = 0;
    if (dwarf_attr(die, name, &attribute) == nullptr || dwarf_formudata(&attribute, &value) != 0) {
        return 0;
    }
    return value;
}

// Where an inlined function was called.
Location call_location_of(Dwarf_Die* unit, Dwarf_Die* inlined) {
    Location location;
    Dwarf_Files* files = nullptr;
    std::size_t count = 0;
    const Dwarf_Word file = number_of(inlined, DW_AT_call_file);
    if (dwarf_getsrcfiles(unit, &files, &count) == 0 && file < count) {
        const char* const name = dwarf_filesrc(files, file, nullptr, nullptr);
        location.file = name != nullptr ? name : "";
        location.line = static_cast<int>(number_of(inlined, DW_AT_call_line));
    }
    return location;
}

// Whether an entry may have the address inside of it: those for namespaces and types have no addresses of their own.
bool may_contain(Dwarf_Die* die, Dwarf_Addr address) {
    switch (dwarf_tag(die)) {
        case DW_TAG_subprogram:
        case DW_TAG_inlined_subroutine:
        case DW_TAG_lexical_block:
        case DW_TAG_try_block:
        case DW_TAG_catch_block:
            return dwarf_haspc(die, address) > 0;
        case DW_TAG_namespace:
        case DW_TAG_module:
            return true;
        default:
            return false;
    }
}

// Adds the functions around an address, outermost first: the one that the compiler made, and those that it inlined
// there. True where there is one. (dwarf_getscopes() would follow an inlined function to where it was defined.)
bool add_functions(Dwarf_Die* parent, Dwarf_Addr address, std::vector<Dwarf_Die>& functions) {
    Dwarf_Die child;
    if (dwarf_child(parent, &child) != 0) {
        return false;
    }
    do {
        if (!may_contain(&child, address)) {
            continue;
        }
        const int tag = dwarf_tag(&child);
        const bool is_function = tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine;
        if (is_function) {
            functions.push_back(child);
        }
        if (add_functions(&child, address, functions) || is_function) {
            return true;
        }
    } while (dwarf_siblingof(&child, &child) == 0);
    return false;
}

}    // namespace

class Symbolizer {
public:
    Symbolizer(pid_t process, Symbolizer* inherited)
        : process_(process), inherited_(inherited), dwfl_(dwfl_begin(&kCallbacks), &dwfl_end) {}

    pid_t process() const noexcept { return process_; }

    std::vector<Frame> frames(std::span<const std::uintptr_t> addresses) {
        const std::lock_guard guard(mutex_);
        refresh();
        std::vector<Frame> result;
        for (const std::uintptr_t address : addresses) {
            add_frames(address, result);
        }
        return result;
    }

private:
    // What was loaded and unloaded so far.
    using Loads = std::pair<unsigned long long, unsigned long long>;

    static Loads current_loads() {
        Loads loads;
        dl_iterate_phdr(
            [](dl_phdr_info* info, std::size_t, void* argument) {
                *static_cast<Loads*>(argument) = {info->dlpi_adds, info->dlpi_subs};
                return 1;
            },
            &loads);
        return loads;
    }

    void refresh() {
        // What another process has loaded is read anew each time.
        const Loads loads = process_ == getpid() ? current_loads() : Loads(loads_.first + 1, 0);
        if (dwfl_ && loads != loads_) {
            dwfl_report_begin(dwfl_.get());
            dwfl_linux_proc_report(dwfl_.get(), process_);
            dwfl_report_end(dwfl_.get(), nullptr, nullptr);
            loads_ = loads;
        }
    }

    // clang writes no table of the addresses that each unit covers, so that every unit may have to be asked.
    static Dwarf_Die* unit_at(Dwfl_Module* module, std::uintptr_t address, Dwarf_Addr* bias) {
        if (Dwarf_Die* const unit = dwfl_module_addrdie(module, address, bias)) {
            return unit;
        }
        Dwarf_Die* unit = nullptr;
        while ((unit = dwfl_module_nextcu(module, unit, bias)) != nullptr) {
            if (dwarf_haspc(unit, address - *bias) > 0) {
                return unit;
            }
        }
        return nullptr;
    }

    void add_frames(std::uintptr_t address, std::vector<Frame>& result) {
        Frame frame;
        frame.address = address;
        Dwfl_Module* const module = dwfl_ ? dwfl_addrmodule(dwfl_.get(), address) : nullptr;
        const char* file = nullptr;
        const char* name = nullptr;
        Dwarf_Addr end = 0;
        if (module != nullptr) {
            name = dwfl_module_info(module, nullptr, nullptr, &end, nullptr, nullptr, &file, nullptr);
        }
        // libdwfl takes what lies behind the last module to be part of it.
        if (address >= end) {
            result.push_back(std::move(frame));
            return;
        }
        frame.module = file != nullptr ? file : name != nullptr ? name : "";
        Dwarf_Addr bias = 0;
        dwfl_module_getelf(module, &bias);
        frame.module_offset = address - bias;
        GElf_Off offset = 0;
        GElf_Sym symbol;
        const char* const function = dwfl_module_addrinfo(module, address, &offset, &symbol, nullptr, nullptr, nullptr);
        // Debug information still tells of functions that the linker dropped, as if they were at the module's start.
        if (function != nullptr) {
            if (Dwarf_Die* const unit = unit_at(module, address, &bias)) {
                add_inlined(frame, unit, address - bias, result);
            }
            frame.function = demangle(function);
        }
        result.push_back(std::move(frame));
    }

    // Adds the inlined functions at the address, and leaves in `frame` the location of the function they are in.
    static void add_inlined(Frame& frame, Dwarf_Die* unit, Dwarf_Addr address, std::vector<Frame>& result) {
        Location location = location_of(unit, address);
        std::vector<Dwarf_Die> functions;
        add_functions(unit, address, functions);
        for (std::size_t i = functions.size(); i-- > 1;) {
            Frame inlined = frame;
            inlined.function = name_of(&functions[i]);
            inlined.file = std::move(location.file);
            inlined.line = location.line;
            result.push_back(std::move(inlined));
            location = call_location_of(unit, &functions[i]);
        }
        frame.file = std::move(location.file);
        frame.line = location.line;
    }

    static constexpr Dwfl_Callbacks kCallbacks{dwfl_linux_proc_find_elf, find_debug_file, nullptr, nullptr};

    const pid_t process_;
    [[maybe_unused]] Symbolizer* const inherited_;    // Kept only to be reachable.
    std::mutex mutex_;
    const std::unique_ptr<Dwfl, decltype(&dwfl_end)> dwfl_;
    Loads loads_{0, 0};
};

namespace {

// The process's one symbolizer, made on first use and never destroyed. A forked child makes its own, because another
// thread may have been inside the parent's when it forked; it keeps that one, untouched, so that it is no leak.
Symbolizer& symbolizer() {
    static std::atomic<Symbolizer*> current{nullptr};
    Symbolizer* known = current.load(std::memory_order_acquire);
    while (known == nullptr || known->process() != getpid()) {
        auto fresh = std::make_unique<Symbolizer>(getpid(), known);
        if (current.compare_exchange_strong(known, fresh.get(), std::memory_order_acq_rel)) {
            return *fresh.release();
        }
    }
    return *known;
}

}    // namespace

std::vector<Frame> symbolize(std::span<const std::uintptr_t> addresses) { return symbolizer().frames(addresses); }

RemoteSymbols::RemoteSymbols(pid_t process) : symbols_(std::make_unique<Symbolizer>(process, nullptr)) {}
RemoteSymbols::RemoteSymbols(RemoteSymbols&&) noexcept = default;
RemoteSymbols& RemoteSymbols::operator=(RemoteSymbols&&) noexcept = default;
RemoteSymbols::~RemoteSymbols() = default;

std::vector<Frame> RemoteSymbols::frames(std::span<const std::uintptr_t> addresses) {
    return symbols_->frames(addresses);
}

}    // namespace multihull::detail
