// How wait() looks at what has no descriptor: futures, and whatever else lives in memory.
//
// A class joins by a member `std::shared_ptr<detail::WaitSource> wait_source() const`, which need not be cheap: wait() calls it once.
#pragma once

#include <concepts>
#include <memory>

namespace multihull::detail {

/// One object, as one wait() sees it. Used by one thread at a time.
///
/// The order is: ready(); if nothing is, prepare() of all, and ready() again of all, so that what happens between the two is not missed;
/// then, whenever the eventfd was written to, ready() again. forget() comes last, also where prepare() has thrown.
class WaitSource {
public:
    virtual ~WaitSource() = default;
    /// Whether what one waits for would be there at once. What others of the same object take meanwhile is their luck.
    virtual bool ready() = 0;
    /// Has 8 bytes, the number 1, written to the eventfd when it may have become ready; once too often does no harm.
    virtual void prepare(int eventfd) = 0;
    /// Nothing is written any more when this has returned.
    virtual void forget() noexcept = 0;
};

template <class T>
concept HasWaitSource = requires(const T& object) {
    { object.wait_source() } -> std::convertible_to<std::shared_ptr<WaitSource>>;
};

}    // namespace multihull::detail
