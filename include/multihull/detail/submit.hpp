// One call into an engine's queue.
#pragma once

#include <multihull/detail/engine.hpp>
#include <multihull/detail/map.hpp>
#include <multihull/future.hpp>

#include <memory>
#include <type_traits>
#include <utility>

namespace multihull::detail {

/// Queues `function(arguments...)` for the engine's next free worker.
template <class Function, class... Args>
auto submit_function(const std::shared_ptr<Engine>& engine, const TaskOptions* options, Function function,
                     Args&&... arguments) {
    using F = std::decay_t<Function>;
    using I = InvocationOf<F, Args...>;
    using Value = typename I::Value;
    I::check();
    if constexpr (!std::is_void_v<Value>) require_travels<Value>();
    CallBuffer buffer;
    encode_callable(buffer.writer(), function);
    typename I::Holders holders(std::forward<Args>(arguments)...);
    encode(buffer.writer(), holders);
    const std::uint32_t task = submit_call(*engine, Registered<&CallThunk<F, I>::run, F>::token(), buffer, options);
    return Future<Value>(as_completion(engine), task, &read_task<Value>);
}

}    // namespace multihull::detail
