// What the referents of Python's types have in common: methods by name, Python's errors, slices, iteration.
#pragma once

#include <multihull/detail/manager_type.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multihull::detail {

/// Throws a PythonException of a class in `builtins`.
[[noreturn]] void raise(const char* name, const std::string& sentence);

/// The methods of a referent's class, and so what its type exposes.
template <class T>
class Methods {
public:
    using Function = Reply (T::*)(Call&);

    Methods(std::initializer_list<std::pair<const std::string_view, Function>> methods) : methods_(methods) {
        for (const auto& [name, function] : methods) names_.emplace_back(name);
    }

    Reply call(T& self, Call& call) const {
        const auto found = methods_.find(call.method);
        if (found == methods_.end()) raise("AttributeError", "no method '" + std::string(call.method) + "'");
        return (self.*found->second)(call);
    }
    const std::vector<std::string>& names() const noexcept { return names_; }

private:
    std::unordered_map<std::string_view, Function> methods_;
    std::vector<std::string> names_;
};

/// A referent whose class has its methods in a table, T::methods().
template <class T>
class ReferentOf : public Referent {
public:
    Reply call(Call& call) final { return T::methods().call(static_cast<T&>(*this), call); }
};

/// The type of a referent whose constructor takes the call that makes it.
template <class T>
ManagerType type_of(const std::string& name) {
    return {.name = name, .exposed = T::methods().names(), .create = [](Call& call) {
                return std::make_shared<T>(call);
            }};
}

/// Answers to parked calls, sent when this goes: behind the lock under which they were collected.
class Answers {
public:
    Answers() = default;
    Answers(const Answers&) = delete;
    Answers& operator=(const Answers&) = delete;
    ~Answers() {
        for (auto& [call, answer] : answers_) call->answer(std::move(answer));
    }
    /// For a call that is claimed.
    void add(std::shared_ptr<ParkedCall> call, Answer answer) {
        answers_.emplace_back(std::move(call), std::move(answer));
    }

private:
    std::vector<std::pair<std::shared_ptr<ParkedCall>, Answer>> answers_;
};

/// What a class of `module` makes of the arguments: instances travel as Python pickles them.
Object instance_of(const char* module, const char* name, std::vector<Object> args, Object state = {},
                   bool by_new = false);

/// What iterating over it gives, in order. A proxy of this server stands for its referent. Throws TypeError for what has no elements.
std::vector<Object> elements_of(Object& iterable, CallContext& context);
/// A dict for one, for an iterable of pairs, or for a proxy of a dict.
Object dict_of(Object& source, CallContext& context);
/// The referent's value for a proxy of this server; else the object itself.
Object value_of(Object& object, CallContext& context);

/// Python's truth of a value.
bool truth(const Object& object);
/// Python's `left + right` of numbers, texts, bytes and sequences.
Object sum(const Object& left, const Object& right);

/// The index of an element; IndexError with `sentence` where there is none.
std::size_t index_of(const Object& index, std::size_t size, const char* sentence);

struct Slice {
    std::int64_t start = 0;
    std::int64_t step = 1;
    std::size_t count = 0;

    std::size_t at(std::size_t n) const noexcept {
        return static_cast<std::size_t>(start + static_cast<std::int64_t>(n) * step);
    }
};
/// Of a `slice` object over so many elements; nothing where it is none.
std::optional<Slice> slice_of(const Object& object, std::size_t size);
/// The elements of a slice.
std::vector<Object> sliced(const std::vector<Object>& items, const Slice& slice);
/// Python's `items[slice] = elements`.
void assign_slice(std::vector<Object>& items, const Slice& slice, std::vector<Object> elements);
/// Python's `del items[slice]`.
void erase_slice(std::vector<Object>& items, const Slice& slice);

/// When a call that waits gives up: kNever for a missing timeout or None, else after that many seconds.
std::int64_t deadline_of(const Object* timeout);

/// Atomic updates, which Python's own types lack. Each changes one place of a referent, under its lock, and answers as its method does.
/// `old` is null where there is nothing yet.
Object added(const Object* old, Call& call, std::size_t first);
Object applied(const Object* old, Call& call, std::size_t first);

// Python's types, each in the file that its class is in.
void add_container_types(ManagerTypes& types);
void add_value_types(ManagerTypes& types);
void add_lock_types(ManagerTypes& types);
void add_sync_types(ManagerTypes& types);
void add_queue_types(ManagerTypes& types);

}    // namespace multihull::detail
