// One call into an engine's queue.
#pragma once

#include <multihull/detail/engine.hpp>
#include <multihull/detail/map.hpp>
#include <multihull/future.hpp>

#include <memory>
#include <type_traits>
#include <utility>

namespace multihull::detail {

/// Queues `function(arguments...)` for the next free worker of an Engine or a CallRunner.
template <class E, class Function, class... Args>
auto submit_function(const std::shared_ptr<E>& engine, const TaskOptions* options, Function function,
                     Args&&... arguments) {
    using F = std::decay_t<Function>;
    using I = InvocationOf<F, Args...>;
    using Value = typename I::Value;
    I::check();
    if constexpr (!std::is_void_v<Value>) require_travels<Value>();
    CallBuffer buffer;
    if constexpr (kLeavesFamily<E>) buffer.writer().leave_family();
    encode_callable(buffer.writer(), function);
    typename I::Holders holders(std::forward<Args>(arguments)...);
    encode(buffer.writer(), holders);
    auto [completion, task] = submit_to(engine, Registered<&CallThunk<F, I>::run, F>::token(), buffer, options);
    return Future<Value>(std::move(completion), task, &read_task<Value>);
}

}    // namespace multihull::detail
