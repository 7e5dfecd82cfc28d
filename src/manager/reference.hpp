// What a proxy holds: one reference of this process's to an object of a manager's server.
//
// Thread-safe. Shared by all proxies of the object in this process that come from one another. See "References" in README.md.
//
// Invariants
// (1) While it lives the server counts one reference of this process's, from the moment it was made; in a forked child from its first use.
// (2) One that was lent to a message lives until the message is known to have been read; a process that ends before leaves it to the
//     server.
#pragma once

#include "manager/client.hpp"

#include <multihull/codec.hpp>
#include <multihull/detail/shared_object.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace multihull::detail {

/// Which object, and how it is called upon.
struct ProxyTarget {
    std::string type_id{};                 ///< As it was created: `dict`, `list`, a registered name.
    std::string ident{};                   ///< The server's name for it.
    std::vector<std::string> exposed{};    ///< Its methods.
};

class ProxyReference : public std::enable_shared_from_this<ProxyReference> {
public:
    /// Takes over a reference that the server has counted already.
    static std::shared_ptr<ProxyReference> adopt(std::shared_ptr<ManagerClient> client, ProxyTarget target);
    /// Counts one. Throws ObjectGone when the object exists no more, ManagerGone.
    static std::shared_ptr<ProxyReference> acquire(std::shared_ptr<ManagerClient> client, ProxyTarget target);

    ProxyReference(std::shared_ptr<ManagerClient> client, ProxyTarget target);
    ProxyReference(const ProxyReference&) = delete;
    ProxyReference& operator=(const ProxyReference&) = delete;
    ~ProxyReference();

    const ProxyTarget& target() const noexcept { return target_; }
    /// The client of this process. Counts a reference first where this process has none of its own yet.
    std::shared_ptr<ManagerClient> client();
    const std::string& address() const noexcept { return address_; }
    const std::string& authkey() const noexcept { return authkey_; }

    void encode(Writer& writer);
    static std::shared_ptr<ProxyReference> decode(Reader& reader);

private:
    void own();
    void lend(Writer& writer);
    void take_over() noexcept;
    static void sweep_loans() noexcept;
    friend void leave_loans() noexcept;

    const ProxyTarget target_;
    const std::string address_;
    const std::string authkey_;
    std::shared_ptr<ManagerClient> client_;    // changed under the loans' lock, by a forked child's first use
    std::atomic<std::uint32_t> generation_;    // the process whose reference it is
    bool counted_ = false;                     // there is a reference to give back
    ObjectRef anchor_;                         // named by the messages it was lent to
};

}    // namespace multihull::detail
