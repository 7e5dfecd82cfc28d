#include "process/backtrace.hpp"

#include <unistd.h>
#include <unwind.h>

#include <algorithm>
#include <atomic>
#include <csetjmp>
#include <optional>

namespace multihull::detail {
namespace {

// Code without unwind tables that one stack may lead through.
constexpr int kGapsLimit = 4;
// Words of a stack that are searched for the caller of code without unwind tables.
constexpr std::size_t kSearchedWords = 512;

// The three registers that unwinding starts from.
struct Registers {
    std::uintptr_t program_counter;
    std::uintptr_t stack_pointer;
    std::uintptr_t frame_pointer;
};

#if defined(__x86_64__)

constexpr int kFramePointerColumn = 6;

Registers registers_of(const ucontext_t& context) noexcept {
    const auto& registers = context.uc_mcontext.gregs;
    return {static_cast<std::uintptr_t>(registers[REG_RIP]), static_cast<std::uintptr_t>(registers[REG_RSP]),
            static_cast<std::uintptr_t>(registers[REG_RBP])};
}

void set_registers(ucontext_t& context, const Registers& values) noexcept {
    auto& registers = context.uc_mcontext.gregs;
    registers[REG_RIP] = static_cast<greg_t>(values.program_counter);
    registers[REG_RSP] = static_cast<greg_t>(values.stack_pointer);
    registers[REG_RBP] = static_cast<greg_t>(values.frame_pointer);
}

#elif defined(__aarch64__)

constexpr int kFramePointerColumn = 29;

Registers registers_of(const ucontext_t& context) noexcept {
    const auto& machine = context.uc_mcontext;
    return {machine.pc, machine.sp, machine.regs[29]};
}

void set_registers(ucontext_t& context, const Registers& values) noexcept {
    auto& machine = context.uc_mcontext;
    machine.pc = values.program_counter;
    machine.sp = values.stack_pointer;
    machine.regs[29] = values.frame_pointer;
}

#else
#error "Multihull knows the registers of x86-64 and AArch64 only: add those of this processor here."
#endif

void push(RawStack& stack, std::uintptr_t frame) noexcept {
    if (stack.size < RawStack::kFrames) {
        stack.frames[stack.size] = frame;
        stack.size = stack.size + 1;
    }
}

// An address inside the instruction that the frame was executing.
std::uintptr_t address_of(_Unwind_Context* context) noexcept {
    int before_instruction = 0;
    const std::uintptr_t address = _Unwind_GetIPInfo(context, &before_instruction);
    return address == 0 || before_instruction != 0 ? address : address - 1;
}

struct OwnWalk {
    RawStack* stack;
    int skip;
};

_Unwind_Reason_Code add_own(_Unwind_Context* context, void* argument) {
    auto& walk = *static_cast<OwnWalk*>(argument);
    const std::uintptr_t address = address_of(context);
    if (address == 0 || walk.stack->size >= RawStack::kFrames) {
        return _URC_END_OF_STACK;
    }
    if (walk.skip-- <= 0) {
        push(*walk.stack, address);
    }
    return _URC_NO_REASON;
}

// A walk that starts at the interrupted frame; those of the handler and of the kernel's trampoline come before it.
struct InterruptedWalk {
    RawStack* stack;
    std::uintptr_t start;
    bool started;
    bool ended;    // At the thread's first function, not where unwind tables are missing.
    Registers last;
};

_Unwind_Reason_Code add_interrupted(_Unwind_Context* context, void* argument) {
    auto& walk = *static_cast<InterruptedWalk*>(argument);
    const std::uintptr_t address = address_of(context);
    if (!walk.started) {
        walk.started = address == walk.start;
    } else if (address == 0) {
        walk.ended = true;
    } else {
        push(*walk.stack, address);
        walk.ended = walk.stack->size >= RawStack::kFrames;
    }
    walk.last = {address, _Unwind_GetCFA(context), _Unwind_GetGR(context, kFramePointerColumn)};
    return walk.ended ? _URC_END_OF_STACK : _URC_NO_REASON;
}

bool has_unwind_table(std::uintptr_t return_address) noexcept {
    return _Unwind_FindEnclosingFunction(reinterpret_cast<void*>(return_address)) != nullptr;
}

#if defined(__x86_64__)

// Whatever lies on the stack may be read here, poisoned by a sanitizer or not.
__attribute__((noinline, no_sanitize("address", "thread", "undefined"))) std::uintptr_t word_at(
    std::uintptr_t address) noexcept {
    return *reinterpret_cast<const volatile std::uintptr_t*>(address);
}

// The bytes before a return address are those of a call.
__attribute__((noinline, no_sanitize("address", "thread", "undefined"))) bool follows_call(
    std::uintptr_t return_address) noexcept {
    const auto* code = reinterpret_cast<const volatile unsigned char*>(return_address);
    const auto indirect = [code](int length) { return code[-length] == 0xff && (code[1 - length] >> 3 & 7) == 2; };
    return code[-5] == 0xe8 || indirect(2) || indirect(3) || indirect(4) || indirect(6) || indirect(7);
}

// The caller of code without unwind tables: the first return address that still lies on its stack. At the entry of a
// function, as after a call through a wild pointer, that is the first word.
std::optional<Registers> find_caller(const Registers& callee, const ucontext_t&) noexcept {
    for (std::size_t i = 0; i < kSearchedWords; ++i) {
        const std::uintptr_t slot = (callee.stack_pointer & ~std::uintptr_t{7}) + i * sizeof(std::uintptr_t);
        const std::uintptr_t word = word_at(slot);
        if (word > 4096 && has_unwind_table(word) && follows_call(word)) {
            const bool saved_below = callee.frame_pointer == slot - sizeof(std::uintptr_t);
            return Registers{word - 1, slot + sizeof(std::uintptr_t),
                             saved_below ? word_at(callee.frame_pointer) : callee.frame_pointer};
        }
    }
    return std::nullopt;
}

#else

// The caller of code without unwind tables, where it was interrupted before it called anything itself.
std::optional<Registers> find_caller(const Registers& callee, const ucontext_t& context) noexcept {
    const std::uintptr_t link = context.uc_mcontext.regs[30];
    const bool interrupted = callee.program_counter == context.uc_mcontext.pc;
    if (!interrupted || link == 0 || !has_unwind_table(link)) {
        return std::nullopt;
    }
    return Registers{link - 1, callee.stack_pointer, callee.frame_pointer};
}

#endif

// The handler was not called from the interrupted code: the thread sanitizer keeps signals back, and delivers them from
// calls into its runtime. Then the stack that it is called on is the best there is.
void add_own_instead(RawStack& stack) noexcept {
    OwnWalk walk{&stack, 0};
    _Unwind_Backtrace(add_own, &walk);
}

// The unwinder can't be told where to start, but it reads the interrupted registers from `context`: changing them there
// is how it goes on beyond code without unwind tables.
void walk_interrupted(RawStack& stack, ucontext_t& context) noexcept {
    Registers last = registers_of(context);
    // The unwinder would read a wild program counter's instructions in search of a signal trampoline.
    bool walkable = has_unwind_table(last.program_counter + 1);
    for (int gaps = 0; gaps <= kGapsLimit; ++gaps) {
        if (walkable) {
            InterruptedWalk walk{&stack, registers_of(context).program_counter, false, false, last};
            _Unwind_Backtrace(add_interrupted, &walk);
            if (!walk.started) {
                add_own_instead(stack);
            }
            if (walk.ended || !walk.started) {
                return;
            }
            last = walk.last;
        }
        const std::optional<Registers> caller = find_caller(last, context);
        if (!caller) {
            return;
        }
        push(stack, caller->program_counter);
        set_registers(context, *caller);
        walkable = true;
    }
}

// Where a thread goes on when its unwinding faults. There are few, because a process has one thread that crashed first
// and one that shows its stack.
struct Refuge {
    std::atomic<pid_t> thread;
    sigjmp_buf buffer;
};

static_assert(std::atomic<pid_t>::is_always_lock_free);
Refuge refuges[4];

Refuge* claim_refuge(pid_t thread) noexcept {
    for (Refuge& refuge : refuges) {
        pid_t nobody = 0;
        // A negative one is claimed, and not to be jumped to yet.
        if (refuge.thread.compare_exchange_strong(nobody, -thread, std::memory_order_relaxed)) {
            return &refuge;
        }
    }
    return nullptr;
}

}    // namespace

void warm_up_unwinder() noexcept {
    RawStack stack{};
    capture(stack, 0);
    // Looked up through the dynamic linker when first called, which no handler may be the one to do.
    static_cast<void>(_Unwind_FindEnclosingFunction(reinterpret_cast<void*>(&warm_up_unwinder)));
}

__attribute__((noinline)) void capture(RawStack& stack, int skip) noexcept {
    stack.size = 0;
    OwnWalk walk{&stack, skip + 1};
    _Unwind_Backtrace(add_own, &walk);
}

__attribute__((noinline)) void capture_from(RawStack& stack, ucontext_t* context) noexcept {
    const Registers interrupted = registers_of(*context);
    stack.frames[0] = interrupted.program_counter;
    stack.size = 1;
    const pid_t thread = gettid();
    Refuge* const refuge = claim_refuge(thread);
    if (refuge == nullptr) {
        return;
    }
    if (sigsetjmp(refuge->buffer, 0) == 0) {
        // Only this thread and handlers that run on it read the value.
        refuge->thread.store(thread, std::memory_order_relaxed);
        std::atomic_signal_fence(std::memory_order_seq_cst);
        walk_interrupted(stack, *context);
    }
    set_registers(*context, interrupted);
    refuge->thread.store(0, std::memory_order_relaxed);
}

void leave_faulty_capture() noexcept {
    const pid_t thread = gettid();
    for (Refuge& refuge : refuges) {
        if (refuge.thread.load(std::memory_order_relaxed) == thread) {
            siglongjmp(refuge.buffer, 1);
        }
    }
}

std::vector<std::uintptr_t> copy_frames(const RawStack& stack) {
    const std::size_t size = std::min<std::size_t>(stack.size, RawStack::kFrames);
    return {stack.frames, stack.frames + size};
}

}    // namespace multihull::detail
