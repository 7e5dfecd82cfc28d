#include "manager/server_registry.hpp"

#include "os/fd.hpp"

#include <algorithm>
#include <sys/random.h>
#include <vector>

namespace multihull::detail {

namespace {

constexpr const char* kManagers = "multiprocessing.managers";

// As long for every number.
std::string hexadecimal(std::uint64_t number) {
    std::string digits(16, '0');
    for (auto digit = digits.rbegin(); number != 0; number >>= 4) *digit++ = "0123456789abcdef"[number & 15];
    return digits;
}

}    // namespace

std::string_view ident_of(const Object& object) {
    if (object.type() != Object::Type::instance) return {};
    const Object::Instance& instance = object.as_instance();
    if (object.is_a(kManagers, "Token")) {
        if (instance.state.type() != Object::Type::tuple || instance.state.size() != 3) return {};
        const Object& ident = instance.state.elements()[2];
        return ident.type() == Object::Type::str ? std::string_view(ident.as_str()) : std::string_view();
    }
    if (!object.is_a(kManagers, "RebuildProxy") || instance.args.is_none() || instance.args.size() < 2) return {};
    const Object& token = instance.args.elements()[1];
    return token.is_a(kManagers, "Token") ? ident_of(token) : std::string_view();
}

void for_each_proxy(const Object& object, const std::function<void(const Object& proxy)>& visitor) {
    switch (object.type()) {
        case Object::Type::list:
        case Object::Type::tuple:
        case Object::Type::set:
        case Object::Type::dict:
            for (const Object& element : object) for_each_proxy(element, visitor);
            if (object.type() != Object::Type::dict) return;
            for (const Object& element : object.values()) for_each_proxy(element, visitor);
            return;
        case Object::Type::instance: {
            if (!ident_of(object).empty()) return visitor(object);
            const Object::Instance& instance = object.as_instance();
            for_each_proxy(instance.args, visitor);
            return for_each_proxy(instance.state, visitor);
        }
        default:
            return;
    }
}

Registry::Registry() {
    if (::getrandom(&next_ident_, sizeof next_ident_, 0) != sizeof next_ident_) os::throw_errno("getrandom");
    next_ident_ >>= 4;    // a server will never count to the end
}

std::shared_ptr<const Kept> Registry::add(const ManagerType& type, std::shared_ptr<Referent> referent, Owner owner) {
    const std::lock_guard guard(mutex_);
    const std::string ident = hexadecimal(next_ident_++);
    auto kept = std::make_shared<const Kept>(Kept{ident, &type, std::move(referent)});
    entries_.emplace(ident, Entry{.kept = kept, .count = 1});
    if (owner != 0) ++owners_[owner][ident];
    return kept;
}

std::shared_ptr<const Kept> Registry::find(std::string_view ident) const {
    const std::lock_guard guard(mutex_);
    const auto entry = entries_.find(ident);
    return entry == entries_.end() ? nullptr : entry->second.kept;
}

bool Registry::incref(std::string_view ident, Owner owner) {
    const std::lock_guard guard(mutex_);
    const auto entry = entries_.find(ident);
    if (entry == entries_.end()) return false;
    if (entry->second.count++ == 0) --unreferenced_;
    entry->second.unreachable_since = 0;
    if (owner != 0) ++owners_[owner][entry->first];
    return true;
}

std::shared_ptr<const Kept> Registry::drop(Entries::iterator entry, std::uint64_t count) {
    if (entry->second.count == 0) return nullptr;
    entry->second.count -= std::min(entry->second.count, count);
    if (entry->second.count != 0) return nullptr;
    if (entry->second.stashed) {
        ++unreferenced_;
        return nullptr;
    }
    std::shared_ptr<const Kept> kept = std::move(entry->second.kept);
    entries_.erase(entry);
    removals_.fetch_add(1, std::memory_order_release);
    return kept;
}

Registry::Dropped Registry::decref(std::string_view ident, Owner owner) {
    std::shared_ptr<const Kept> last;    // destroyed without the lock
    const std::lock_guard guard(mutex_);
    const auto entry = entries_.find(ident);
    if (entry == entries_.end() || entry->second.count == 0) return Dropped::unknown;
    Dropped dropped = Dropped::some_left;
    if (const auto counts = owners_.find(owner); counts != owners_.end()) {
        if (const auto count = counts->second.find(ident); count != counts->second.end() && --count->second == 0) {
            counts->second.erase(count);
            if (counts->second.empty()) owners_.erase(counts);
            dropped = Dropped::owners_last;
        }
    }
    last = drop(entry, 1);
    return dropped;
}

bool Registry::lend(std::string_view ident, Owner owner) {
    const std::lock_guard guard(mutex_);
    const auto counts = owners_.find(owner);
    if (counts == owners_.end()) return false;
    const auto count = counts->second.find(ident);
    if (count == counts->second.end()) return false;
    if (--count->second == 0) counts->second.erase(count);
    if (counts->second.empty()) owners_.erase(counts);
    return true;
}

bool Registry::stash(std::string_view ident) {
    const std::lock_guard guard(mutex_);
    const auto entry = entries_.find(ident);
    if (entry == entries_.end()) return false;
    entry->second.stashed = true;
    entry->second.unreachable_since = 0;
    return true;
}

void Registry::release(Owner owner) {
    std::vector<std::shared_ptr<const Kept>> last;
    const std::lock_guard guard(mutex_);
    const auto counts = owners_.find(owner);
    if (counts == owners_.end()) return;
    for (const auto& [ident, count] : counts->second) {
        if (const auto entry = entries_.find(ident); entry != entries_.end()) last.push_back(drop(entry, count));
    }
    owners_.erase(counts);
}

std::size_t Registry::size() const {
    const std::lock_guard guard(mutex_);
    return entries_.size() - unreferenced_;
}

std::string Registry::debug_info() const {
    std::vector<std::pair<std::shared_ptr<const Kept>, std::uint64_t>> all;
    {
        const std::lock_guard guard(mutex_);
        for (const auto& [ident, entry] : entries_) {
            if (entry.count != 0) all.emplace_back(entry.kept, entry.count);
        }
    }
    std::ranges::sort(all, {}, [](const auto& each) -> const std::string& { return each.first->ident; });
    std::string text;
    for (const auto& [kept, count] : all) {
        std::string shown = kept->referent->repr();
        std::size_t end = std::min<std::size_t>(shown.size(), 75);
        while (end > 0 && end < shown.size() && (static_cast<unsigned char>(shown[end]) & 0xc0U) == 0x80U) --end;
        shown.resize(end);    // with no half character, which could not be sent
        text += (text.empty() ? "  " : "\n  ") + kept->ident + ":       refcount=" + std::to_string(count) + "\n    " +
                shown;
    }
    return text;
}

void Registry::add_root(std::shared_ptr<Referent> referent) {
    const std::lock_guard guard(mutex_);
    roots_.insert(std::move(referent));
}

// Everything that has references, what lies in it, and so on; the rest, which is stashed, waits for the end of its grace.
void Registry::collect(std::int64_t now_ns, std::int64_t grace_ns) {
    std::vector<std::shared_ptr<const Kept>> forgotten;
    const std::lock_guard guard(mutex_);
    if (unreferenced_ == 0) return;
    std::vector<const Entry*> to_visit;
    std::unordered_map<std::string_view, bool> reached;
    for (const auto& [ident, entry] : entries_) {
        if (entry.count == 0) continue;
        reached.emplace(ident, true);
        to_visit.push_back(&entry);
    }
    const auto visit = [&](Referent& referent) {
        referent.visit([&](const Object& value) {
            for_each_proxy(value, [&](const Object& proxy) {
                const auto inner = entries_.find(ident_of(proxy));
                if (inner != entries_.end() && reached.emplace(inner->first, true).second) {
                    to_visit.push_back(&inner->second);
                }
            });
        });
    };
    for (const auto& root : roots_) visit(*root);
    while (!to_visit.empty()) {
        const Entry& entry = *to_visit.back();
        to_visit.pop_back();
        visit(*entry.kept->referent);
    }
    for (auto entry = entries_.begin(); entry != entries_.end();) {
        if (reached.contains(entry->first)) {
            entry->second.unreachable_since = 0;
        } else if (entry->second.unreachable_since == 0) {
            entry->second.unreachable_since = now_ns;
        } else if (now_ns - entry->second.unreachable_since >= grace_ns) {
            forgotten.push_back(std::move(entry->second.kept));
            entry = entries_.erase(entry);
            --unreferenced_;
            removals_.fetch_add(1, std::memory_order_release);
            continue;
        }
        ++entry;
    }
}

}    // namespace multihull::detail
