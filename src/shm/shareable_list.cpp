// The layout of Python's ShareableList, all numbers in the machine's own byte order:
//   8 bytes: how many elements there are, n
//   n + 1 times 8 bytes: where each element begins, from the first one on, and where the last one ends
//   the elements, each in a multiple of eight bytes
//   n times 8 bytes: how each is packed, in the words of Python's struct module
//   n times 1 byte: what is made of what was unpacked
#include <multihull/shareable_list.hpp>

#include <multihull/codec.hpp>
#include <multihull/error.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace multihull {

namespace {

using Value = ShareableList::Value;

constexpr std::size_t kWord = 8;
// A format has eight characters: seven digits and the "s".
constexpr std::size_t kMaxRoom = 9'999'999 / kWord * kWord;

constexpr std::string_view kIntFormat = "q";
constexpr std::string_view kFloatFormat = "d";
constexpr std::string_view kBoolFormat = "xxxxxxx?";
constexpr std::string_view kNoneFormat = "xxxxxx?x";

// What is made of what was unpacked.
enum class Transform : std::uint8_t { as_it_is, text, bytes, none };

constexpr std::array<const char*, 6> kTypeNames{"None", "a bool", "an int", "a float", "a str", "bytes"};

// Words are shared with processes that know nothing of each other's locks, so they are read and written whole.
std::uint64_t load_word(const std::byte* place) {
    return std::atomic_ref(*reinterpret_cast<std::uint64_t*>(const_cast<std::byte*>(place)))
        .load(std::memory_order_relaxed);
}
void store_word(std::byte* place, std::uint64_t word) {
    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(place)).store(word, std::memory_order_relaxed);
}

std::uint64_t word_of(std::string_view format) {
    std::array<char, kWord> characters{};
    std::ranges::copy(format.substr(0, kWord), characters.begin());
    return std::bit_cast<std::uint64_t>(characters);
}

// The bytes of a text or of bytes; empty for the others.
std::optional<std::span<const std::byte>> bytes_of(const Value& value) {
    if (const auto* text = std::get_if<std::string>(&value)) return std::as_bytes(std::span(*text));
    if (const auto* bytes = std::get_if<ShareableList::Bytes>(&value)) return std::span(*bytes);
    return std::nullopt;
}

std::string text_format(std::size_t room) { return std::to_string(room) + "s"; }

std::size_t room_for(const Value& value) {
    const auto bytes = bytes_of(value);
    if (!bytes) return kWord;
    const std::size_t room = (bytes->size() / kWord + 1) * kWord;
    if (room > kMaxRoom) {
        throw std::length_error("a text of " + std::to_string(bytes->size()) +
                                " bytes does not fit into a ShareableList: an element has at most " +
                                std::to_string(kMaxRoom - 1) + "; put it into a SharedMemory of its own");
    }
    return room;
}

// How a value is packed where a text has `room` bytes.
std::string format_for(const Value& value, std::size_t room) {
    switch (value.index()) {
        case 0:
            return std::string(kNoneFormat);
        case 1:
            return std::string(kBoolFormat);
        case 2:
            return std::string(kIntFormat);
        case 3:
            return std::string(kFloatFormat);
        default:
            return text_format(room);
    }
}

Transform transform_for(const Value& value) {
    switch (value.index()) {
        case 0:
            return Transform::none;
        case 4:
            return Transform::text;
        case 5:
            return Transform::bytes;
        default:
            return Transform::as_it_is;
    }
}

// The lengths, surrogates and smallest forms of UTF-8 (RFC 3629), which Python's decoder insists on.
bool is_utf8(std::string_view text) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    for (std::size_t at = 0; at < text.size();) {
        const unsigned char first = byte(at);
        const std::size_t length = first < 0x80         ? 1
                                   : first >> 5 == 0x6  ? 2
                                   : first >> 4 == 0xe  ? 3
                                   : first >> 3 == 0x1e ? 4
                                                        : 0;
        if (length == 0 || length > text.size() - at) return false;
        std::uint32_t point = length == 1 ? first : first & (0x7fu >> length);
        for (std::size_t i = 1; i < length; ++i) {
            if (byte(at + i) >> 6 != 2) return false;
            point = point << 6 | (byte(at + i) & 0x3fu);
        }
        constexpr std::array<std::uint32_t, 5> kSmallest{0, 0, 0x80, 0x800, 0x10000};
        if (point < kSmallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
        at += length;
    }
    return true;
}

void require_utf8(const Value& value) {
    if (const auto* text = std::get_if<std::string>(&value); text != nullptr && !is_utf8(*text)) {
        throw Error(
            "a text that is not UTF-8 can't be put into a ShareableList: Python could not read it; put it there as "
            "bytes");
    }
}

