#include "process/throw_trace.hpp"

#include <multihull/detail/token.hpp>

#include "process/backtrace.hpp"

#include <unwind.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <exception>

#if defined(__x86_64__) || defined(__aarch64__)

// Calls its first argument with its second. What matters is the personality routine named in its unwind table.
extern "C" __attribute__((visibility("hidden"))) void multihull_call_traced(void (*function)(void*), void* context);
// NOLINTNEXTLINE(readability-identifier-naming): the assembler's
extern "C" __attribute__((visibility("hidden"))) const char multihull_call_traced_end[];

#if defined(__x86_64__)
asm(R"(
    .pushsection .text.multihull_call_traced, "ax", @progbits
    .p2align 4
    .globl multihull_call_traced
    .hidden multihull_call_traced
    .type multihull_call_traced, @function
multihull_call_traced:
    .cfi_startproc
    .cfi_personality 0x1b, multihull_throw_personality
    endbr64
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    movq %rdi, %rax
    movq %rsi, %rdi
    call *%rax
    popq %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size multihull_call_traced, . - multihull_call_traced
    .globl multihull_call_traced_end
    .hidden multihull_call_traced_end
multihull_call_traced_end:
    .popsection
)");
#else
asm(R"(
    .pushsection .text.multihull_call_traced, "ax", %progbits
    .p2align 4
    .globl multihull_call_traced
    .hidden multihull_call_traced
    .type multihull_call_traced, %function
multihull_call_traced:
    .cfi_startproc
    .cfi_personality 0x1b, multihull_throw_personality
    hint #34
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset 29, -16
    .cfi_offset 30, -8
    mov x29, sp
    mov x9, x0
    mov x0, x1
    blr x9
    ldp x29, x30, [sp], #16
    .cfi_restore 29
    .cfi_restore 30
    .cfi_def_cfa_offset 0
    ret
    .cfi_endproc
    .size multihull_call_traced, . - multihull_call_traced
    .globl multihull_call_traced_end
    .hidden multihull_call_traced_end
multihull_call_traced_end:
    .popsection
)");
#endif

namespace multihull::detail {
namespace {

// The functions between a throw expression and the personality routine below, by their first addresses. Which they are
// depends on the runtime, on how it is linked and on sanitizers that stand in between, so they are learned from a few
// throws. Every thread would learn the same ones, so that they may all write them.
constexpr std::size_t kMachineryLimit = 24;
std::array<std::atomic<std::uintptr_t>, kMachineryLimit> machinery;
std::atomic<bool> machinery_is_known{false};

thread_local RawStack throw_stack{};
thread_local bool is_learning = false;

bool is_machinery(std::uintptr_t function) noexcept {
    return std::any_of(machinery.begin(), machinery.end(), [function](const std::atomic<std::uintptr_t>& known) {
        return known.load(std::memory_order_relaxed) == function;
    });
}

void add_machinery(std::uintptr_t function) noexcept {
    for (std::atomic<std::uintptr_t>& place : machinery) {
        std::uintptr_t known = 0;
        if (place.compare_exchange_strong(known, function, std::memory_order_relaxed) || known == function) {
            return;
        }
    }
}

struct Walk {
    RawStack addresses{};
    RawStack functions{};
};

_Unwind_Reason_Code add_frame(_Unwind_Context* context, void* argument) {
    auto& walk = *static_cast<Walk*>(argument);
    int before_instruction = 0;
    const std::uintptr_t address = _Unwind_GetIPInfo(context, &before_instruction);
    if (address == 0 || walk.addresses.size == RawStack::kFrames) {
        return _URC_END_OF_STACK;
    }
    const std::uintptr_t function = _Unwind_GetRegionStart(context);
    if (walk.addresses.size == 0 && function != 0 && !is_learning && is_machinery(function)) {
        return _URC_NO_REASON;
    }
    walk.addresses.frames[walk.addresses.size++] = before_instruction != 0 ? address : address - 1;
    walk.functions.frames[walk.functions.size++] = function;
    return _URC_NO_REASON;
}

// A throw made to learn from: the function that threw was called by multihull_call_traced() itself, what is inside of
// it is machinery.
void learn_from(const Walk& walk) noexcept {
    const auto* const begin = walk.functions.frames;
    const auto* const end = begin + walk.functions.size;
    const auto* const caller = std::find(begin, end, reinterpret_cast<std::uintptr_t>(&multihull_call_traced));
    if (caller == end) {
        return;
    }
    for (const auto* function = begin; function + 1 < caller; ++function) {
        add_machinery(*function);
    }
}

void throw_once(void*) { throw 0; }

void throw_again(void*) {
    try {
        throw 0;
    } catch (...) {
        throw;
    }
}

void throw_from_pointer(void*) { std::rethrow_exception(std::make_exception_ptr(0)); }

__attribute__((noinline, cold)) void learn_machinery() {
    is_learning = true;
    for (void (*const function)(void*) : {throw_once, throw_again, throw_from_pointer}) {
        try {
            multihull_call_traced(function, nullptr);
        } catch (int) {}
    }
    is_learning = false;
    throw_stack.size = 0;
    machinery_is_known.store(true, std::memory_order_release);
}

}    // namespace
}    // namespace multihull::detail

