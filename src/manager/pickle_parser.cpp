// Runs a pickle's instructions over a stack of nodes, which are described and not built.
#include "manager/pickle_graph.hpp"
#include "manager/pickle_opcodes.hpp"
#include "manager/utf8.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace multihull::detail {

namespace {

using Kind = PickleNode::Kind;
using Known = PickleGlobal::Known;

constexpr int kOldestProtocol = 2;
constexpr int kNewestProtocol = 5;
// How much of a name that was refused is shown.
constexpr std::size_t kLongestName = 200;

// Protocol 2 has Python 2's names.
PickleGlobal renamed(std::string_view module, std::string_view name) noexcept {
    if (module == "__builtin__" && name == "xrange") return {"builtins", "range"};
    if (module == "__builtin__" || module == "exceptions") return {"builtins", name};
    if (module == "Queue") return {"queue", name};
    if (module == "cPickle") return {"pickle", name};
    if (module == "multiprocessing") return {"multiprocessing.context", name};
    return {module, name};
}

// What Python makes plain data with where its protocol has no instruction for it.
Known known(std::string_view module, std::string_view name) noexcept {
    if (module == "builtins") {
        if (name == "bytes") return Known::bytes;
        if (name == "bytearray") return Known::bytearray;
        if (name == "list") return Known::list;    // a manager's dict.keys()
        if (name == "set") return Known::set;
        if (name == "frozenset") return Known::frozenset;
    }
    return module == "_codecs" && name == "encode" ? Known::encode : Known::other;
}

class PickleParser {
public:
    PickleParser(const PickleGlobals& allowed, const PickleLimits& limits, PickleGraph& graph)
        : allowed_(allowed),
          memo_limit_(limits.memo),
          graph_(graph),
          begin_(reinterpret_cast<const char*>(graph.pickle.data())),
          size_(graph.pickle.size()) {}

    void parse() {
        if (size_ == 0 || static_cast<Opcode>(begin_[0]) != Opcode::proto) {
            refuse(
                "begins with no protocol's number: protocols 2 to 5 are understood, which pickle.dumps(value) writes");
        }
        graph_.nodes.emplace_back();    // None
        for (;;) {
            const auto opcode = static_cast<Opcode>(read<unsigned char>());
            if (opcode == Opcode::stop) break;
            if (!simple(opcode) && !counted(opcode) && !containing(opcode) && !naming(opcode))
                refuse_instruction(opcode);
        }
        graph_.result = pop();
        if (!stack_.empty() || !marks_.empty()) refuse("ends with values left over");
        if (at_ != size_) refuse("goes on behind its end");
    }

private:
    [[noreturn]] void refuse(const std::string& what) const {
        throw UnpicklingError("a pickle " + what + " (at byte " + std::to_string(at_) + " of " + std::to_string(size_) +
                              ")");
    }
    [[noreturn]] void refuse_instruction(Opcode opcode) const {
        refuse("has the instruction " + std::to_string(static_cast<int>(opcode)) +
               ", which is none of those that plain data in protocols 2 to 5 is written with");
    }

    std::size_t remaining() const noexcept { return size_ - at_; }
    std::string_view take(std::uint64_t count) {
        if (count > remaining()) refuse("is cut short");
        const std::string_view bytes(begin_ + at_, static_cast<std::size_t>(count));
        at_ += bytes.size();
        return bytes;
    }
    template <class T>
    T read() {
        static_assert(std::endian::native == std::endian::little);
        T number;
        std::memcpy(&number, take(sizeof number).data(), sizeof number);
        return number;
    }
    std::string_view line() {
        const std::string_view rest(begin_ + at_, remaining());
        const std::size_t end = rest.find('\n');
        if (end == rest.npos) refuse("is cut short");
        at_ += end + 1;
        return rest.substr(0, end);
    }

