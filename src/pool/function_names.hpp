// Names of the functions that a pool runs, for people.
//
// Thread-safe. The first look-up of a function costs milliseconds, the next ones nothing.
#pragma once

#include <multihull/detail/token.hpp>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace multihull::detail {

class FunctionNames {
public:
    /// `square(int)`, `main::{lambda(int)#1}`, `my::Functor`; `leading` is the call's first bytes, as a TraceEntry has them. Both may
    /// be anything: what names no function is "(unknown)".
    std::string name(Token token, std::uint64_t leading);

private:
    const ThunkRegistration* thunk(Token token);

    std::mutex mutex_;
    std::map<Token, const ThunkRegistration*> thunks_;
    std::map<std::pair<Token, std::uint64_t>, std::string> known_;
};

}    // namespace multihull::detail