// Packs a value into a slot of `room` bytes, without its format.
void pack(std::byte* slot, std::size_t room, const Value& value) {
    if (const auto bytes = bytes_of(value)) {
        if (!bytes->empty()) std::memcpy(slot, bytes->data(), bytes->size());
        std::memset(slot + bytes->size(), 0, room - bytes->size());
    } else if (const auto* number = std::get_if<std::int64_t>(&value)) {
        store_word(slot, std::bit_cast<std::uint64_t>(*number));
    } else if (const auto* real = std::get_if<double>(&value)) {
        store_word(slot, std::bit_cast<std::uint64_t>(*real));
    } else {
        std::array<char, kWord> word{};
        const bool* const truth = std::get_if<bool>(&value);
        if (truth != nullptr && *truth) word.back() = 1;
        store_word(slot, std::bit_cast<std::uint64_t>(word));
    }
}

[[noreturn]] void throw_no_list(const std::string& why) {
    throw Error("there is no ShareableList in this shared memory: " + why +
                "; attach with SharedMemory where it holds something else");
}
[[noreturn]] void throw_damaged_element(std::size_t index) {
    throw Error("element " + std::to_string(index) +
                " of a ShareableList is damaged: another program overwrote it, or is just changing it; guard the list "
                "with a Lock");
}

// Python's ==, between an int and a float too: by value, exactly.
bool equal(std::int64_t number, double real) {
    constexpr double kLimit = 9223372036854775808.0;
    return real >= -kLimit && real < kLimit && static_cast<std::int64_t>(real) == number &&
           static_cast<double>(static_cast<std::int64_t>(real)) == real;
}
bool equal(const Value& left, const Value& right) {
    const auto as_int = [](const Value& value) -> std::optional<std::int64_t> {
        if (const auto* truth = std::get_if<bool>(&value)) return *truth ? 1 : 0;
        if (const auto* number = std::get_if<std::int64_t>(&value)) return *number;
        return std::nullopt;
    };
    const auto left_int = as_int(left);
    const auto right_int = as_int(right);
    if (left_int && right_int) return *left_int == *right_int;
    if (left_int) return std::holds_alternative<double>(right) && equal(*left_int, std::get<double>(right));
    if (right_int) return std::holds_alternative<double>(left) && equal(*right_int, std::get<double>(left));
    return left == right;
}

std::size_t size_of_list(std::span<const Value> values) {
    std::size_t size = (values.size() + 2) * kWord + values.size() * (kWord + 1);
    for (const Value& value : values) size += room_for(value);
    return size;
}

// Lays a new list out in fresh memory. The count comes last, so that who attaches too early finds an empty list.
void lay_out(std::byte* begin, std::span<const Value> values) {
    std::byte* const data = begin + (values.size() + 2) * kWord;
    std::size_t offset = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        store_word(begin + (i + 1) * kWord, offset);
        const std::size_t room = room_for(values[i]);
        pack(data + offset, room, values[i]);
        offset += room;
    }
    store_word(begin + (values.size() + 1) * kWord, offset);
    std::byte* const formats = data + offset;
    for (std::size_t i = 0; i < values.size(); ++i) {
        store_word(formats + i * kWord, word_of(format_for(values[i], room_for(values[i]))));
        formats[values.size() * kWord + i] = static_cast<std::byte>(transform_for(values[i]));
    }
    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(begin)).store(values.size(), std::memory_order_release);
}

// Everything that can be refused, before there is a segment.
std::size_t checked_size(std::span<const Value> values) {
    std::ranges::for_each(values, require_utf8);
    return size_of_list(values);
}

SharedMemory laid_out(SharedMemory memory, std::span<const Value> values) {
    lay_out(memory.data(), values);
    return memory;
}

}    // namespace

ShareableList::ShareableList(std::span<const Value> values)
    : ShareableList(laid_out(SharedMemory(checked_size(values)), values)) {}

ShareableList ShareableList::create(std::string_view name, std::span<const Value> values, SharedMemoryOptions options) {
    return ShareableList(laid_out(SharedMemory::create(name, checked_size(values), options), values));
}

ShareableList ShareableList::create_named(std::span<const Value> values, SharedMemoryOptions options) {
    return ShareableList(laid_out(SharedMemory::create_named(checked_size(values), options), values));
}

ShareableList::ShareableList(SharedMemory memory) {
    const std::size_t words = memory.size() / kWord;
    std::byte* const begin = memory.data();
    const std::uint64_t count =
        words == 0 ? 0 : std::atomic_ref(*reinterpret_cast<std::uint64_t*>(begin)).load(std::memory_order_acquire);
    if (words < 2 || count > words - 2) throw_no_list("it says that it has more elements than fit");
    auto state = std::make_shared<State>();
    const std::size_t left = memory.size() - (static_cast<std::size_t>(count) + 2) * kWord;
    state->offsets.reserve(static_cast<std::size_t>(count) + 1);
    for (std::size_t i = 0; i <= count; ++i) {
        const std::uint64_t offset = load_word(begin + (i + 1) * kWord);
        const std::uint64_t before = i == 0 ? 0 : state->offsets.back() + kWord;
        if (offset > left || offset % kWord != 0 || (i == 0 ? offset != 0 : offset < before)) {
            throw_no_list("it says that its elements lie outside of it, or in one another");
        }
        state->offsets.push_back(static_cast<std::size_t>(offset));
    }
    if (left - state->offsets.back() < count * (kWord + 1)) throw_no_list("it is too small for its elements");
    state->data = begin + (count + 2) * kWord;
    state->formats = state->data + state->offsets.back();
    state->transforms = state->formats + count * kWord;
    state->memory = std::move(memory);
    state_ = std::move(state);
}

