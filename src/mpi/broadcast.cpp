#include "mpi/broadcast.hpp"

#include "mpi/tree.hpp"

#include <multihull/error.hpp>

#include <algorithm>
#include <utility>

namespace multihull::mpi {

namespace {

/// With so few ranks, a value that fits into a packet goes to each at once, with whatever else is sent there: handing it on takes longer.
constexpr std::size_t kFewRanks = 8;

}    // namespace

std::uint64_t Broadcasts::send(multihull::detail::SharedBlock value, std::size_t size) {
    const auto shared = std::make_shared<const ValueBytes>(std::move(value), size);
    const std::lock_guard guard(mutex_);
    const std::uint64_t number = last_ + 1;
    if (!values_.try_add(number, shared)) {
        throw Error("1024 values are broadcast already: drop handles of those that are not needed any more");
    }
    last_ = number;
    const bool to_each = size <= kBulk && world_.size() <= kFewRanks;
    // From the back: the children with the most ranks below them are first.
    for (auto rank = static_cast<std::uint32_t>(world_.size()) - 1; rank > 0; --rank) {
        if (!lost_[rank] && (to_each || from_here(rank))) post(rank, number, shared, !to_each);
    }
    world_.wake();
    return number;
}

// Needs mutex_. Whether a rank gets values from rank 0: as its child, or in place of a parent that is lost.
bool Broadcasts::from_here(std::uint32_t rank) const { return parent_of(rank) == 0 || lost_[parent_of(rank)]; }

// Needs mutex_.
void Broadcasts::post(std::uint32_t rank, std::uint64_t number, const ValuePtr& value, bool hand_on) {
    const std::span<const std::byte> bytes = value->bytes();
    const bool bulk = bytes.size() > kBulk;
    std::vector<World::Bulk> bulks;
    if (bulk) bulks.push_back({bytes, [value] {}});    // even if it is forgotten before
    world_.post(
        rank,
        [&](Packet& packet) {
            packet.put(Say::value);
            packet.put(ValueHead{number, bytes.size(), bulk ? 1U : 0U, hand_on ? 1U : 0U});
            if (!bulk) packet.write(bytes);
        },
        std::move(bulks));
}

void Broadcasts::forget(std::uint64_t number) noexcept {
    const std::lock_guard guard(mutex_);
    for (std::uint32_t rank = 1; rank < world_.size(); ++rank) {
        world_.post(rank, [&](Packet& packet) {
            packet.put(Say::forget);
            packet.put(number);
        });
    }
    values_.remove(number);
    world_.wake();
}

std::vector<std::uint64_t> Broadcasts::named_in(std::span<const std::shared_ptr<const void>> kept) const {
    std::vector<std::uint64_t> numbers = values_in(kept);
    if (numbers.empty()) return numbers;
    const std::lock_guard guard(mutex_);
    std::erase_if(numbers, [&](std::uint64_t number) { return values_.find(number) == nullptr; });
    return numbers;
}

void Broadcasts::rank_lost(std::uint32_t rank) {
    const std::lock_guard guard(mutex_);
    lost_[rank] = true;
    const auto ranks = static_cast<std::uint32_t>(world_.size());
    auto related = children_of(rank, ranks);
    if (parent_of(rank) != 0) related.push_back(parent_of(rank));
    for (const std::uint32_t other : related) {
        if (lost_[other]) continue;
        world_.post(other, [&](Packet& packet) {
            packet.put(Say::lost);
            packet.put(LostHead{rank, 0, last_});
        });
    }
    world_.wake();
}

void Broadcasts::send_to(std::uint32_t rank, std::uint64_t number) {
    const std::lock_guard guard(mutex_);
    // One that was forgotten is not: that has been said to all.
    if (const ValuePtr value = values_.find(number)) post(rank, number, value, true);
}

void Broadcasts::finish() {
    std::vector<World::Pending> answers;
    {
        const std::lock_guard guard(mutex_);
        const bool any_lost = std::find(lost_.begin(), lost_.end(), true) != lost_.end();
        if (last_ == 0 || any_lost) return;    // after a loss MPI is not ended together
        for (std::uint32_t rank = 1; rank < world_.size(); ++rank) {
            answers.push_back(world_.ask(rank, Say::finish_values, {0, static_cast<std::uint32_t>(last_), 0}));
        }
    }
    for (const auto& answer : answers) world_.wait_for(answer);
}

}    // namespace multihull::mpi
