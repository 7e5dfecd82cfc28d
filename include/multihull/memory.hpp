// Results of functions kept on disk: what was computed once, in whichever process or run, is not computed again.
//
// Safe for any number of threads and processes on one folder, killed at any moment: there are whole results or none. A result that
// is damaged is computed again, and the log says so; where nothing can be written (a full disk, a folder of somebody else's) calls
// return what they compute, and the log says once that it is not kept. What a function throws is not kept.
// src/memory/README.md has the files, the locks and the kill points.
//
// A result is found by the name given to the function, CacheOptions::version, the types, and the content of the arguments
// (content_hash.hpp): not by the function's code. Give each function a name of its own, and change the version with what it does.
#pragma once

#include <multihull/detail/cache_key.hpp>
#include <multihull/detail/entry_value.hpp>
#include <multihull/detail/memory_store.hpp>
#include <multihull/detail/value_text.hpp>
#include <multihull/dump.hpp>
#include <multihull/error.hpp>
#include <multihull/mapped_array.hpp>
#include <multihull/memory_options.hpp>
#include <multihull/shelved.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace multihull {

class Memory;

/// A function whose results are kept. A value: copies are the same cached function, also in another process, where it travels as
/// its function does (a task of a Pool may be one).
template <class F, std::size_t... kIgnored>
class Cached {
public:
    /// The result: from the cache, or computed now and kept.
    template <class... Args>
        requires std::is_invocable_v<F&, Args...>
    auto operator()(Args&&... arguments) const {
        using Value = ValueOf<Args...>;
        const auto name = name_of<Args...>(arguments...);
        if (auto found = find<Value>(name, !options_.compute_once)) return std::move(*found);
        std::optional<detail::ComputeLock> lock;
        if (options_.compute_once) {
            lock.emplace(*store_, name.key);
            if (auto found = find<Value>(name, true)) return std::move(*found);
        }
        return compute<Value>(name, nullptr, std::forward<Args>(arguments)...);
    }

    /// Computes the result in any case, and keeps it in place of the one there is.
    template <class... Args>
        requires std::is_invocable_v<F&, Args...>
    auto call(Args&&... arguments) const {
        return compute<ValueOf<Args...>>(name_of<Args...>(arguments...), nullptr, std::forward<Args>(arguments)...);
    }

    /// Whether the call would find its result, as far as can be told without reading it.
    template <class... Args>
        requires std::is_invocable_v<F&, Args...>
    bool check_call_in_cache(Args&&... arguments) const {
        return store_->contains(name_of<Args...>(arguments...), policy());
    }

    /// Sees to it that the result is on disk, and gives a handle of it. Where it can't be kept the handle holds it.
    template <class... Args>
        requires std::is_invocable_v<F&, Args...>
    auto call_and_shelve(Args&&... arguments) const {
        using Value = ValueOf<Args...>;
        const auto name = name_of<Args...>(arguments...);
        Shelved<Value> shelved(store_, function_name_, name);
        if (store_->find(name, policy(), !options_.compute_once)) return shelved;
        std::optional<detail::ComputeLock> lock;
        if (options_.compute_once) {
            lock.emplace(*store_, name.key);
            if (store_->find(name, policy(), true)) return shelved;
        }
        bool kept = false;
        Value value = compute<Value>(name, &kept, std::forward<Args>(arguments)...);
        if (!kept) shelved.value_ = std::make_shared<const Value>(std::move(value));
        return shelved;
    }

    /// Removes this function's results, of all versions. Throws Error where that can't be done.
    void clear() const { store_->clear(&folder_); }

    const std::string& name() const noexcept { return function_name_; }

private:
    friend class Memory;
    friend struct Codec<Cached>;

    template <class Result>
    struct Kept {
        static_assert(!std::is_void_v<Result>, "multihull: a function that returns nothing has no result to be kept");
        using Value = std::remove_cvref_t<Result>;
    };
    template <class... Args>
    using ValueOf = typename Kept<std::invoke_result_t<F&, Args...>>::Value;

    Cached(std::shared_ptr<detail::Store> store, std::string name, F function, CacheOptions options)
        : store_(std::move(store)),
          function_name_(std::move(name)),
          folder_(detail::Store::folder_of(function_name_)),
          function_(std::move(function)),
          options_(std::move(options)) {}

    detail::EntryPolicy policy() const noexcept { return {options_.expires_after, options_.validate}; }

    template <class... Args>
    detail::EntryName name_of(const std::remove_reference_t<Args>&... arguments) const {
        using Value = ValueOf<Args...>;
        detail::require_travels<Value>();
        using Key = detail::CacheKey<Value, typename detail::ParametersOf<F, Args...>::Type, kIgnored...>;
        static_assert(Key::check());
        for (const std::size_t position : options_.ignore) {
            if (position >= sizeof...(Args)) detail::throw_bad_ignore(function_name_, position, sizeof...(Args));
        }
        Hasher hasher;
        hasher.add(function_name_);
        hasher.add(options_.version);
        const Hash128& signature = Key::signature();
        hasher.bytes(&signature, sizeof signature);
        // A function with fields is one of many: they are part of what is called.
        if constexpr (!detail::kFunctionPointer<F> && !std::is_empty_v<F>) {
            detail::hash_signature<F>(hasher);
            hasher.add(function_);
        }
        Key::add(hasher, options_.ignore, arguments...);
        return {folder_, hasher.digest(), detail::kept_signature<Value>()};
    }

