// Messages that are written and read where they lie: Loan and View.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/queue_core.hpp>
#include <multihull/error.hpp>

#include <cstring>
#include <memory>
#include <span>
#include <type_traits>

namespace multihull {

template <class T>
class Queue;

namespace detail {

/// Values whose encoding is their own bytes, and ranges of them: what can be written and read in place.
template <class T>
inline constexpr bool kInPlaceValue = kPlain<T> && kFixedSize<T> == sizeof(T) && std::is_trivially_copyable_v<T>;
template <class T>
inline constexpr bool kInPlaceRange = kKind<T> == Kind::contiguous;

}    // namespace detail

/// Memory in a queue that this process fills: see Queue::loan().
template <class T>
class Loan {
public:
    Loan(Loan&&) noexcept = default;
    Loan& operator=(Loan&&) noexcept = default;

    T& operator*() const noexcept { return *reinterpret_cast<T*>(block_.bytes().data()); }
    T* operator->() const noexcept { return reinterpret_cast<T*>(block_.bytes().data()); }

private:
    friend class Queue<T>;
    explicit Loan(detail::QueueBlock block) : size_(sizeof(T)), block_(std::move(block)) {
        std::construct_at(reinterpret_cast<T*>(block_.bytes().data()));
    }
    std::size_t size_;
    detail::QueueBlock block_;
};

/// The same for a range: its elements, not set to anything.
template <class T>
    requires(detail::kInPlaceRange<T>)
class Loan<T> {
public:
    using Element = typename T::value_type;

    Loan(Loan&&) noexcept = default;
    Loan& operator=(Loan&&) noexcept = default;

    std::span<Element> span() const noexcept { return {data(), count_}; }
    Element* data() const noexcept { return reinterpret_cast<Element*>(block_.bytes().data() + kBegin); }
    std::size_t size() const noexcept { return count_; }
    Element* begin() const noexcept { return data(); }
    Element* end() const noexcept { return data() + count_; }
    Element& operator[](std::size_t index) const noexcept { return data()[index]; }

private:
    friend class Queue<T>;
    // As encode() writes it: the count, and where the elements are aligned a byte that says how many are skipped.
    static constexpr std::size_t kBegin = alignof(Element) > 1 ? (sizeof(std::uint64_t) + alignof(Element)) /
                                                                     alignof(Element) * alignof(Element)
                                                               : sizeof(std::uint64_t);
    static std::size_t size_of(std::size_t count) {
        if (count > (~std::size_t{0} - kBegin) / sizeof(Element)) throw std::bad_alloc();
        return kBegin + count * sizeof(Element);
    }
    Loan(detail::QueueBlock block, std::size_t count) : count_(count), size_(size_of(count)), block_(std::move(block)) {
        const std::uint64_t length = count;
        std::byte* const bytes = block_.bytes().data();
        std::memcpy(bytes, &length, sizeof length);
        if constexpr (alignof(Element) > 1) {
            std::memset(bytes + sizeof length, 0, kBegin - sizeof length);
            bytes[sizeof length] = static_cast<std::byte>(kBegin - sizeof length - 1);
        }
    }
    std::size_t count_;
    std::size_t size_;
    detail::QueueBlock block_;
};

/// A message where it lies, freed with the view: see Queue::get_view().
template <class T>
class View {
public:
    View(View&&) noexcept = default;
    View& operator=(View&&) noexcept = default;

    const T& operator*() const noexcept { return *reinterpret_cast<const T*>(message_->bytes().data()); }
    const T* operator->() const noexcept { return reinterpret_cast<const T*>(message_->bytes().data()); }

private:
    friend class Queue<T>;
    explicit View(std::unique_ptr<detail::QueueMessage> message) : message_(std::move(message)) {
        if (message_->bytes().size() != sizeof(T)) detail::throw_damaged("a message is not of the queue's type");
    }
    std::unique_ptr<detail::QueueMessage> message_;
};

template <class T>
    requires(detail::kInPlaceRange<T>)
class View<T> {
public:
    using Element = typename T::value_type;

    View(View&&) noexcept = default;
    View& operator=(View&&) noexcept = default;

    std::span<const Element> span() const noexcept { return elements_; }
    const Element* data() const noexcept { return elements_.data(); }
    std::size_t size() const noexcept { return elements_.size(); }
    const Element* begin() const noexcept { return elements_.data(); }
    const Element* end() const noexcept { return elements_.data() + elements_.size(); }
    const Element& operator[](std::size_t index) const noexcept { return elements_[index]; }

private:
    friend class Queue<T>;
    explicit View(std::unique_ptr<detail::QueueMessage> message) : message_(std::move(message)) {
        detail::Reader reader(message_->bytes());
        const std::size_t count = reader.read_length(sizeof(Element));
        if constexpr (alignof(Element) > 1) {
            const auto padding = reader.get<std::uint8_t>();
            if (padding >= alignof(Element)) detail::throw_damaged("there is more padding than any element needs");
            reader.view(padding);
        }
        const auto bytes = reader.view(count * sizeof(Element));
        if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(Element) != 0) {
            detail::throw_damaged("its elements are not aligned");
        }
        elements_ = {reinterpret_cast<const Element*>(bytes.data()), count};
    }
    std::unique_ptr<detail::QueueMessage> message_;
    std::span<const Element> elements_;
};

}    // namespace multihull
