#include <multihull/stack.hpp>

#include "process/symbolize.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <mutex>
#include <string_view>

namespace multihull {
namespace {

std::string_view last_part(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string hexadecimal(std::uintptr_t value) {
    char digits[2 * sizeof value];
    return "0x" + std::string(digits, std::to_chars(digits, std::end(digits), value, 16).ptr);
}

// As much as is known: function and line, or the place in a module that a debugger can turn into them, or the address.
std::string describe(const Frame& frame) {
    std::string text;
    if (!frame.function.empty()) {
        text = frame.function;
    } else if (!frame.module.empty()) {
        text.append(last_part(frame.module)).append("+").append(hexadecimal(frame.module_offset));
    } else {
        text = hexadecimal(frame.address);
    }
    if (frame.line != 0) {
        text.append(" at ").append(last_part(frame.file)).append(":").append(std::to_string(frame.line));
    } else if (!frame.function.empty() && !frame.module.empty()) {
        text.append(" in ").append(last_part(frame.module));
    }
    return text;
}

// Without the outermost calls that only pass on: a task's reader looks for the task.
std::size_t shown_frames(const std::vector<Frame>& frames) {
    constexpr std::string_view kPassingOn[] = {"std::", "multihull::detail::", "_ZSt", "_ZZN9multihull6detail",
                                               "_ZN9multihull6detail"};
    std::size_t count = frames.size();
    while (count > 1) {
        const std::string& name = frames[count - 1].function;
        const auto begins = [&](std::string_view prefix) {
            return name.find(prefix) < std::min(name.find('('), name.find('<'));
        };
        if (!std::any_of(std::begin(kPassingOn), std::end(kPassingOn), begins)) {
            break;
        }
        --count;
    }
    return count;
}

}    // namespace

struct Stack::State {
    std::vector<std::uintptr_t> addresses;
    std::once_flag looked_up;
    std::vector<Frame> frames;
};

Stack::Stack(std::span<const std::uintptr_t> addresses) {
    if (!addresses.empty()) {
        state_ = std::make_shared<State>();
        state_->addresses.assign(addresses.begin(), addresses.end());
    }
}

bool Stack::empty() const noexcept { return state_ == nullptr; }

std::span<const std::uintptr_t> Stack::addresses() const noexcept {
    return empty() ? std::span<const std::uintptr_t>{} : std::span<const std::uintptr_t>(state_->addresses);
}

const std::vector<Frame>& Stack::frames() const {
    static const std::vector<Frame> none;
    if (empty()) {
        return none;
    }
    std::call_once(state_->looked_up, [this] { state_->frames = detail::symbolize(state_->addresses); });
    return state_->frames;
}

std::string Stack::to_string() const {
    std::string text;
    const std::size_t count = shown_frames(frames());
    for (std::size_t i = 0; i < count; ++i) {
        text.append("#").append(std::to_string(i)).append(" ").append(describe(frames()[i])).append("\n");
    }
    return text;
}

}    // namespace multihull
