// Builds Objects of a pickle that was read.
#include "manager/pickle_graph.hpp"
#include "manager/utf8.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace multihull::detail {

namespace {

using Kind = PickleNode::Kind;
using Known = PickleGlobal::Known;

// What each byte of a pickle may add to PickleLimits::copied: lists of few different values are common.
constexpr std::size_t kCopiedPerByte = 64;
// About what a dict, set or instance takes besides what is in it.
constexpr std::size_t kTable = 256;
constexpr int kMostFrozen = 32;

[[noreturn]] void refuse(const std::string& what) { throw UnpicklingError("a pickle " + what); }

std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Protocol 2 writes bytes as the str whose code points they are.
std::string from_latin1(const std::string& text) {
    std::string bytes;
    for (std::string_view rest = text; !rest.empty();) {
        const CodePoint point = first_code_point(rest);
        if (point.size == 0 || point.value > 0xff) refuse("encodes as Latin-1 what that does not have");
        bytes += static_cast<char>(point.value);
        rest.remove_prefix(point.size);
    }
    return bytes;
}

bool is_str(const Object& object, std::string_view text) {
    return object.type() == Object::Type::str && object.as_str() == text;
}

// The format that array._array_reconstructor() is told for elements of a type here; -1 for no type of array's.
int machine_format(std::string_view type_code) {
    static constexpr std::pair<char, int> kFormats[] = {{'B', 0},  {'b', 1},  {'H', 2},  {'h', 4},  {'I', 6},
                                                        {'i', 8},  {'L', 10}, {'Q', 10}, {'l', 12}, {'q', 12},
                                                        {'f', 14}, {'d', 16}, {'u', 20}, {'w', 20}};
    const auto* const found = std::ranges::find_if(kFormats, [&](const auto& format) {
        return type_code == std::string_view(&format.first, 1);
    });
    return found == std::end(kFormats) ? -1 : found->second;
}

class PickleBuilder {
public:
    PickleBuilder(PickleGraph& graph, const PickleLimits& limits)
        : graph_(graph),
          depth_left_(limits.depth),
          copies_left_(limits.copied + kCopiedPerByte * graph.pickle.size()) {}

    Object build(std::uint32_t index) {
        PickleNode& node = entered(index);
        Object object;
        if (simple(node, [&](auto value) { object = Object(std::move(value)); })) return object;
        return compound(node);
    }

private:
    // What has no parts is made where it belongs.
    void append(std::vector<Object>& elements, std::uint32_t index) {
        PickleNode& node = entered(index);
        if (simple(node, [&](auto value) { elements.emplace_back(std::move(value)); })) return;
        elements.push_back(compound(node));
    }

    PickleNode& entered(std::uint32_t index) {
        PickleNode& node = graph_.nodes[index];
        charge(node);
        if (depth_left_ == 0) refuse_depth();
        return node;
    }

    // Makes a value that has no parts; false where it has.
    template <class Make>
    bool simple(const PickleNode& node, Make make) {
        switch (node.kind) {
            case Kind::none:
                make(nullptr);
                return true;
            case Kind::boolean:
                make(node.number != 0);
                return true;
            case Kind::integer:
                make(node.number);
                return true;
            case Kind::floating:
                make(std::bit_cast<double>(node.number));
                return true;
            case Kind::str:
                make(std::string(graph_.text(node)));
                return true;
            case Kind::bytes:
                make(Object::bytes(graph_.text(node)));
                return true;
            case Kind::global:
                make(class_itself(graph_.globals[static_cast<std::size_t>(node.number)]));
                return true;
            default:
                return false;
        }
    }

    // What is built for the first time is paid for by its bytes.
    void charge(PickleNode& node) {
        if (!std::exchange(node.built, true)) return;
        std::size_t cost = sizeof(Object);
        if (node.kind == Kind::str || node.kind == Kind::bytes || node.kind == Kind::byte_array) cost += node.count;
        if (node.kind >= Kind::byte_array) cost += kTable;
        if (cost > copies_left_) {
            refuse("names the same values so often that their copies would take too much memory: send them in parts");
        }
        copies_left_ -= cost;
    }

    [[noreturn]] static void refuse_depth() {
        refuse("holds values within values deeper than is allowed: make it flatter");
    }

    Object compound(PickleNode& node) {
        // An instance within which its args are a tuple is one level in the pickle here.
        const std::size_t levels = node.kind == Kind::frozen_set || node.kind == Kind::byte_array ? 3 : 1;
        if (node.being_built) refuse("holds a value that is a part of itself, which an Object can't be");
        if (depth_left_ < levels) refuse_depth();
        depth_left_ -= levels;
        node.being_built = true;
        Object object = made(node);
        node.being_built = false;
        depth_left_ += levels;
        return object;
    }

    Object made(const PickleNode& node) {
        switch (node.kind) {
            case Kind::list:
                return Object::list(elements(node));
            case Kind::tuple:
                return Object::tuple(elements(node));
            case Kind::set:
                return Object::set(elements(node));
            case Kind::frozen_set:
                return frozen_set(within_frozen_set([&] { return elements(node); }));
            case Kind::byte_array:
                return byte_array(graph_.text(node));
            case Kind::dict: {
                Object dict = Object::dict();
                each(node, [&](std::uint32_t key, std::uint32_t value) { dict[build(key)] = build(value); });
                return dict;
            }
            default:
                return instance(graph_.instances[static_cast<std::size_t>(node.number)]);
        }
    }

