#include "process/signal_name.hpp"

#include <csignal>
#include <cstring>

namespace multihull::detail {
namespace {

struct CodeMeaning {
    int signal;
    int code;
    std::string_view meaning;
};

// The kernel's codes that say something to a programmer. Those that only sparse hardware knows are not among them.
constexpr CodeMeaning kCodeMeanings[] = {
    {SIGSEGV, SEGV_MAPERR, "address not mapped"},
    {SIGSEGV, SEGV_ACCERR, "access not permitted"},
    {SIGSEGV, SEGV_BNDERR, "address outside its bounds"},
    {SIGSEGV, SEGV_PKUERR, "access not permitted by a protection key"},
    {SIGSEGV, SI_KERNEL, "an address that can't exist"},
    {SIGBUS, BUS_ADRALN, "address not aligned"},
    {SIGBUS, BUS_ADRERR, "no memory behind the address, as beyond the end of a mapped file"},
    {SIGBUS, BUS_OBJERR, "hardware error"},
    {SIGBUS, BUS_MCEERR_AR, "hardware memory error"},
    {SIGBUS, BUS_MCEERR_AO, "hardware memory error"},
    {SIGILL, ILL_ILLOPC, "illegal instruction"},
    {SIGILL, ILL_ILLOPN, "illegal operand"},
    {SIGILL, ILL_ILLADR, "illegal addressing mode"},
    {SIGILL, ILL_ILLTRP, "illegal trap"},
    {SIGILL, ILL_PRVOPC, "privileged instruction"},
    {SIGILL, ILL_PRVREG, "privileged register"},
    {SIGFPE, FPE_INTDIV, "integer division by zero or overflow"},
    {SIGFPE, FPE_INTOVF, "integer overflow"},
    {SIGFPE, FPE_FLTDIV, "floating-point division by zero"},
    {SIGFPE, FPE_FLTOVF, "floating-point overflow"},
    {SIGFPE, FPE_FLTUND, "floating-point underflow"},
    {SIGFPE, FPE_FLTRES, "floating-point inexact result"},
    {SIGFPE, FPE_FLTINV, "invalid floating-point operation"},
    {SIGTRAP, TRAP_BRKPT, "breakpoint"},
    {SIGTRAP, TRAP_TRACE, "trace trap"},
    {SIGTRAP, SI_KERNEL, "breakpoint"},
    {SIGSYS, 1, "a system call that a filter forbids"},
};

}    // namespace

std::string signal_name(int signal) {
    if (signal >= SIGRTMIN && signal <= SIGRTMAX) {
        const int place = signal - SIGRTMIN;
        return place == 0 ? "SIGRTMIN" : "SIGRTMIN+" + std::to_string(place);
    }
    const char* const abbreviation = sigabbrev_np(signal);
    return abbreviation != nullptr ? std::string("SIG") + abbreviation : "signal " + std::to_string(signal);
}

std::string_view signal_description(int signal) noexcept {
    const char* const description = sigdescr_np(signal);
    return description != nullptr ? description : std::string_view{};
}

std::string_view signal_code_meaning(int signal, int code) noexcept {
    for (const CodeMeaning& entry : kCodeMeanings) {
        if (entry.signal == signal && entry.code == code) {
            return entry.meaning;
        }
    }
    return {};
}

bool signal_has_address(int signal, int code) noexcept {
    const bool faults = signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE;
    return faults && code > 0 && code != SI_KERNEL;
}

}    // namespace multihull::detail