extern "C" __attribute__((used, visibility("hidden"))) _Unwind_Reason_Code multihull_throw_personality(
    int version, _Unwind_Action actions, _Unwind_Exception_Class, _Unwind_Exception*, _Unwind_Context*) {
    using namespace multihull::detail;
    if (version == 1 && (actions & _UA_SEARCH_PHASE) != 0) {
        Walk walk;
        _Unwind_Backtrace(add_frame, &walk);
        if (is_learning) {
            learn_from(walk);
        } else {
            throw_stack = walk.addresses;
        }
    }
    return _URC_CONTINUE_UNWIND;
}

namespace multihull::detail {

void prepare_throw_trace() {
    if (!machinery_is_known.load(std::memory_order_acquire)) learn_machinery();
}

void call_with_throw_trace(void (*function)(void*), void* context) {
    prepare_throw_trace();
    multihull_call_traced(function, context);
}

std::size_t frames_of_task(std::span<const std::uintptr_t> frames) noexcept {
    const auto begin = reinterpret_cast<std::uintptr_t>(&multihull_call_traced);
    const auto end = reinterpret_cast<std::uintptr_t>(multihull_call_traced_end);
    const auto caller =
        std::find_if(frames.begin(), frames.end(), [&](std::uintptr_t frame) { return frame >= begin && frame < end; });
    return static_cast<std::size_t>(caller - frames.begin());
}

std::span<const std::uint64_t> last_throw_stack() noexcept { return {throw_stack.frames, throw_stack.size}; }

void clear_throw_stack() noexcept { throw_stack.size = 0; }

}    // namespace multihull::detail

#else

namespace multihull::detail {

void prepare_throw_trace() {}
void call_with_throw_trace(void (*function)(void*), void* context) { function(context); }

std::size_t frames_of_task(std::span<const std::uintptr_t> frames) noexcept { return frames.size(); }

std::span<const std::uint64_t> last_throw_stack() noexcept { return {}; }

void clear_throw_stack() noexcept {}

}    // namespace multihull::detail

#endif

namespace multihull::detail {

namespace {

// Set once by a worker's first code, before any task runs.
std::uintptr_t reader_anchor = 0;
std::uintptr_t reader_there = 0;

}    // namespace

void set_reader_of_stacks(std::uintptr_t anchor, std::uintptr_t there) noexcept {
    reader_anchor = anchor;
    reader_there = there;
}

std::vector<std::uintptr_t> task_throw_stack() {
    const auto frames = last_throw_stack();
    std::vector<std::uintptr_t> addresses(frames.begin(), frames.end());
    addresses.resize(frames_of_task(addresses));
    if (reader_anchor != reader_there) {
        for (auto& address : addresses) {
            if (same_module(address, reader_anchor)) address = address - reader_anchor + reader_there;
        }
    }
    return addresses;
}

}    // namespace multihull::detail
