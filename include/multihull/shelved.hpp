// What Cached::call_and_shelve() gives: a handle of a result on disk.
//
// Thread-safe as an int is: different copies in different threads. The result is whole or gone, in whichever process it is asked for.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/entry_value.hpp>
#include <multihull/detail/memory_store.hpp>
#include <multihull/error.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace multihull {

template <class F, std::size_t... kIgnored>
class Cached;

/// A result that stays on disk until it is asked for: some bytes, that travel to other processes instead of it.
template <class T>
class Shelved {
public:
    /// The result. Throws Error where it was cleared or evicted meanwhile, or is damaged.
    T get() const {
        if (value_ != nullptr) return copy(*value_);
        if (const auto entry = store_->find(name_, {}, true)) {
            try {
                return detail::decode_entry<T>(*entry);
            } catch (const CodecError& error) {
                store_->report_damaged(name_, error.what());
            }
        }
        detail::throw_shelved_gone(function_);
    }
    /// Removes the result from the cache.
    void clear() {
        value_.reset();
        store_->remove(name_);
    }

private:
    template <class F, std::size_t... kIgnored>
    friend class Cached;
    friend struct Codec<Shelved>;

    Shelved(std::shared_ptr<detail::Store> store, std::string function, detail::EntryName name)
        : store_(std::move(store)), function_(std::move(function)), name_(std::move(name)) {}

    static T copy(const T& value) {
        if constexpr (std::is_copy_constructible_v<T>) {
            return value;
        } else {
            detail::EncodedEntry entry;
            detail::encode_entry(entry, value);
            return detail::decode_entry<T>({nullptr, entry.bytes()});
        }
    }

    std::shared_ptr<detail::Store> store_;
    std::string function_;
    detail::EntryName name_;
    std::shared_ptr<const T> value_;    // where it could not be kept
};

template <class T>
struct Codec<Shelved<T>> {
    static void encode(detail::Writer& writer, const Shelved<T>& shelved) {
        detail::encode_store(writer, *shelved.store_);
        detail::encode(writer, shelved.function_);
        detail::encode(writer, shelved.name_);
        detail::encode(writer, shelved.value_ != nullptr);
        if (shelved.value_ != nullptr) detail::encode(writer, *shelved.value_);
    }
    static Shelved<T> decode(detail::Reader& reader) {
        auto store = detail::decode_store(reader);
        auto function = detail::decode<std::string>(reader);
        Shelved<T> shelved(std::move(store), std::move(function), detail::decode<detail::EntryName>(reader));
        if (detail::decode<bool>(reader)) shelved.value_ = std::make_shared<const T>(detail::decode<T>(reader));
        return shelved;
    }
};

}    // namespace multihull
