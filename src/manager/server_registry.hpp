// What a server keeps, by the ids that clients name it with, and who has references to it.
//
// Thread-safe. A referent's destructor runs in the thread that gives up its last reference, without any lock.
//
// Invariants
// (1) A referent is kept while its count is not 0, or while a proxy of it may lie in another referent (it is stashed).
// (2) The counts of all owners add up to no more than the count: the rest is nobody's.
// (3) No id is used twice, nor by two servers: they count from a random number on.
#pragma once

#include <multihull/detail/manager_type.hpp>

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

namespace multihull::detail {

/// Who counts: a connection or a process by its number; 0 for nobody.
using Owner = std::uint64_t;

/// A referent under its id.
struct Kept {
    std::string ident;
    const ManagerType* type;
    std::shared_ptr<Referent> referent;
};

class Registry {
public:
    Registry();

    /// Keeps a new referent, with one reference of the owner's.
    std::shared_ptr<const Kept> add(const ManagerType& type, std::shared_ptr<Referent> referent, Owner owner);
    /// Null where there is none of that id.
    std::shared_ptr<const Kept> find(std::string_view ident) const;
    /// False where there is none of that id.
    bool incref(std::string_view ident, Owner owner);

    enum class Dropped { unknown, some_left, owners_last };
    /// Takes a reference away; one of nobody's where the owner has none.
    Dropped decref(std::string_view ident, Owner owner);
    /// Makes one of the owner's references nobody's; false where it has none.
    bool lend(std::string_view ident, Owner owner);
    /// A proxy of it was put into a referent: it is kept from now on, as long as it can be reached. False where there is none of that id.
    bool stash(std::string_view ident);
    /// One that lives as long as the server, and with it what lies in it.
    void add_root(std::shared_ptr<Referent> referent);
    /// The owner is gone: takes away all that it has.
    void release(Owner owner);

    /// How many have references.
    std::size_t size() const;
    /// A line or two for each, as Python's server words it.
    std::string debug_info() const;
    /// Changes whenever something is no longer kept.
    std::uint64_t removals() const noexcept { return removals_.load(std::memory_order_acquire); }

    /// Forgets what only lay in referents that are gone, or in a cycle of them, for so long that nobody can be about to take a reference.
    void collect(std::int64_t now_ns, std::int64_t grace_ns);

private:
    struct Entry {
        std::shared_ptr<const Kept> kept;
        std::uint64_t count = 0;
        bool stashed = false;
        std::int64_t unreachable_since = 0;    // 0: it was reachable
    };
    struct TextHash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>()(text); }
    };
    using Entries = std::unordered_map<std::string, Entry, TextHash, std::equal_to<>>;
    using Counts = std::map<std::string, std::uint64_t, std::less<>>;

    // Takes `count` references away; what is to be destroyed is answered.
    std::shared_ptr<const Kept> drop(Entries::iterator entry, std::uint64_t count);

    mutable std::mutex mutex_;
    Entries entries_;
    std::unordered_map<Owner, Counts> owners_;
    std::set<std::shared_ptr<Referent>> roots_;
    std::uint64_t next_ident_;
    std::size_t unreferenced_ = 0;    // entries whose count is 0
    std::atomic<std::uint64_t> removals_{0};
};

/// The id that a proxy, or a Token, holds; empty where it is neither.
std::string_view ident_of(const Object& object);
/// Calls the visitor with each proxy, and each Token, that a value holds, however deep.
void for_each_proxy(const Object& object, const std::function<void(const Object& proxy)>& visitor);

}    // namespace multihull::detail
