// Names and meanings of signals, for sentences.
#pragma once

#include <string>
#include <string_view>

namespace multihull::detail {

/// `SIGSEGV`, `SIGRTMIN+3`; `signal 99` for a number that is none.
std::string signal_name(int signal);

/// What the system means by it: `Segmentation fault`; empty where it has no words for it.
std::string_view signal_description(int signal) noexcept;

/// Why a signal was sent, by its si_code: `address not mapped`; empty where the code says nothing.
std::string_view signal_code_meaning(int signal, int code) noexcept;

/// Whether a signal with this si_code comes with the address that it is about.
bool signal_has_address(int signal, int code) noexcept;

}    // namespace multihull::detail
