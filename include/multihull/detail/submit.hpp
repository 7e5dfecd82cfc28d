// One call into an engine's queue.
#pragma once

#include <multihull/detail/engine.hpp>
#include <multihull/detail/map.hpp>
#include <multihull/future.hpp>

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull::detail {

/// Writes a call and puts it into the queue of an Engine or a CallRunner.
template <class I, class E, class F, class... Args>
Submitted submit_arguments(const std::shared_ptr<E>& engine, const TaskOptions* options, const F& function,
                           Args&&... arguments) {
    const Token token = Registered<&CallThunk<F, I>::run, F>::token();
    CallBuffer buffer;
    Writer& writer = buffer.writer();
    if constexpr (kLeavesFamily<E>) {
        writer.leave_family();
        std::vector<LentBytes> lent;
        encode_callable(writer, function);
        I::encode_arguments_around(writer, lent, std::forward<Args>(arguments)...);
        if (!lent.empty()) return engine->submit_around(token, buffer, std::move(lent), options);
    } else {
        encode_callable(writer, function);
        I::encode_arguments(writer, std::forward<Args>(arguments)...);
    }
    return submit_to(engine, token, buffer, options);
}

/// Queues `function(arguments...)` for the next free worker of an Engine or a CallRunner.
template <class E, class Function, class... Args>
auto submit_function(const std::shared_ptr<E>& engine, const TaskOptions* options, Function function,
                     Args&&... arguments) {
    using F = std::decay_t<Function>;
    using I = InvocationOf<F, Args...>;
    using Value = typename I::Value;
    I::check();
    if constexpr (!std::is_void_v<Value>) require_travels<Value>();
    auto [completion, task] = submit_arguments<I>(engine, options, function, std::forward<Args>(arguments)...);
    return Future<Value>(std::move(completion), task, &read_task<Value>);
}

}    // namespace multihull::detail
