// What a thunk sees of the task it runs.
#pragma once

#include <multihull/codec.hpp>
#include <multihull/detail/fork_guard.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>

namespace multihull::detail {

class MapContext;

/// The arguments of a task and the place for its result. A map's thunk asks for more.
class TaskContext {
public:
    TaskContext(Reader& arguments, Writer& result) noexcept : arguments_(arguments), result_(result) {}

    Reader& arguments() noexcept { return arguments_; }
    Writer& result() noexcept { return result_; }
    /// To be called when the function has returned, before anything is made of its result.
    void returned() const noexcept { guard_.check(); }
    /// For a thunk that runs a part of a map.
    MapContext& map() noexcept { return *map_; }
    void set_map(MapContext* map) noexcept { map_ = map; }

private:
    Reader& arguments_;
    Writer& result_;
    MapContext* map_ = nullptr;
    ForkGuard guard_;
};

}    // namespace multihull::detail
