#include "mpi/meeting.hpp"

#include "os/process.hpp"
#include "pool/fetched_call.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sched.h>
#include <span>
#include <sys/stat.h>
#include <typeinfo>
#include <unistd.h>

namespace multihull::mpi {

namespace {

using multihull::detail::ModulePlace;

constexpr std::uint64_t kMagic = 0x6d756c7469687033;    // changes with what is said at a meeting

std::uint64_t hash(std::uint64_t hash, const void* data, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

// One boot of one kernel, and one namespace of processes: pids mean the same.
std::uint64_t this_machine() {
    std::string boot;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
    struct stat space {};
    ::stat("/proc/self/ns/pid", &space);
    return hash(hash(0xcbf29ce484222325, boot.data(), boot.size()), &space.st_ino, sizeof space.st_ino);
}

std::uint64_t this_cpu_set() {
    cpu_set_t set;
    CPU_ZERO(&set);
    ::sched_getaffinity(0, sizeof set, &set);
    return hash(0xcbf29ce484222325, &set, sizeof set);
}

template <class T>
std::span<std::byte> bytes_of(T& value) {
    return std::as_writable_bytes(std::span(&value, 1));
}

std::string sentence_about(const Facts& here, const Facts& there, int rank) {
    return "rank " + std::to_string(rank) + " on " + there.host + " runs another build of this program (" + there.path +
           ") than rank 0 on " + here.host + " (" + here.path +
           "): functions are known by their places in the program, so copy one and the same file to every machine";
}

std::uintptr_t translated(std::uintptr_t address, const std::vector<ModulePlace>& there,
                          const std::vector<ModulePlace>& here) {
    for (const ModulePlace& module : there) {
        if (address < module.begin || address >= module.end) continue;
        for (const ModulePlace& own : here) {
            if (own.identity == module.identity) return own.begin + (address - module.begin);
        }
    }
    return 0;
}

// Nothing from another machine, nor where the system keeps this process, by a user or a container of its own, from looking.
Reach reach_to(const Facts& rank_0, const Facts& own) {
    if (rank_0.machine != own.machine || rank_0.region.pid == 0) return Reach::none;
    try {
        shm::map_foreign_region(rank_0.region);
    } catch (const std::exception&) {
        return Reach::none;
    }
    const bool all = multihull::detail::can_fetch_from(rank_0.pid, rank_0.some_address);
    return all ? Reach::all_memory : Reach::shared_memory;
}

/// What a rank finds of rank 0's.
struct Found {
    Reach reach = Reach::none;
    bool bells = false;
};

// None where there is nobody to ring for, or not all can hear.
Bells make_bells(const std::vector<Facts>& ranks) {
    const bool together = std::ranges::all_of(ranks, [&](const Facts& facts) {
        return facts.machine == ranks.front().machine && facts.region.pid != 0;
    });
    if (ranks.size() < 2 || !together || !Bells::supported()) return {};
    try {
        return Bells(ranks.size(), ranks.front().region.family);
    } catch (const std::exception&) {
        return {};
    }
}

Bells find_bells(const Facts& rank_0, int ranks) {
    if (rank_0.bells.descriptor < 0 || !Bells::supported()) return {};
    try {
        return Bells(static_cast<std::size_t>(ranks), rank_0.bells);
    } catch (const std::exception&) {
        return {};
    }
}

}    // namespace

Arrival arrive() {
    Arrival arrival;
    arrival.numbers = multihull::detail::module_numbers();
    arrival.modules = multihull::detail::module_places();
    Facts& facts = arrival.facts;
    std::memset(static_cast<void*>(&facts), 0, sizeof facts);
    facts.magic = kMagic;
    facts.program = arrival.modules.front().identity;
    facts.machine = this_machine();
    facts.cpus = os::usable_cpus();
    facts.cpu_set = this_cpu_set();
    facts.pid = ::getpid();
    facts.ok = 1;
    facts.region = shm::address_of_own_region();
    facts.bells = {};
    facts.some_address = reinterpret_cast<std::uintptr_t>(&kMagic);
    ::gethostname(facts.host, sizeof facts.host - 1);
    static_cast<void>(::readlink("/proc/self/exe", facts.path, sizeof facts.path - 1));
    return arrival;
}

Meeting meet(Transport& transport, const Arrival& arrival) {
    Meeting meeting;
    const Facts own = arrival.facts;
    const Transport::Bytes all = transport.gather(std::as_bytes(std::span(&own, 1)));
    std::string wrong;
    Facts verdict = own;
    if (transport.rank() == 0) {
        meeting.ranks.resize(static_cast<std::size_t>(transport.size()));
        std::memcpy(static_cast<void*>(meeting.ranks.data()), all.data(), all.size());
        for (int rank = 0; rank < transport.size(); ++rank) {
            const Facts& facts = meeting.ranks[static_cast<std::size_t>(rank)];
            meeting.hosts.emplace_back(facts.host);
            if (facts.magic == own.magic && facts.program == own.program) continue;
            if (wrong.empty()) wrong = sentence_about(own, facts, rank);
        }
        verdict.ok = wrong.empty() ? 1 : 0;
        meeting.bells = make_bells(meeting.ranks);
        verdict.bells = meeting.bells.address();
    }
    transport.broadcast(bytes_of(verdict));
    if (verdict.ok == 0) throw StartError(wrong.empty() ? "this run was refused by rank 0" : wrong);
    if (transport.rank() != 0) {
        meeting.ranks = {verdict};    // what rank 0 said of itself
        meeting.reaches = {Reach::all_memory, reach_to(verdict, own)};
        meeting.bells = find_bells(verdict, transport.size());
    }
    const Found found{transport.rank() == 0 ? Reach::all_memory : meeting.reaches.back(),
                      static_cast<bool>(meeting.bells)};
    const Transport::Bytes answers = transport.gather(std::as_bytes(std::span(&found, 1)));
    std::vector<Found> all_found(answers.size() / sizeof(Found));
    if (!answers.empty()) std::memcpy(all_found.data(), answers.data(), answers.size());
    for (const Found& each : all_found) meeting.reaches.push_back(each.reach);
    bool all_hear = std::ranges::all_of(all_found, &Found::bells);
    transport.broadcast(bytes_of(all_hear));
    if (all_hear) {
        meeting.bells.close_descriptor();
    } else {
        meeting.bells = {};
    }

    std::uint64_t count = arrival.numbers.size();
    transport.broadcast(bytes_of(count));
    std::vector<std::uint64_t> numbers = arrival.numbers;
    numbers.resize(count);
    transport.broadcast(std::as_writable_bytes(std::span(numbers)));

    const auto places = std::as_bytes(std::span(arrival.modules));
    for (const Transport::Bytes& bytes : transport.gather_any({places.begin(), places.end()})) {
        std::vector<ModulePlace> modules(bytes.size() / sizeof(ModulePlace));
        std::memcpy(static_cast<void*>(modules.data()), bytes.data(), modules.size() * sizeof(ModulePlace));
        meeting.modules.push_back(std::move(modules));
    }
    if (transport.rank() != 0) multihull::detail::adopt_module_numbers(0, numbers);
    return meeting;
}

std::uint64_t Meeting::sharing(std::size_t rank) const {
    const Facts& own = ranks[rank];
    return static_cast<std::uint64_t>(std::count_if(ranks.begin(), ranks.end(), [&](const Facts& other) {
        return other.machine == own.machine && other.cpu_set == own.cpu_set;
    }));
}

std::uint32_t Meeting::default_workers(std::size_t rank) const {
    return static_cast<std::uint32_t>(std::max<std::uint64_t>(ranks[rank].cpus / sharing(rank), 1));
}

bool Meeting::crowded(std::size_t rank) const { return ranks[rank].cpus < 2 * sharing(rank); }

std::exception_ptr Meeting::translate(std::uint32_t rank, std::exception_ptr error) const {
    if (rank >= modules.size() || rank == 0) return error;
    const auto stack_here = [&](const Stack& stack) {
        std::vector<std::uintptr_t> addresses;
        for (const std::uintptr_t address : stack.addresses()) {
            if (const auto here = translated(address, modules[rank], modules[0])) addresses.push_back(here);
        }
        return addresses.empty() ? Stack() : Stack(addresses);
    };
    // Of exactly these types: what is derived of one (nested in another) holds more than could be made anew here.
    try {
        std::rethrow_exception(error);
    } catch (const WorkerCrashed& crash) {
        if (typeid(crash) != typeid(WorkerCrashed)) return error;
        CrashReport report = crash.report();
        report.stack = stack_here(report.stack);
        return std::make_exception_ptr(WorkerCrashed(std::move(report)));
    } catch (const CpuTimeExceeded& exceeded) {
        if (typeid(exceeded) != typeid(CpuTimeExceeded)) return error;
        return std::make_exception_ptr(CpuTimeExceeded(exceeded.what(), exceeded.limit(),
                                                       stack_here(exceeded.stack())));
    } catch (const TaskTimeout& timeout) {
        if (typeid(timeout) != typeid(TaskTimeout)) return error;
        return std::make_exception_ptr(TaskTimeout(timeout.what(), timeout.limit(), stack_here(timeout.stack())));
    } catch (const RemoteError& remote) {
        if (typeid(remote) != typeid(RemoteError)) return error;
        return std::make_exception_ptr(RemoteError(remote.type_name(), remote.text(), stack_here(remote.stack())));
    } catch (...) {
        return error;
    }
}

}    // namespace multihull::mpi