    template <class Value>
    std::optional<Value> find(const detail::EntryName& name, bool say) const {
        if (const auto entry = store_->find(name, policy(), say)) {
            try {
                return std::optional<Value>(std::in_place, detail::decode_entry<Value>(*entry));
            } catch (const CodecError& error) {
                if (say) store_->report_damaged(name, error.what());
            }
        }
        return std::nullopt;
    }

    template <class Value, class... Args>
    Value compute(const detail::EntryName& name, bool* kept, Args&&... arguments) const {
        detail::EntryText text{function_name_, options_.version, {}, std::string(detail::type_name<Value>())};
        detail::append_parts(text.arguments, arguments...);
        const auto begin = std::chrono::steady_clock::now();
        Value value = run(std::forward<Args>(arguments)...);
        const auto duration = std::chrono::steady_clock::now() - begin;
        const bool done = keep(name, text, duration, value);
        if (kept != nullptr) *kept = done;
        return value;
    }

    template <class... Args>
    decltype(auto) run(Args&&... arguments) const {
        if constexpr (std::is_invocable_v<const F&, Args...>) {
            return std::invoke(function_, std::forward<Args>(arguments)...);
        } else {
            F function = function_;
            return ValueOf<Args...>(std::invoke(function, std::forward<Args>(arguments)...));
        }
    }

    template <class Value>
    bool keep(const detail::EntryName& name, const detail::EntryText& text, std::chrono::nanoseconds duration,
              const Value& value) const {
        detail::EncodedEntry entry;
        try {
            detail::encode_entry(entry, value);
        } catch (const Error& error) {
            store_->report_not_kept(error.what());
            return false;
        } catch (const std::bad_alloc&) {
            store_->report_not_kept("there is no memory for their encoding");
            return false;
        }
        return store_->put(name, text, duration, entry);
    }

    std::shared_ptr<detail::Store> store_;
    std::string function_name_;
    std::string folder_;
    F function_;
    CacheOptions options_;
};

/// A folder of results. A cheap handle: copies are the same cache, and so is every Memory of one folder, in whichever process.
///
/// ```cpp
/// multihull::Memory memory("cache");
/// auto cached = memory.cache("render", render, {.version = "2"});
/// Image image = cached(scene);
/// ```
class Memory {
public:
    /// The cache in a folder, which is made if need be. Throws Error where the folder holds something else.
    explicit Memory(const std::string& path, const MemoryOptions& options = {})
        : store_(detail::Store::open(detail::absolute_path(path), options)) {}

    /// The function with its results kept under a name. It is a function, a lambda without captures, or a function object with
    /// fields, which become part of the key. Throws Error for an empty name.
    template <class Function>
    auto cache(const std::string& name, Function&& function, CacheOptions options = {}) const {
        return cache(name, std::forward<Function>(function), ignoring<>, std::move(options));
    }
    /// The same, with arguments that are not part of the key: `cache("f", f, ignoring<1>)`.
    template <class Function, std::size_t... kIgnored>
    auto cache(const std::string& name, Function&& function, Ignoring<kIgnored...>, CacheOptions options = {}) const {
        using F = std::decay_t<Function>;
        if constexpr (!detail::kFunctionPointer<F> && !std::is_empty_v<F>) detail::require_hashable<F>();
        detail::check_name(name);
        return Cached<F, kIgnored...>(store_, name, std::forward<Function>(function), std::move(options));
    }

    /// Removes all results. Throws Error where that can't be done, and for a folder that is not a cache of Multihull's.
    void clear() const { store_->clear(nullptr); }
    /// Removes what was used least recently, until the limits hold; how many results went. Throws Error as clear() does.
    std::size_t reduce_size(const ReduceLimits& limits) const { return store_->reduce(limits); }

    /// The folder, from the root.
    const std::string& path() const noexcept { return store_->path(); }

private:
    friend struct Codec<Memory>;

    explicit Memory(std::shared_ptr<detail::Store> store) noexcept : store_(std::move(store)) {}

    std::shared_ptr<detail::Store> store_;
};

// How they travel: by the folder's path and what is known of the function.
template <>
struct Codec<Memory> {
    static void encode(detail::Writer& writer, const Memory& memory) { detail::encode_store(writer, *memory.store_); }
    static Memory decode(detail::Reader& reader) { return Memory(detail::decode_store(reader)); }
};

template <class F, std::size_t... kIgnored>
    requires detail::kTravellingCallable<F>
struct Codec<Cached<F, kIgnored...>> {
    static void encode(detail::Writer& writer, const Cached<F, kIgnored...>& cached) {
        detail::encode_store(writer, *cached.store_);
        detail::encode(writer, cached.function_name_);
        detail::encode_options(writer, cached.options_);
        detail::encode_callable(writer, cached.function_);
    }
    static Cached<F, kIgnored...> decode(detail::Reader& reader) {
        auto store = detail::decode_store(reader);
        auto name = detail::decode<std::string>(reader);
        auto options = detail::decode_options(reader);
        return Cached<F, kIgnored...>(std::move(store), std::move(name), detail::decode_callable<F>(reader),
                                      std::move(options));
    }
};

}    // namespace multihull