    // The stack, whose values below the last mark are out of reach.
    std::size_t fence() const noexcept { return marks_.empty() ? 0 : marks_.back(); }
    std::uint32_t top() const {
        if (stack_.size() <= fence()) refuse("takes a value where there is none");
        return stack_.back();
    }
    std::uint32_t pop() {
        const std::uint32_t node = top();
        stack_.pop_back();
        return node;
    }
    std::uint32_t push(PickleNode node) {
        const auto index = static_cast<std::uint32_t>(graph_.nodes.size());
        graph_.nodes.push_back(node);
        stack_.push_back(index);
        return index;
    }
    // Where the last so many values begin.
    std::size_t last(std::size_t count) const {
        if (stack_.size() < fence() + count) refuse("takes a value where there is none");
        return stack_.size() - count;
    }
    // Where the values above the last mark begin.
    std::size_t pop_mark() {
        if (marks_.empty()) refuse("takes a mark where there is none");
        const std::size_t mark = marks_.back();
        marks_.pop_back();
        return mark;
    }

    void link(PickleNode& node, std::uint32_t child) {
        const auto index = static_cast<std::uint32_t>(graph_.links.size());
        std::uint32_t first = index;
        if (node.count != 0) {
            PickleLink& last = graph_.links[static_cast<std::size_t>(node.number)];
            first = last.next;
            last.next = index;
        }
        graph_.links.push_back({child, first});
        node.number = index;
        ++node.count;
    }
    void link_from(PickleNode& node, std::size_t first) {
        for (std::size_t i = first; i < stack_.size(); ++i) link(node, stack_[i]);
    }
    // A new node of the values from `first` on.
    void gather(Kind kind, std::size_t first) {
        PickleNode node{.kind = kind};
        link_from(node, first);
        if (kind == Kind::dict && node.count % 2 != 0) refuse("has a key without a value");
        stack_.resize(first);
        push(node);
    }
    void gather_last(std::size_t count) { gather(Kind::tuple, last(count)); }
    // Puts the values from `first` on into what lies below them.
    void put_into(Kind kind, std::size_t first) {
        if (first <= fence()) refuse("takes a value where there is none");
        PickleNode& node = graph_.nodes[stack_[first - 1]];
        if (node.kind != kind) refuse("puts values into something else");
        link_from(node, first);
        stack_.resize(first);
        if (kind == Kind::dict && node.count % 2 != 0) refuse("has a key without a value");
    }
    void put_last_into(Kind kind, std::size_t count) { put_into(kind, last(count)); }

    // Values without parts, and what moves them about.
    bool simple(Opcode opcode) {
        switch (opcode) {
            case Opcode::proto:
                protocol_ = read<unsigned char>();
                if (protocol_ < kOldestProtocol || protocol_ > kNewestProtocol) {
                    refuse("is of protocol " + std::to_string(protocol_) + ": protocols 2 to 5 are understood");
                }
                return true;
            case Opcode::frame:
                if (read<std::uint64_t>() > remaining()) refuse("is cut short");
                return true;
            case Opcode::none:
                stack_.push_back(0);
                return true;
            case Opcode::newtrue:
            case Opcode::newfalse:
                push({.number = opcode == Opcode::newtrue ? 1 : 0, .kind = Kind::boolean});
                return true;
            case Opcode::binint1:
                push({.number = read<std::uint8_t>(), .kind = Kind::integer});
                return true;
            case Opcode::binint2:
                push({.number = read<std::uint16_t>(), .kind = Kind::integer});
                return true;
            case Opcode::binint:
                push({.number = read<std::int32_t>(), .kind = Kind::integer});
                return true;
            case Opcode::long1:
                push({.number = long_integer(take(read<std::uint8_t>())), .kind = Kind::integer});
                return true;
            case Opcode::long4: {
                const auto size = read<std::int32_t>();
                if (size < 0) refuse("has an int of a negative size");
                push({.number = long_integer(take(static_cast<std::uint64_t>(size))), .kind = Kind::integer});
                return true;
            }
            case Opcode::binfloat: {
                std::int64_t bits = 0;
                for (const char byte : take(8))
                    bits = static_cast<std::int64_t>(static_cast<std::uint64_t>(bits) << 8 |
                                                     static_cast<unsigned char>(byte));
                push({.number = bits, .kind = Kind::floating});
                return true;
            }
            case Opcode::mark:
                marks_.push_back(stack_.size());
                return true;
            case Opcode::pop:
                if (!marks_.empty() && stack_.size() == marks_.back()) {
                    marks_.pop_back();
                } else {
                    pop();
                }
                return true;
            case Opcode::pop_mark:
                stack_.resize(pop_mark());
                return true;
            case Opcode::dup:
                stack_.push_back(top());
                return true;
            case Opcode::memoize:
                remember(memo_size_);
                return true;
            case Opcode::binput:
                remember(read<std::uint8_t>());
                return true;
            case Opcode::long_binput:
                remember(read<std::uint32_t>());
                return true;
            case Opcode::binget:
                recall(read<std::uint8_t>());
                return true;
            case Opcode::long_binget:
                recall(read<std::uint32_t>());
                return true;
            default:
                return false;
        }
    }