    std::vector<Object> elements(const PickleNode& node) {
        std::vector<Object> elements;
        elements.reserve(node.count);
        std::size_t at = static_cast<std::size_t>(node.number);
        for (std::uint32_t i = 0; i < node.count; ++i) {
            at = graph_.links[at].next;
            append(elements, graph_.links[at].node);
        }
        return elements;
    }
    template <class Do>
    void each(const PickleNode& node, Do what) {
        std::size_t at = static_cast<std::size_t>(node.number);
        for (std::uint32_t i = 0; i < node.count; i += 2) {
            const PickleLink key = graph_.links[graph_.links[at].next];
            const PickleLink value = graph_.links[key.next];
            at = key.next;
            what(key.node, value.node);
        }
    }

    static Object byte_array(std::string_view bytes) {
        return Object::instance({.module = "builtins",
                                 .name = "bytearray",
                                 .args = Object::tuple({Object::bytes(bytes)})});
    }

    // In one order whichever it came in, so that equal ones are.
    static Object frozen_set(std::vector<Object> elements) {
        const Object set = Object::set(std::move(elements));
        std::vector<Object> sorted(set.begin(), set.end());
        std::ranges::stable_sort(sorted, {}, [](const Object& element) { return element.hash(); });
        return Object::instance({.module = "builtins",
                                 .name = "frozenset",
                                 .args = Object::tuple({Object::tuple(std::move(sorted))})});
    }

    // Each frozenset is hashed within each that holds it.
    template <class Build>
    std::invoke_result_t<Build> within_frozen_set(Build build) {
        if (frozen_ == kMostFrozen) refuse("holds frozensets within frozensets deeper than is allowed: use tuples");
        ++frozen_;
        std::invoke_result_t<Build> built = build();
        --frozen_;
        return built;
    }

    static Object class_itself(const PickleGlobal& global) {
        if (!global.listed) refuse("has the class " + std::string(global.name) + " itself as a value");
        return Object::instance({.module = std::string(global.module), .name = std::string(global.name), .args = {}});
    }

    Object instance(const PickleInstance& described) {
        const PickleGlobal& global = graph_.globals[described.global];
        const auto build_args = [&] { return build(described.args); };
        Object args = global.known == Known::frozenset ? within_frozen_set(build_args) : build_args();
        if (global.known != Known::other) {
            if (described.by_new || described.state != 0) refuse("makes plain data in a way that Python does not");
            return plain(global.known, args);
        }
        return Object::instance({.module = std::string(global.module),
                                 .name = std::string(global.name),
                                 .args = std::move(args),
                                 .state = build(described.state),
                                 .by_new = described.by_new});
    }

    static Object plain(Known known, const Object& args) {
        const auto given = args.elements();
        const bool is_sequence =
            given.size() == 1 && (given[0].type() == Object::Type::list || given[0].type() == Object::Type::tuple);
        const bool is_bytes = given.size() == 1 && given[0].type() == Object::Type::bytes;
        switch (known) {
            case Known::bytes:
                if (given.empty()) return Object::bytes(std::string_view());
                if (is_bytes) return given[0];
                break;
            case Known::bytearray:
                if (given.empty()) return byte_array({});
                if (is_bytes) return byte_array(text_of(given[0].as_bytes()));
                break;
            case Known::list:
                if (is_sequence) return Object::list(std::vector<Object>(given[0].begin(), given[0].end()));
                break;
            case Known::set:
            case Known::frozenset: {
                std::vector<Object> elements;
                if (is_sequence) elements.assign(given[0].begin(), given[0].end());
                if (!is_sequence && !given.empty()) break;
                return known == Known::set ? Object::set(std::move(elements)) : frozen_set(std::move(elements));
            }
            case Known::encode:
                if (given.size() == 2 && given[0].type() == Object::Type::str && is_str(given[1], "latin1")) {
                    return Object::bytes(from_latin1(given[0].as_str()));
                }
                break;
            case Known::array:
                return array(given);
            case Known::other:
                break;
        }
        refuse("makes plain data in a way that Python does not");
    }

    // array._array_reconstructor(array.array, type code, format, bytes), as array.array(type code, bytes).
    static Object array(std::span<const Object> given) {
        if (given.size() != 4 || given[1].type() != Object::Type::str || given[2].type() != Object::Type::integer ||
            given[3].type() != Object::Type::bytes) {
            refuse("makes an array in a way that Python does not");
        }
        if (machine_format(given[1].as_str()) != given[2].as_int()) {
            refuse("holds an array of another kind of machine: send it as a list");
        }
        return Object::instance({.module = "array", .name = "array", .args = Object::tuple({given[1], given[3]})});
    }

    PickleGraph& graph_;
    std::size_t depth_left_;
    std::size_t copies_left_;
    int frozen_ = 0;
};

}    // namespace

Object build_pickled(PickleGraph& graph, const PickleLimits& limits) {
    try {
        return PickleBuilder(graph, limits).build(graph.result);
    } catch (const TypeError&) {
        refuse("holds a dict or set with a key that can't be hashed");
    }
}

Object unpickle(std::span<const std::byte> pickle, const PickleGlobals& allowed, const PickleLimits& limits) {
    PickleGraph graph;
    parse_pickle(pickle, allowed, limits, graph);
    return build_pickled(graph, limits);
}

}    // namespace multihull::detail
