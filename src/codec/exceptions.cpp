#include "codec/exceptions.hpp"

#include "codec/exception_types.hpp"

#include <atomic>
#include <cstdlib>
#include <cxxabi.h>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <typeinfo>

namespace multihull {
namespace detail {
namespace {

/// What comes first. The numbers are the format; new ones go last.
enum class Tag : std::uint8_t {
    none,
    bad_alloc,
    nested,    // an exception, and the one that it was thrown from: std::nested_exception
    known,     // one of exception_types.cpp
    registered,
    remote,
};

/// How many exceptions may be nested in one another; the innermost beyond that are left out.
constexpr int kDeepestNesting = 64;

std::string demangled(const char* name) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
    return text == nullptr ? name : text.get();
}

// The mangled name of what was given to std::throw_with_nested, for the type that it throws; else the name itself.
std::string_view name_without_nesting(std::string_view mangled) {
    constexpr std::string_view kPrefix = "St17_Nested_exceptionI";
    if (mangled.starts_with(kPrefix) && mangled.ends_with('E')) {
        mangled.remove_prefix(kPrefix.size());
        mangled.remove_suffix(1);
    }
    return mangled;
}

// Registered types.

// Only ever grows, at its head, so it needs no lock, which a fork could leave locked.
constinit std::atomic<ExceptionCodec*> registered{nullptr};

const ExceptionCodec* registered_by_name(std::string_view mangled) {
    for (const auto* codec = registered.load(std::memory_order_acquire); codec != nullptr; codec = codec->next) {
        if (mangled == codec->type->name()) {
            return codec;
        }
    }
    return nullptr;
}

// Encoding.

// The value of an exception that is a number or a text.
std::optional<std::string> printed_number(const std::exception_ptr& error) {
    std::optional<std::string> text;
    const auto print = [&]<class T>(std::type_identity<T>) {
        try {
            std::rethrow_exception(error);
        } catch (const T& value) {
            if constexpr (std::is_same_v<T, bool>) {
                text = value ? "true" : "false";
            } else if constexpr (std::is_same_v<T, char>) {
                text = std::string(1, value);
            } else {
                text = std::to_string(value);
            }
        } catch (...) {
            return false;
        }
        return true;
    };
    const auto print_any = [&]<class... T>(std::type_identity<T>... types) {
        static_cast<void>((print(types) || ...));
    };
    print_any(std::type_identity<int>{}, std::type_identity<unsigned>{}, std::type_identity<long>{},
              std::type_identity<unsigned long>{}, std::type_identity<long long>{},
              std::type_identity<unsigned long long>{}, std::type_identity<short>{},
              std::type_identity<unsigned short>{}, std::type_identity<bool>{}, std::type_identity<char>{},
              std::type_identity<double>{}, std::type_identity<float>{}, std::type_identity<long double>{});
    return text;
}

struct Described {
    std::string type_name;
    std::string text;
};

Described describe(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& exception) {
        return {demangled(std::string(name_without_nesting(typeid(exception).name())).c_str()), text_of(exception)};
    } catch (const char* text) {
        return {"const char*", text == nullptr ? std::string() : shortened(text)};
    } catch (const std::string& text) {
        return {"std::string", shortened(text)};
    } catch (const std::string_view& text) {
        return {"std::string_view", shortened(text)};
    } catch (const std::error_code& code) {
        return {"std::error_code", code.message()};
    } catch (...) {
        const std::type_info* const type = abi::__cxa_current_exception_type();
        return {type == nullptr ? "unknown" : demangled(type->name()), printed_number(error).value_or(std::string())};
    }
}

void encode_remote(Writer& writer, const std::exception_ptr& error, std::span<const std::uintptr_t> stack) {
    const Described described = describe(error);
    writer.put(Tag::remote);
    encode(writer, described.type_name);
    encode(writer, described.text);
    encode_stack(writer, stack);
}

// False when the type's own encode() throws, or the codec has no name for what is in it: it then goes as RemoteError.
template <class Encode>
bool try_encode(Writer& writer, Encode encode) {
    const std::size_t before = writer.size();
    try {
        encode();
        return true;
    } catch (const std::bad_alloc&) {
        throw;
    } catch (...) {
        writer.truncate(before);
        return false;
    }
}

void encode_registered(Writer& writer, const ExceptionCodec& codec, const std::exception_ptr& error,
                       std::span<const std::uintptr_t> stack) {
    writer.put(Tag::registered);
    encode(writer, std::string(codec.type->name()));
    // Its length in front, for a process that has not registered it.
    writer.write_length(0);
    const std::size_t begin = writer.size();
    codec.encode(writer, error);
    const std::uint64_t length = writer.size() - begin;
    writer.patch(begin - sizeof length, length);
    encode_remote(writer, error, stack);
}

void encode_one(Writer& writer, const std::exception_ptr& error, std::span<const std::uintptr_t> stack, int depth);

void encode_std(Writer& writer, const std::exception& exception, const std::exception_ptr& error,
                std::span<const std::uintptr_t> stack, int depth) {
    const std::string_view name = typeid(exception).name();
    const auto* const nested = dynamic_cast<const std::nested_exception*>(&exception);
    const bool has_inner = nested != nullptr && nested->nested_ptr() != nullptr && depth < kDeepestNesting;
    if (has_inner) {
        writer.put(Tag::nested);
        encode_one(writer, nested->nested_ptr(), {}, depth + 1);
    }
    if (const auto known = known_by_name(name_without_nesting(name))) {
        const auto encode_known = [&] {
            writer.put(Tag::known);
            writer.put(*known);
            known_type(*known)->encode(writer, exception);
        };
        if (try_encode(writer, encode_known)) {
            return;
        }
    } else if (const ExceptionCodec* const codec = registered_by_name(name)) {
        if (try_encode(writer, [&] { encode_registered(writer, *codec, error, stack); })) {
            return;
        }
    }
    encode_remote(writer, error, stack);
}

void encode_one(Writer& writer, const std::exception_ptr& error, std::span<const std::uintptr_t> stack, int depth) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& exception) {
        encode_std(writer, exception, error, stack, depth);
    } catch (...) {
        const std::type_info* const type = abi::__cxa_current_exception_type();
        const ExceptionCodec* const codec = type == nullptr ? nullptr : registered_by_name(type->name());
        if (codec == nullptr || !try_encode(writer, [&] { encode_registered(writer, *codec, error, stack); })) {
            encode_remote(writer, error, stack);
        }
    }
}

