// Maps as templates: inputs into shared arrays, a thunk that runs ranges of them, results out of shared arrays.
#pragma once

#include <multihull/detail/callable.hpp>
#include <multihull/detail/engine.hpp>
#include <multihull/detail/shared_object.hpp>
#include <multihull/future.hpp>

#include <algorithm>
#include <concepts>
#include <cstring>
#include <iterator>
#include <optional>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace multihull {

template <class T>
class Array;

}    // namespace multihull

namespace multihull::detail {

// How the inputs of a map travel.
enum class InputKind {
    generated,    // a run of integers: its first one
    fixed,        // an array of encodings of one size (plain values: as they are)
    encoded,      // offsets, then encodings
};

template <class T>
inline constexpr bool kIotaView = false;
template <std::integral W, class B>
inline constexpr bool kIotaView<std::ranges::iota_view<W, B>> = true;

template <class Range, class In>
consteval InputKind input_kind() {
    if (kIotaView<std::remove_cvref_t<Range>> && std::integral<In>) return InputKind::generated;
    return kFixedSize<In> != 0 ? InputKind::fixed : InputKind::encoded;
}

// One element of a map: `In` is what travels (a parameter's holder, or a tuple of all of them), `kStar` says which.
template <class F, class I, bool kStar>
struct MapCall {
    using Value = typename I::Value;
    using In = std::conditional_t<kStar, typename I::Holders, std::tuple_element_t<0, typename I::Holders>>;
    using Arrived = std::conditional_t<kStar, typename I::Arrived, std::tuple_element_t<0, typename I::Arrived>>;
    static constexpr std::size_t kOutput = [] {
        if constexpr (std::is_void_v<Value>) {
            return std::size_t{0};
        } else {
            return kFixedSize<Value>;
        }
    }();

    static Arrived decode(Reader& reader) {
        if constexpr (kStar) {
            return I::decode_arguments(reader);
        } else {
            return std::get<0>(I::decode_arguments(reader));
        }
    }
    static typename I::Result call(F& function, Arrived& in) {
        if constexpr (kStar) {
            return I::call(function, in);
        } else {
            std::tuple<Arrived&> arguments(in);    // the result may refer to it
            return I::call(function, arguments);
        }
    }
};

template <class Call, InputKind kKind>
typename Call::Arrived read_input(const std::byte* input, std::uint64_t count, std::uint64_t index) {
    using In = typename Call::In;
    if constexpr (kKind == InputKind::generated) {
        return static_cast<In>(load<In>(input) + static_cast<In>(index));
    } else if constexpr (kKind == InputKind::fixed) {
        return load<In>(input + index * kFixedSize<In>);
    } else {
        const auto begin = load<std::uint64_t>(input + index * sizeof(std::uint64_t));
        const auto end = load<std::uint64_t>(input + (index + 1) * sizeof(std::uint64_t));
        Reader reader(std::span(input + (count + 1) * sizeof(std::uint64_t) + begin, end - begin));
        return Call::decode(reader);
    }
}

template <class F, class I, bool kStar, InputKind kKind, bool kCells>
struct MapThunk {
    using Call = MapCall<F, I, kStar>;
    using Value = typename Call::Value;

    struct Loop {
        F function;
        MapContext& map;
    };

    static void run(TaskContext& context) {
        MapContext& map = context.map();
        Loop loop{decode_callable<F>(map.call()), map};
        map.run(&elements, &loop);
    }

