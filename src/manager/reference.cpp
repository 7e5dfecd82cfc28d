#include "manager/reference.hpp"

#include "manager/family.hpp"
#include "process/leave_hook.hpp"
#include "process/self.hpp"
#include "shm/objects.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <unordered_map>

namespace multihull::detail {

void leave_loans() noexcept;

namespace {

/// References that messages on their way name, each kept for as long as a message does. Under managers_mutex(). Leaked.
struct Loans {
    std::unordered_map<const ProxyReference*, std::shared_ptr<ProxyReference>> lent;
    std::size_t sweep_at = 16;
};

constinit std::atomic<Loans*> the_loans{nullptr};
// A forked child has lent nothing.
const ForkChildHook kForgetLoans([] { the_loans.store(nullptr); });

// Needs the lock.
Loans& loans() {
    if (the_loans.load() == nullptr) the_loans.store(new Loans);
    return *the_loans.load();
}

Object ident_of(const ProxyTarget& target) { return Object::tuple(std::vector<Object>{Object(target.ident)}); }

bool is_named(const ObjectRef& anchor) noexcept {
    return anchor != nullptr && anchor->head().pins.load(std::memory_order_acquire) != 0;
}

/// What an anchor holds: 1 when its sender has ended, and left its reference in the server to nobody.
std::atomic<std::uint32_t>& left_behind(const ObjectRef& anchor) noexcept {
    return *static_cast<std::atomic<std::uint32_t>*>(object_data(anchor));
}

// This process ends, and messages of its own may still be read: what they name becomes nobody's.
const LeaveHook kLeaveLoans(leave_loans);

// How a message names the object.
enum class Named : std::uint8_t { kept_by_sender, lent };

}    // namespace

ProxyReference::ProxyReference(std::shared_ptr<ManagerClient> client, ProxyTarget target)
    : target_(std::move(target)),
      address_(client->address()),
      authkey_(client->authkey()),
      client_(std::move(client)),
      generation_(0) {}

std::shared_ptr<ProxyReference> ProxyReference::adopt(std::shared_ptr<ManagerClient> client, ProxyTarget target) {
    auto reference = std::make_shared<ProxyReference>(std::move(client), std::move(target));
    reference->counted_ = true;
    reference->generation_.store(fork_generation(), std::memory_order_release);
    return reference;
}

std::shared_ptr<ProxyReference> ProxyReference::acquire(std::shared_ptr<ManagerClient> client, ProxyTarget target) {
    auto reference = std::make_shared<ProxyReference>(std::move(client), std::move(target));
    reference->own();
    return reference;
}

ProxyReference::~ProxyReference() {
    if (counted_ && generation_.load(std::memory_order_acquire) == fork_generation()) {
        try {
            client_->control("decref", ident_of(target_));
        } catch (const std::exception&) {
            // The server is gone, and the object with it.
        }
    }
    sweep_loans();
}

std::shared_ptr<ManagerClient> ProxyReference::client() {
    if (generation_.load(std::memory_order_acquire) != fork_generation()) own();
    return client_;
}

void ProxyReference::own() {
    auto fresh = ManagerClient::of(address_, authkey_);
    fresh->control("incref", ident_of(target_));
    std::unique_lock lock(managers_mutex());
    if (generation_.load(std::memory_order_relaxed) != fork_generation()) {
        client_.swap(fresh);
        counted_ = true;
        generation_.store(fork_generation(), std::memory_order_release);
        // What was there before is ended without the lock.
        lock.unlock();
    } else {
        lock.unlock();
        fresh->control("decref", ident_of(target_));    // another thread was faster
    }
}

void ProxyReference::encode(Writer& writer) {
    detail::encode(writer, address_);
    detail::encode(writer, authkey_);
    detail::encode(writer, target_.type_id);
    detail::encode(writer, target_.ident);
    detail::encode(writer, target_.exposed);
    client();    // a forked child's own
    if (writer.keep(shared_from_this())) {
        writer.put(Named::kept_by_sender);
    } else {
        writer.put(Named::lent);
        writer.put(FamilyId::own());
        lend(writer);
    }
}

void ProxyReference::lend(Writer& writer) {
    sweep_loans();
    ObjectRef fresh;
    ObjectRef anchor;
    {
        const std::lock_guard lock(managers_mutex());
        anchor = anchor_;
    }
    if (anchor == nullptr) fresh = shm::make_object(shm::ObjectKind::proxy, sizeof(std::atomic<std::uint32_t>));
    {
        const std::lock_guard lock(managers_mutex());
        if (anchor_ == nullptr) anchor_ = fresh;
        anchor = anchor_;
    }
    encode_object(writer, anchor);
    const std::lock_guard lock(managers_mutex());
    loans().lent.emplace(this, shared_from_this());
}

// Ends the loans whose messages have been read. Not each time, where there are many.
void ProxyReference::sweep_loans() noexcept {
    std::vector<std::shared_ptr<ProxyReference>> ended;    // after the lock: they say so to their servers
    const std::lock_guard lock(managers_mutex());
    if (the_loans.load() == nullptr) return;
    Loans& all = loans();
    if (all.lent.size() > 16 && all.lent.size() < all.sweep_at) return;
    for (auto entry = all.lent.begin(); entry != all.lent.end();) {
        if (is_named(entry->second->anchor_)) {
            ++entry;
        } else {
            ended.push_back(std::move(entry->second));
            entry = all.lent.erase(entry);
        }
    }
    all.sweep_at = 2 * all.lent.size();
}

void leave_loans() noexcept {
    ProxyReference::sweep_loans();
    std::vector<std::shared_ptr<ProxyReference>> left;
    {
        const std::lock_guard lock(managers_mutex());
        if (the_loans.load() == nullptr) return;
        for (auto& [address, reference] : loans().lent) left.push_back(std::move(reference));
        loans().lent.clear();
    }
    for (const auto& reference : left) {
        try {
            const auto client = reference->client();
            if (client->is_multihull()) client->control("lend", ident_of(reference->target()));
            reference->counted_ = false;
            left_behind(reference->anchor_).store(1, std::memory_order_release);
        } catch (const std::exception&) {
            // The server is gone.
        }
    }
}

void ProxyReference::take_over() noexcept {
    try {
        client_->control("decref", ident_of(target_));
    } catch (const std::exception&) {
        // The server is gone.
    }
}

std::shared_ptr<ProxyReference> ProxyReference::decode(Reader& reader) {
    auto address = detail::decode<std::string>(reader);
    auto authkey = detail::decode<std::string>(reader);
    ProxyTarget target;
    target.type_id = detail::decode<std::string>(reader);
    target.ident = detail::decode<std::string>(reader);
    target.exposed = detail::decode<std::vector<std::string>>(reader);
    auto reference = std::make_shared<ProxyReference>(ManagerClient::of(address, authkey), std::move(target));
    try {
        // Before the message's own reference ends.
        reference->own();
    } catch (const Error&) {
        // Its server is gone, or the object is. Whoever uses the proxy is told.
    }
    const auto named = reader.get<Named>();
    if (named == Named::kept_by_sender) return reference;
    if (named != Named::lent) throw_damaged("it names an object of a manager in no known way");
    if (reader.get<FamilyId>() == FamilyId::own()) {
        const ObjectRef anchor = decode_object(reader, 1U << static_cast<std::uint32_t>(shm::ObjectKind::proxy));
        // The last message takes over what its sender left: the server takes this process's reference away, and leaves it nobody's.
        const bool inherits =
            reference->counted_ && !is_named(anchor) && left_behind(anchor).exchange(0, std::memory_order_acq_rel) == 1;
        if (inherits) reference->take_over();
    } else {
        reader.view(kEncodedObject);    // of another family, which has the object's anchor
    }
    return reference;
}

}    // namespace multihull::detail
