#include "mpi/rank_values.hpp"

#include "mpi/tree.hpp"
#include "os/fault.hpp"

#include <algorithm>

namespace multihull::mpi {

bool NumberSet::insert(std::uint64_t number) {
    if (number <= all_to_ || !beyond_.insert(number).second) return false;
    while (!beyond_.empty() && *beyond_.begin() == all_to_ + 1) {
        beyond_.erase(beyond_.begin());
        ++all_to_;
    }
    return true;
}

void RankValues::take(int from, multihull::detail::Reader& reader) {
    const auto head = reader.get<ValueHead>();
    auto value = std::make_shared<ValueBytes>(head.size);
    os::kill_point(os::KillPoint::value_announced);
    if (head.is_bulk == 0) {
        reader.read(value->bytes().data(), head.size);
        received(head, value);
        return;
    }
    const std::span<std::byte> place = value->bytes();
    transport_.receive_bulk(from, place, [this, head, value = ValuePtr(std::move(value))] { received(head, value); });
}

void RankValues::received(const ValueHead& head, const ValuePtr& value) {
    os::kill_point(os::KillPoint::value_received);
    if (!received_.insert(head.number)) return;    // from a parent that was lost, and from rank 0
    if (head.hand_on != 0) hand_on(head.number, value);
    if (forgotten_.erase(head.number) == 0) keep(head.number, value);
}

void RankValues::hand_on(std::uint64_t number, const ValuePtr& value) {
    const std::span<const std::byte> bytes = value->bytes();
    const bool bulk = bytes.size() > kBulk;
    const auto ranks = static_cast<std::uint32_t>(transport_.size());
    for (const std::uint32_t child : children_of(static_cast<std::uint32_t>(transport_.rank()), ranks)) {
        if (lost_.contains(child)) continue;
        Packet packet;
        packet.bytes() = transport_.take_buffer();
        packet.put(Say::value);
        packet.put(ValueHead{number, bytes.size(), bulk ? 1U : 0U, 1});
        if (!bulk) packet.write(bytes);
        transport_.send_packet(static_cast<int>(child), std::move(packet.bytes()));
        if (bulk) {
            ++handing_on_;
            transport_.send_bulk(static_cast<int>(child), bytes, [this, value] { --handing_on_; });
        }
        os::kill_point(os::KillPoint::value_forwarded);
    }
}

void RankValues::keep(std::uint64_t number, const ValuePtr& value) {
    if (values_.try_add(number, value)) {
        settle(number);
    } else {
        without_room_.emplace_back(number, value);
    }
}

void RankValues::forget(std::uint64_t number) {
    std::erase_if(without_room_, [&](const auto& entry) { return entry.first == number; });
    values_.remove(number);
    if (!received_.contains(number)) forgotten_.insert(number);
    // Values may come by another way than what says that there is room for them.
    for (const auto& [other, value] : std::exchange(without_room_, {})) keep(other, value);
    settle(number);
}

bool RankValues::settled(std::uint64_t number) const {
    if (!received_.contains(number)) return forgotten_.contains(number);
    return std::none_of(without_room_.begin(), without_room_.end(),
                        [&](const auto& entry) { return entry.first == number; });
}

void RankValues::when_settled(std::uint64_t number, std::function<void()> call) {
    if (settled(number)) return call();
    waiting_[number].push_back(std::move(call));
}

void RankValues::settle(std::uint64_t number) {
    const auto place = waiting_.find(number);
    if (place == waiting_.end()) return;
    const auto calls = std::move(place->second);
    waiting_.erase(place);
    for (const auto& call : calls) call();
}

std::vector<std::uint64_t> RankValues::neighbour_lost(std::uint32_t rank, std::uint64_t last) {
    transport_.give_up(static_cast<int>(rank));
    lost_.insert(rank);
    std::vector<std::uint64_t> missing;
    if (rank != parent_of(static_cast<std::uint32_t>(transport_.rank()))) return missing;
    for (std::uint64_t number = received_.all_to() + 1; number <= last; ++number) {
        if (!received_.contains(number) && !forgotten_.contains(number)) missing.push_back(number);
    }
    return missing;
}

}    // namespace multihull::mpi