    static void elements(void* state, std::uint64_t begin, std::uint64_t end) {
        auto& [function, map] = *static_cast<Loop*>(state);
        const std::byte* const input = map.input();
        std::byte* const output = map.output();
        const std::uint64_t count = map.count();
        const MapContext::Marks marks(map);
        for (std::uint64_t i = begin; i < end; ++i) {
            marks.start(i);
            typename Call::Arrived in = read_input<Call, kKind>(input, count, i);
            if constexpr (std::is_void_v<Value>) {
                Call::call(function, in);
                marks.returned();
                if constexpr (kCells) {
                    map.begin_cell();
                    map.finish_cell(i);
                }
            } else if constexpr (kCells) {
                const auto& value = Call::call(function, in);
                marks.returned();
                encode(map.begin_cell(), value);
                map.finish_cell(i);
            } else {
                const Value value = Call::call(function, in);
                marks.returned();
                store(output + i * Call::kOutput, value);
            }
        }
    }
};

// What a range's elements become while they travel.
template <class In, bool kStar, class Element>
In make_input(Element&& element) {
    if constexpr (kStar) {
        return std::apply([](auto&&... field) { return In(std::forward<decltype(field)>(field)...); },
                          std::forward<Element>(element));
    } else {
        return In(std::forward<Element>(element));
    }
}

// Whether the workers can read a range where it lies.
template <class In, bool kStar, InputKind kKind, class Range>
inline constexpr bool kReadInPlace =
    kKind == InputKind::fixed && kPlain<In> && !kStar && LiesInSharedMemory<std::remove_cvref_t<Range>> &&
    std::is_same_v<std::ranges::range_value_t<Range>, In>;

template <class In, bool kStar, InputKind kKind, bool kFar, class Range>
SharedBlock write_inputs(Range&& range, std::uint64_t& count) {
    if constexpr (kReadInPlace<In, kStar, kKind, Range> && !kFar) {
        count = static_cast<std::uint64_t>(std::ranges::size(range));
        SharedPlace place = SharedPlaceOf<std::remove_cvref_t<Range>>::of(range);
        SharedBlock block = SharedBlock::adopt(place.offset, 0);
        block.keep(std::move(place.owner));
        return block;
    } else if constexpr (kKind == InputKind::generated) {
        count = static_cast<std::uint64_t>(std::ranges::size(range));
        SharedBlock block(64);
        store(block.data(), count == 0 ? In{} : static_cast<In>(*std::ranges::begin(range)));
        return block;
    } else if constexpr (kKind == InputKind::fixed && std::ranges::sized_range<Range>) {
        count = static_cast<std::uint64_t>(std::ranges::size(range));
        SharedBlock block(std::max<std::size_t>(count * kFixedSize<In>, 1));
        if constexpr (kPlain<In> && std::ranges::contiguous_range<Range> && !kStar &&
                      std::is_same_v<std::remove_cvref_t<std::ranges::range_reference_t<Range>>, In>) {
            if (count != 0) std::memcpy(block.data(), std::ranges::data(range), count * sizeof(In));
        } else {
            std::byte* place = block.data();
            for (auto&& element : range) {
                store(place, make_input<In, kStar>(std::forward<decltype(element)>(element)));
                place += kFixedSize<In>;
            }
        }
        return block;
    } else {
        std::vector<In> inputs;
        if constexpr (std::ranges::sized_range<Range>) inputs.reserve(std::ranges::size(range));
        for (auto&& element : range) inputs.push_back(make_input<In, kStar>(std::forward<decltype(element)>(element)));
        count = inputs.size();
        CallBuffer buffer;
        Writer& writer = buffer.writer();
        if constexpr (kFar) writer.leave_family();
        if constexpr (kKind == InputKind::encoded) {
            for (std::uint64_t i = 0; i <= count; ++i) writer.put(std::uint64_t{0});
            const std::size_t begin = writer.size();
            for (std::uint64_t i = 0; i < count; ++i) {
                encode(writer, inputs[i]);
                writer.patch((i + 1) * sizeof(std::uint64_t), writer.size() - begin);
            }
        } else {
            for (const In& in : inputs) encode(writer, in);
        }
        return SharedBlock::take(buffer);
    }
}

template <class Value>
void read_plain_results(const MapResults& results, std::vector<Value>& values) {
    const std::byte* const bytes = results.plain;
    if constexpr (kPlain<Value> && !std::is_same_v<Value, bool>) {
        const auto* const first = reinterpret_cast<const Value*>(bytes);
        values.assign(first, first + results.count);
    } else {
        values.reserve(results.count);
        for (std::uint64_t i = 0; i < results.count; ++i) values.push_back(load<Value>(bytes + i * kFixedSize<Value>));
    }
}

template <class Value, bool kCells>
void read_map(const ResultSource& source, void* out) {
    const MapResults& results = *source.map;
    if constexpr (std::is_void_v<Value>) {
        static_cast<std::optional<Nothing>*>(out)->emplace();
    } else {
        auto& values = static_cast<std::optional<std::vector<Value>>*>(out)->emplace();
        if constexpr (kCells) {
            values.reserve(results.count);
            for (std::uint64_t i = 0; i < results.count; ++i) {
                Reader reader = results.element(i);
                values.push_back(decode<Value>(reader));
            }
        } else {
            read_plain_results(results, values);
        }
    }
}

template <class Value>
void read_task(const ResultSource& source, void* out) {
    if constexpr (std::is_void_v<Value>) {
        static_cast<std::optional<Nothing>*>(out)->emplace();
    } else {
        static_cast<std::optional<Value>*>(out)->emplace(decode<Value>(*source.reader));
    }
}

template <class Value>
using MapValue = std::conditional_t<std::is_void_v<Value>, void, std::vector<Stored<Value>>>;

// What a callable is called with for each element of a range.
template <class F, class Element, bool kStar>
struct ElementInvocation {
    using Type = InvocationOf<F, Element>;
};
template <class F, class... Fields>
struct ElementInvocation<F, std::tuple<Fields...>, true> {
    using Type = InvocationOf<F, Fields...>;
};
template <class F, class A, class B>
struct ElementInvocation<F, std::pair<A, B>, true> {
    using Type = InvocationOf<F, A, B>;
};

template <class F, class Range, bool kStar>
using RangeInvocation =
    typename ElementInvocation<F,
                               std::conditional_t<kStar, std::remove_cvref_t<std::ranges::range_reference_t<Range>>,
                                                  std::ranges::range_reference_t<Range>>,
                               kStar>::Type;

// Shared memory of the caller's that plain results go into.
struct MapTarget {
    SharedPlace place{};
    std::uint64_t size = 0;    // in results
};

template <bool kStar, bool kForceCells, class E, class F, class Range>
auto start_map(const std::shared_ptr<E>& engine, const F& function, Range&& range, const TaskOptions& options,
               std::uint32_t max_parts = 0, bool stop_on_failure = false, MapTarget into = {}) {
    using I = RangeInvocation<F, Range, kStar>;
    using Mapped = MapCall<F, I, kStar>;
    using In = typename Mapped::In;
    using Value = typename Mapped::Value;
    I::check();
    if constexpr (!std::is_void_v<Value>) require_travels<Value>();
    constexpr InputKind kKind = kStar ? input_kind<int, In>() : input_kind<Range, In>();
    constexpr bool kCells = kForceCells || (!std::is_void_v<Value> && Mapped::kOutput == 0);

    MapPlan plan;
    SharedBlock inputs = write_inputs<In, kStar, kKind, kLeavesFamily<E>>(range, plan.count);
    plan.token = Registered<&MapThunk<F, I, kStar, kKind, kCells>::run, F>::token();
    plan.output_size = Mapped::kOutput;
    plan.cells = kCells;
    plan.max_parts = max_parts;
    plan.stop_on_failure = stop_on_failure;
    if (into.place.owner) {
        if (into.size < plan.count) throw_no_room_for_results(plan.count, into.size);
        plan.output_offset = into.place.offset;
        inputs.keep(std::move(into.place.owner));
    }
    plan.input_offset = inputs.offset();
    plan.input_capacity = inputs.size();
    CallBuffer call;
    if constexpr (kLeavesFamily<E>) call.writer().leave_family();
    encode_callable(call.writer(), function);
    inputs.give_kept_to(call);
    inputs.release();
    return std::pair(submit_map(engine, call, plan, &options), plan.count);
}

// A map's future or, where the caller waits for it, no more than its end; the results are in the array.
template <bool kWait, class F, class Range, class T>
auto map_into(const std::shared_ptr<Engine>& engine, const F& function, Range&& range, const Array<T>& into,
              const TaskOptions& options) {
    using Value = typename MapCall<F, RangeInvocation<F, Range, false>, false>::Value;
    static_assert(std::is_same_v<Value, T>,
                  "multihull: the array must have elements of the type that the function returns");
    static_assert(
        kPlain<T>,
        "multihull: results of this type are encoded when they travel, and can't be written in place: use map()");
    auto [completion, count] = start_map<false, false>(engine, function, std::forward<Range>(range), options, 0, false,
                                                       {SharedPlaceOf<Array<T>>::of(into), into.size()});
    const std::shared_ptr<Completion> map = completion;
    Future<void> future(std::move(completion), 0, &read_map<void, false>);
    if constexpr (kWait) {
        if (options.progress) report_map(map, count, options.progress);
        future.get();
    } else {
        return future;
    }
}

// A map's future or, where the caller waits for it, its results.
template <bool kStar, bool kWait, class F, class Range>
auto map_future(const std::shared_ptr<Engine>& engine, const F& function, Range&& range, const TaskOptions& options) {
    using Value = typename MapCall<F, RangeInvocation<F, Range, kStar>, kStar>::Value;
    constexpr bool kCells = [] {
        if constexpr (std::is_void_v<Value>) {
            return false;
        } else {
            return kFixedSize<Value> == 0;
        }
    }();
    auto [completion, count] = start_map<kStar, false>(engine, function, std::forward<Range>(range), options);
    const std::shared_ptr<Completion> map = completion;
    Future<MapValue<Value>> future(std::move(completion), 0, &read_map<Value, kCells>);
    if constexpr (kWait) {
        if (options.progress) report_map(map, count, options.progress);
        return future.get();
    } else {
        return future;
    }
}

}    // namespace multihull::detail