// Decoding.

Decoded decode_one(Reader& reader, bool nest, int depth);

Decoded decode_nested(Reader& reader, int depth) {
    if (depth > kDeepestNesting) {
        throw_too_deep();
    }
    const Decoded inner = decode_one(reader, false, depth + 1);
    if (inner == nullptr) {
        throw_damaged("nothing is nested in a nested exception");
    }
    Decoded outer;
    try {
        std::rethrow_exception(inner);
    } catch (...) {
        // Nested by std::throw_with_nested, which takes what is being handled. Failing to decode must not look like it.
        try {
            outer = decode_one(reader, true, depth + 1);
        } catch (const CodecError&) {
            outer = nullptr;
        }
    }
    if (outer == nullptr) {
        throw_damaged("the exception around a nested one is missing");
    }
    return outer;
}

Decoded decode_registered(Reader& reader, bool nest, int depth) {
    const auto name = decode<std::string>(reader);
    const auto bytes = reader.view(reader.read_length(1));
    Decoded described = decode_one(reader, nest, depth + 1);
    const ExceptionCodec* const codec = registered_by_name(name);
    if (codec == nullptr || nest) {
        return described;
    }
    Reader own(bytes);
    Decoded error = codec->decode(own);
    own.expect_end();
    return error;
}

Decoded decode_one(Reader& reader, bool nest, int depth) {
    if (depth > 2 * kDeepestNesting) {
        throw_too_deep();
    }
    const auto tag =
        static_cast<int>(reader.get<Tag>());    // an int, because clang-tidy 16 dies of a switch over what it reads
    switch (static_cast<Tag>(tag)) {
        case Tag::none:
            return nullptr;
        case Tag::bad_alloc:
            return made(std::bad_alloc(), nest);
        case Tag::nested:
            return decode_nested(reader, depth);
        case Tag::known: {
            const Known* const known = known_type(reader.get<std::uint8_t>());
            if (known == nullptr) {
                break;
            }
            return known->decode(reader, nest);
        }
        case Tag::registered:
            return decode_registered(reader, nest, depth);
        case Tag::remote:
            return decode_remote_error(reader, nest);
    }
    throw_damaged("an exception is of no known type");
}

}    // namespace

void register_exception(ExceptionCodec& codec) noexcept {
    codec.next = registered.load(std::memory_order_relaxed);
    while (!registered.compare_exchange_weak(codec.next, &codec, std::memory_order_release,
                                             std::memory_order_relaxed)) {}
}

void encode_exception(Writer& writer, const std::exception_ptr& error, std::span<const std::uintptr_t> stack) noexcept {
    const std::size_t before = writer.size();
    try {
        if (error == nullptr) {
            writer.put(Tag::none);
        } else {
            encode_one(writer, error, stack, 0);
        }
        return;
    } catch (...) {
        writer.truncate(before);
    }
    try {
        writer.put(Tag::bad_alloc);
    } catch (...) {
        writer.truncate(before);
    }
}

std::exception_ptr decode_exception(Reader& reader) {
    if (reader.remaining() == 0) {
        return std::make_exception_ptr(std::bad_alloc());
    }
    return decode_one(reader, false, 0);
}

}    // namespace detail
}    // namespace multihull