const ShareableList::State& ShareableList::state() const {
    if (state_ == nullptr)
        throw Error("a ShareableList was used that holds nothing: it was moved from, or never given a list");
    return *state_;
}

std::size_t ShareableList::checked(Index index, const char* what) const {
    const auto count = static_cast<std::ptrdiff_t>(size());
    const std::ptrdiff_t place = index.place_ < 0 ? index.place_ + count : index.place_;
    if (place < 0 || place >= count) {
        throw std::out_of_range("element " + std::to_string(index.place_) + " of a ShareableList of " +
                                std::to_string(count) + " can't be " + what + ": there is none");
    }
    return static_cast<std::size_t>(place);
}

std::string ShareableList::format_of(std::size_t index) const {
    const auto characters = std::bit_cast<std::array<char, kWord>>(load_word(state().formats + index * kWord));
    return {characters.begin(), std::ranges::find(characters, '\0')};
}

Value ShareableList::get(Index index) const {
    const std::size_t place = checked(index, "read");
    const State& list = state();
    const std::byte* const slot = list.data + list.offsets[place];
    const std::size_t room = list.offsets[place + 1] - list.offsets[place];
    const std::string format = format_of(place);
    const auto transform = static_cast<Transform>(list.transforms[place]);
    if (transform == Transform::as_it_is) {
        const std::uint64_t word = load_word(slot);
        if (format == kIntFormat) return std::bit_cast<std::int64_t>(word);
        if (format == kFloatFormat) return std::bit_cast<double>(word);
        if (format == kBoolFormat) return std::bit_cast<std::array<char, kWord>>(word).back() != 0;
        throw_damaged_element(place);
    }
    if (transform == Transform::none) return None();
    std::size_t length = 0;
    const auto [end, error] = std::from_chars(format.data(), format.data() + format.size(), length);
    if (error != std::errc() || std::string_view(end) != "s" || length > room || transform > Transform::none) {
        throw_damaged_element(place);
    }
    Bytes bytes(slot, slot + length);
    while (!bytes.empty() && bytes.back() == std::byte{0}) bytes.pop_back();
    if (transform == Transform::bytes) return bytes;
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

void ShareableList::set(Index index, const Value& value) {
    const std::size_t place = checked(index, "changed");
    const State& list = state();
    const std::size_t room = list.offsets[place + 1] - list.offsets[place];
    require_utf8(value);
    if (const auto bytes = bytes_of(value); bytes && bytes->size() > room) {
        throw std::length_error("element " + std::to_string(place) + " of a ShareableList has room for " +
                                std::to_string(room) + " bytes, and can't hold " + std::to_string(bytes->size()) +
                                ": make the list with a longer text there");
    }
    store_word(list.formats + place * kWord, word_of(format_for(value, room)));
    list.transforms[place] = static_cast<std::byte>(transform_for(value));
    pack(list.data + list.offsets[place], room, value);
}

std::size_t ShareableList::count(const Value& value) const {
    std::size_t found = 0;
    for (const Value& element : *this) found += equal(element, value) ? 1 : 0;
    return found;
}

std::optional<std::size_t> ShareableList::index(const Value& value) const {
    std::size_t place = 0;
    for (const Value& element : *this) {
        if (equal(element, value)) return place;
        ++place;
    }
    return std::nullopt;
}

std::vector<Value> ShareableList::values() const {
    std::vector<Value> all;
    all.reserve(size());
    for (Value element : *this) all.push_back(std::move(element));
    return all;
}

std::string ShareableList::format() const {
    std::string all;
    for (std::size_t i = 0; i < size(); ++i) all += format_of(i);
    return all;
}

void ShareableList::throw_other_type(Index index, std::size_t has, std::size_t wanted) {
    throw Error("element " + std::to_string(index.place_) + " of a ShareableList is " + kTypeNames[has] + ", not " +
                kTypeNames[wanted] + ": ask for what it is, or get() it as a Value");
}

void Codec<ShareableList>::encode(detail::Writer& writer, const ShareableList& list) {
    detail::encode(writer, list.memory());
}

ShareableList Codec<ShareableList>::decode(detail::Reader& reader) {
    return ShareableList(detail::decode<SharedMemory>(reader));
}

}    // namespace multihull