    // Values whose length comes first.
    bool counted(Opcode opcode) {
        switch (opcode) {
            case Opcode::short_binunicode:
                text(read<std::uint8_t>());
                return true;
            case Opcode::binunicode:
                text(read<std::uint32_t>());
                return true;
            case Opcode::binunicode8:
                text(read<std::uint64_t>());
                return true;
            case Opcode::short_binbytes:
                bytes(Kind::bytes, read<std::uint8_t>());
                return true;
            case Opcode::binbytes:
                bytes(Kind::bytes, read<std::uint32_t>());
                return true;
            case Opcode::binbytes8:
                bytes(Kind::bytes, read<std::uint64_t>());
                return true;
            case Opcode::bytearray8:
                bytes(Kind::byte_array, read<std::uint64_t>());
                return true;
            default:
                return false;
        }
    }

    // Values made of others.
    bool containing(Opcode opcode) {
        switch (opcode) {
            case Opcode::empty_list:
                push({.kind = Kind::list});
                return true;
            case Opcode::empty_tuple:
                push({.kind = Kind::tuple});
                return true;
            case Opcode::empty_dict:
                push({.kind = Kind::dict});
                return true;
            case Opcode::empty_set:
                push({.kind = Kind::set});
                return true;
            case Opcode::tuple1:
                gather_last(1);
                return true;
            case Opcode::tuple2:
                gather_last(2);
                return true;
            case Opcode::tuple3:
                gather_last(3);
                return true;
            case Opcode::tuple:
                gather(Kind::tuple, pop_mark());
                return true;
            case Opcode::list:
                gather(Kind::list, pop_mark());
                return true;
            case Opcode::dict:
                gather(Kind::dict, pop_mark());
                return true;
            case Opcode::frozenset:
                gather(Kind::frozen_set, pop_mark());
                return true;
            case Opcode::append:
                put_last_into(Kind::list, 1);
                return true;
            case Opcode::appends:
                put_into(Kind::list, pop_mark());
                return true;
            case Opcode::setitem:
                put_last_into(Kind::dict, 2);
                return true;
            case Opcode::setitems:
                put_into(Kind::dict, pop_mark());
                return true;
            case Opcode::additems:
                put_into(Kind::set, pop_mark());
                return true;
            default:
                return false;
        }
    }

    // Values that are made with what is named.
    bool naming(Opcode opcode) {
        switch (opcode) {
            case Opcode::global: {
                const std::string_view module = line();
                push_global(module, line());
                return true;
            }
            case Opcode::stack_global: {
                const PickleNode name = graph_.nodes[pop()];
                const PickleNode module = graph_.nodes[pop()];
                if (name.kind != Kind::str || module.kind != Kind::str) refuse("names something by what is no str");
                push_global(graph_.text(module), graph_.text(name));
                return true;
            }
            case Opcode::reduce:
            case Opcode::newobj:
                make_instance(opcode == Opcode::newobj);
                return true;
            case Opcode::build: {
                const std::uint32_t state = pop();
                const PickleNode& node = graph_.nodes[top()];
                if (node.kind != Kind::instance) refuse("puts a state into something else");
                PickleInstance& instance = graph_.instances[static_cast<std::size_t>(node.number)];
                if (instance.state != 0) refuse("puts a state into what has one");
                instance.state = state;
                return true;
            }
            default:
                return false;
        }
    }

    std::int64_t long_integer(std::string_view bytes) const {
        const bool negative = !bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80U) != 0;
        const char sign = negative ? '\xff' : '\0';
        std::int64_t number = negative ? -1 : 0;
        const bool fits =
            bytes.size() <= 8 ||
            (std::ranges::all_of(bytes.substr(8), [&](char byte) { return byte == sign; }) &&
             (static_cast<unsigned char>(bytes[7]) & 0x80U) == (static_cast<unsigned char>(sign) & 0x80U));
        if (!fits) refuse("holds an int that 64 bits with a sign can't hold: send it as a str or a float");
        std::memcpy(&number, bytes.data(), std::min<std::size_t>(bytes.size(), 8));
        return number;
    }

