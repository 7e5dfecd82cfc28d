// Where file descriptors wait while the bytes that speak of them travel through shared memory.
//
// Each process can keep descriptors for others, in its own table, served by its supervisor over an abstract unix socket whose name
// only the family can read. Whoever decodes the bytes takes the descriptor by its ticket. See "Descriptors on their way" in
// src/channel/README.md for what follows when either side dies.
//
// Thread-safe. A forked child keeps nothing of what its parent keeps.
//
// Invariants
// (1) A descriptor is taken at most once; from then on the keeper holds no copy of it.
// (2) What is kept under a scope is gone when forget(scope) has returned.
// (3) The table is private memory of the keeper. Others change it by messages from processes of the same user that know the ticket.
#pragma once

#include "os/fd.hpp"

#include <multihull/detail/codec_bytes.hpp>

#include <cstdint>
#include <sys/types.h>

namespace multihull::detail {

/// What is forgotten together: the descriptors of one task, say. All zero for what lives until it is taken.
struct ExchangeScope {
    std::uint64_t owner = 0;
    std::uint64_t item = 0;

    bool operator==(const ExchangeScope&) const = default;
    explicit operator bool() const noexcept { return owner != 0 || item != 0; }
};

/// Where descriptors are left: by default, and by Writers without Attachments, with the family's keeper until they are taken.
struct ExchangeTarget {
    pid_t keeper = 0;    ///< 0: the family's keeper, which lives as long as the family.
    ExchangeScope scope{};
};

/// Leaves descriptors at a target of its own choice.
class ExchangeAttachments final : public Attachments {
public:
    explicit ExchangeAttachments(const ExchangeTarget& target) noexcept : target_(target) {}
    DescriptorTicket put(int descriptor) override;
    int take(const DescriptorTicket& ticket) override;

private:
    ExchangeTarget target_;
};

/// Makes sure that other processes can reach what this one keeps. Throws StartError when they can't.
void serve_descriptors();
/// Makes this process the family's keeper if it has none. To be called before processes are started: the first that starts others is
/// the one that outlives them.
void keep_descriptors_of_family();

/// Keeps a duplicate of the descriptor in this process.
DescriptorTicket keep_descriptor(int descriptor, const ExchangeScope& scope);
/// Has a duplicate kept elsewhere; it is there when this returns.
DescriptorTicket deposit_descriptor(int descriptor, const ExchangeTarget& target);
/// Takes what the ticket stands for, wherever it is kept. Throws CodecError when it is not there.
os::Fd withdraw_descriptor(const DescriptorTicket& ticket);

/// What was kept here under one scope is kept under another from now on; nothing must be kept under that yet.
void rescope_descriptors(const ExchangeScope& from, const ExchangeScope& to) noexcept;
/// Closes what this process keeps under the scope. Costs an atomic load where nothing is kept under any.
void forget_descriptors(const ExchangeScope& scope) noexcept;
/// How many descriptors this process keeps, for tests.
std::size_t kept_descriptors() noexcept;

}    // namespace multihull::detail
