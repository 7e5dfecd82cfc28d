#include "pool/function_names.hpp"

#include "process/symbolize.hpp"

#include <multihull/error.hpp>

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <span>
#include <string_view>

namespace multihull::detail {

namespace {

constexpr char kUnknown[] = "(unknown)";
// More functions than that are no functions, but what a worker gone wild has written.
constexpr std::size_t kMostNames = 4096;

std::string readable(const char* name) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
    return status == 0 && text ? text.get() : name;
}

std::string name_at(const void* code) {
    const auto address = reinterpret_cast<std::uintptr_t>(code);
    const auto frames = symbolize(std::span(&address, 1));
    return frames.empty() ? std::string() : frames.back().function;
}

// Where a function is hidden says nothing of what it does.
std::string shortened(std::string name) {
    constexpr std::string_view kHidden = "(anonymous namespace)::";
    for (auto at = name.find(kHidden); at != std::string::npos; at = name.find(kHidden)) name.erase(at, kHidden.size());
    return name;
}

std::string look_up(const ThunkRegistration& thunk, std::uint64_t leading) {
    if (!thunk.by_pointer()) return readable(thunk.callable().name());
    try {
        std::string name = name_at(code_of(leading));
        return name.empty() ? readable(thunk.callable().name()) : name;
    } catch (const Error&) {
        return kUnknown;
    }
}

}    // namespace

const ThunkRegistration* FunctionNames::thunk(Token token) {
    const auto known = thunks_.find(token);
    if (known != thunks_.end()) return known->second;
    if (thunks_.size() >= kMostNames) return nullptr;
    return thunks_[token] = find_thunk(token);
}

std::string FunctionNames::name(Token token, std::uint64_t leading) {
    const std::lock_guard guard(mutex_);
    const ThunkRegistration* const thunk = this->thunk(token);
    if (thunk == nullptr) return kUnknown;
    const std::pair key(token, thunk->by_pointer() ? leading : 0);
    const auto known = known_.find(key);
    if (known != known_.end()) return known->second;
    if (known_.size() >= kMostNames) return kUnknown;
    return known_[key] = shortened(look_up(*thunk, leading));
}

}    // namespace multihull::detail