    void bytes(Kind kind, std::uint64_t count) {
        const auto where = static_cast<std::int64_t>(at_);
        take(count);
        push({.number = where, .count = static_cast<std::uint32_t>(count), .kind = kind});
    }
    void text(std::uint64_t count) {
        const auto where = static_cast<std::int64_t>(at_);
        if (!is_utf8(take(count))) refuse("holds a str that is not UTF-8");
        push({.number = where, .count = static_cast<std::uint32_t>(count), .kind = Kind::str});
    }

    void push_global(std::string_view module, std::string_view name) {
        PickleGlobal global = protocol_ < 3 ? renamed(module, name) : PickleGlobal{module, name};
        global.listed = allowed_.allows(global.module, global.name);
        global.known = known(global.module, global.name);
        if (!global.listed && global.known == Known::other) {
            throw UnpicklingError("a pickle names " + std::string(module.substr(0, kLongestName)) + "." +
                                  std::string(name.substr(0, kLongestName)) +
                                  ", which it may not here: only plain data and what multiprocessing sends is taken");
        }
        if (!is_utf8(global.module) || !is_utf8(global.name)) refuse("holds a name that is not UTF-8");
        if (global.module == "array" && global.name == "_array_reconstructor") global.known = Known::array;
        graph_.globals.push_back(global);
        push({.number = static_cast<std::int64_t>(graph_.globals.size() - 1), .kind = Kind::global});
    }

    void make_instance(bool by_new) {
        const std::uint32_t args = pop();
        if (graph_.nodes[args].kind != Kind::tuple) refuse("calls something with what is no tuple");
        const PickleNode callee = graph_.nodes[pop()];
        if (callee.kind != Kind::global) refuse("calls what is no class");
        graph_.instances.push_back({static_cast<std::uint32_t>(callee.number), args, 0, by_new});
        push({.number = static_cast<std::int64_t>(graph_.instances.size() - 1), .kind = Kind::instance});
    }

    // Numbers are given in order, and each takes two bytes at least: none is greater than the pickle is long.
    void remember(std::size_t number) {
        const std::uint32_t node = top();
        if (number >= memo_limit_ || number >= size_) refuse("numbers more values than are allowed");
        if (number == memo_.size()) {    // as picklers do
            memo_.push_back(node);
            ++memo_size_;
            return;
        }
        if (number > memo_.size()) memo_.resize(number + 1, kNothing);
        if (memo_[number] == kNothing) ++memo_size_;
        memo_[number] = node;
    }
    void recall(std::size_t number) {
        if (number >= memo_.size() || memo_[number] == kNothing) refuse("uses a number that it gave to no value");
        stack_.push_back(memo_[number]);
    }

    static constexpr std::uint32_t kNothing = std::numeric_limits<std::uint32_t>::max();

    const PickleGlobals& allowed_;
    const std::size_t memo_limit_;
    PickleGraph& graph_;
    const char* const begin_;
    const std::size_t size_;
    std::size_t at_ = 0;
    int protocol_ = 0;
    boost::container::small_vector<std::uint32_t, 48> stack_;
    boost::container::small_vector<std::size_t, 16> marks_;
    boost::container::small_vector<std::uint32_t, 48> memo_;
    std::size_t memo_size_ = 0;
};

}    // namespace

void parse_pickle(std::span<const std::byte> pickle, const PickleGlobals& allowed, const PickleLimits& limits,
                  PickleGraph& graph) {
    // Nodes are numbered, and places counted, in 32 bits.
    const std::size_t most = std::min<std::size_t>(limits.bytes, std::numeric_limits<std::uint32_t>::max() - 1);
    if (pickle.size() > most) {
        throw UnpicklingError("a pickle of " + std::to_string(pickle.size()) + " bytes came where at most " +
                              std::to_string(most) + " are allowed: send it in parts");
    }
    graph.pickle = pickle;
    PickleParser(allowed, limits, graph).parse();
}

}    // namespace multihull::detail
