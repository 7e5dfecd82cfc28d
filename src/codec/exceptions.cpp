#include "codec/exceptions.hpp"

#include <multihull/error.hpp>
#include <multihull/manager_gone.hpp>

#include <algorithm>
#include <any>
#include <array>
#include <atomic>
#include <cxxabi.h>
#include <filesystem>
#include <functional>
#include <future>
#include <ios>
#include <memory>
#include <new>
#include <optional>
#include <regex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <variant>
#include <vector>

namespace multihull {
namespace detail {
namespace {

/// What comes first. The numbers are the format; new ones go last.
enum class Tag : std::uint8_t {
    none,
    bad_alloc,
    nested,    // an exception, and the one that it was thrown from: std::nested_exception
    known,     // one of kKnown
    registered,
    remote,
};

/// How much of an exception's text travels. Longer ones are cut, and say so.
constexpr std::size_t kLongestText = std::size_t{64} * 1024;
constexpr std::size_t kLongestStack = 4096;
/// How many exceptions may be nested in one another; the innermost beyond that are left out.
constexpr int kDeepestNesting = 64;

std::string demangled(const char* name) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
    return text == nullptr ? name : text.get();
}

std::string shortened(std::string_view text) {
    if (text.size() <= kLongestText) {
        return std::string(text);
    }
    return std::string(text.substr(0, kLongestText)) + "... (" + std::to_string(text.size() - kLongestText) +
           " more characters)";
}

std::string text_of(const std::exception& error) {
    const char* const text = error.what();
    return text == nullptr ? std::string() : shortened(text);
}

void encode_stack(Writer& writer, std::span<const std::uintptr_t> stack) {
    stack = stack.first(std::min(stack.size(), kLongestStack));
    writer.write_length(stack.size());
    writer.write_aligned(stack.data(), stack.size_bytes(), alignof(std::uintptr_t));    // as a vector
}

Stack decode_stack(Reader& reader) {
    const auto addresses = decode<std::vector<std::uintptr_t>>(reader);
    return addresses.empty() ? Stack() : Stack(addresses);
}

// Known types.

using Decoded = std::exception_ptr;

/// How one known type travels. With `nest`, the exception is thrown with the one being handled nested in it.
struct Known {
    const std::type_info* type;
    void (*encode)(Writer&, const std::exception&);
    Decoded (*decode)(Reader&, bool nest);
};

template <class E>
Decoded made(E error, bool nest) {
    if (!nest) {
        return std::make_exception_ptr(std::move(error));
    }
    try {
        std::throw_with_nested(std::move(error));
    } catch (...) {
        return std::current_exception();
    }
}

template <class E>
constexpr Known by_text() {
    return {&typeid(E), [](Writer& writer, const std::exception& error) { detail::encode(writer, text_of(error)); },
            [](Reader& reader, bool nest) { return made(E(decode<std::string>(reader)), nest); }};
}

template <class E>
constexpr Known by_default() {
    return {&typeid(E), [](Writer&, const std::exception&) {}, [](Reader&, bool nest) { return made(E(), nest); }};
}

// The text that a std::system_error was made with, without the code's message that the constructor appends.
std::string own_text(const std::system_error& error) {
    std::string text = shortened(error.std::system_error::what());
    const std::string message = error.code().message();
    if (text == message) {
        return {};
    }
    const std::string appended = ": " + message;
    if (text.ends_with(appended)) {
        text.resize(text.size() - appended.size());
    }
    return text;
}

void encode_system_error(Writer& writer, const std::exception& error) {
    const auto& system_error = dynamic_cast<const std::system_error&>(error);
    detail::encode(writer, system_error.code());
    detail::encode(writer, own_text(system_error));
}

Decoded decode_system_error(Reader& reader, bool nest) {
    const auto code = decode<std::error_code>(reader);
    const auto text = decode<std::string>(reader);
    return made(text.empty() ? std::system_error(code) : std::system_error(code, text), nest);
}

Decoded decode_ios_failure(Reader& reader, bool nest) {
    const auto code = decode<std::error_code>(reader);
    return made(std::ios_base::failure(decode<std::string>(reader), code), nest);
}

using std::filesystem::filesystem_error;

void encode_filesystem_error(Writer& writer, const std::exception& error) {
    encode_system_error(writer, error);
    const auto& filesystem = dynamic_cast<const filesystem_error&>(error);
    detail::encode(writer, filesystem.path1());
    detail::encode(writer, filesystem.path2());
}

Decoded decode_filesystem_error(Reader& reader, bool nest) {
    const auto code = decode<std::error_code>(reader);
    const auto text = decode<std::string>(reader);
    const auto path1 = decode<std::filesystem::path>(reader);
    const auto path2 = decode<std::filesystem::path>(reader);
    if (!path2.empty()) {
        return made(filesystem_error(text, path1, path2, code), nest);
    }
    return made(path1.empty() ? filesystem_error(text, code) : filesystem_error(text, path1, code), nest);
}

void encode_future_error(Writer& writer, const std::exception& error) {
    writer.put(dynamic_cast<const std::future_error&>(error).code().value());
}

Decoded decode_future_error(Reader& reader, bool nest) {
    return made(std::future_error(static_cast<std::future_errc>(reader.get<int>())), nest);
}

// The place of a code here is its number in the format: a value that is none of them must not be made from damaged bytes.
constexpr std::array kRegexCodes{
    std::regex_constants::error_collate, std::regex_constants::error_ctype,     std::regex_constants::error_escape,
    std::regex_constants::error_backref, std::regex_constants::error_brack,     std::regex_constants::error_paren,
    std::regex_constants::error_brace,   std::regex_constants::error_badbrace,  std::regex_constants::error_range,
    std::regex_constants::error_space,   std::regex_constants::error_badrepeat, std::regex_constants::error_complexity,
    std::regex_constants::error_stack,
};

void encode_regex_error(Writer& writer, const std::exception& error) {
    const auto code = dynamic_cast<const std::regex_error&>(error).code();
    const auto place = std::find(kRegexCodes.begin(), kRegexCodes.end(), code);
    if (place == kRegexCodes.end()) {
        throw_cannot_encode("its std::regex_error is none of the standard's");
    }
    writer.put(static_cast<std::uint8_t>(place - kRegexCodes.begin()));
    detail::encode(writer, text_of(error));
}

Decoded decode_regex_error(Reader& reader, bool nest) {
    const auto index = reader.get<std::uint8_t>();
    if (index >= kRegexCodes.size()) {
        throw_damaged("a std::regex_error is none of the standard's");
    }
    const auto code = kRegexCodes[index];
    const auto text = decode<std::string>(reader);
#ifdef __GLIBCXX__
    // Its public constructor takes no text; this is how the library gives it one.
    try {
        std::__throw_regex_error(code, text.c_str());
    } catch (const std::regex_error& error) {
        return made(error, nest);
    }
#else
    return made(std::regex_error(code), nest);
#endif
}

void encode_remote_error(Writer& writer, const std::exception& error) {
    const auto& remote = dynamic_cast<const RemoteError&>(error);
    detail::encode(writer, remote.type_name());
    detail::encode(writer, remote.text());
    encode_stack(writer, remote.stack().addresses());
}

Decoded decode_remote_error(Reader& reader, bool nest) {
    auto name = decode<std::string>(reader);
    auto text = decode<std::string>(reader);
    return made(RemoteError(std::move(name), std::move(text), decode_stack(reader)), nest);
}

void encode_worker_crashed(Writer& writer, const std::exception& error) {
    const CrashReport& report = dynamic_cast<const WorkerCrashed&>(error).report();
    detail::encode(writer, report.pid);
    detail::encode(writer, report.signal);
    detail::encode(writer, report.code);
    detail::encode(writer, report.sender_pid);
    detail::encode(writer, report.address);
    detail::encode(writer, report.exit_status);
    encode_stack(writer, report.stack.addresses());
    detail::encode(writer, report.last_stderr);
    detail::encode(writer, report.map_index);
}

Decoded decode_worker_crashed(Reader& reader, bool nest) {
    CrashReport report;
    report.pid = reader.get<int>();
    report.signal = reader.get<int>();
    report.code = reader.get<int>();
    report.sender_pid = reader.get<int>();
    report.address = reader.get<std::uintptr_t>();
    report.exit_status = decode<std::optional<int>>(reader);
    report.stack = decode_stack(reader);
    report.last_stderr = decode<std::string>(reader);
    report.map_index = decode<std::optional<std::size_t>>(reader);
    return made(WorkerCrashed(std::move(report)), nest);
}

template <class E>
constexpr Known by_limit() {
    return {&typeid(E),
            [](Writer& writer, const std::exception& error) {
                const auto& timeout = dynamic_cast<const TaskTimeout&>(error);
                detail::encode(writer, text_of(error));
                detail::encode(writer, timeout.limit());
                encode_stack(writer, timeout.stack().addresses());
            },
            [](Reader& reader, bool nest) {
                const auto sentence = decode<std::string>(reader);
                const auto limit = decode<std::chrono::nanoseconds>(reader);
                return made(E(sentence, limit, decode_stack(reader)), nest);
            }};
}

/// The place of a type here is its number in the format; new ones go last.
constexpr std::array kKnown{
    by_text<std::logic_error>(),
    by_text<std::invalid_argument>(),
    by_text<std::domain_error>(),
    by_text<std::length_error>(),
    by_text<std::out_of_range>(),
    by_text<std::runtime_error>(),
    by_text<std::range_error>(),
    by_text<std::overflow_error>(),
    by_text<std::underflow_error>(),
    by_default<std::exception>(),
    by_default<std::bad_alloc>(),
    by_default<std::bad_array_new_length>(),
    by_default<std::bad_cast>(),
    by_default<std::bad_any_cast>(),
    by_default<std::bad_typeid>(),
    by_default<std::bad_exception>(),
    by_default<std::bad_optional_access>(),
    by_default<std::bad_variant_access>(),
    by_default<std::bad_function_call>(),
    by_default<std::bad_weak_ptr>(),
    Known{&typeid(std::system_error), encode_system_error, decode_system_error},
    Known{&typeid(std::ios_base::failure), encode_system_error, decode_ios_failure},
    Known{&typeid(filesystem_error), encode_filesystem_error, decode_filesystem_error},
    Known{&typeid(std::future_error), encode_future_error, decode_future_error},
    Known{&typeid(std::regex_error), encode_regex_error, decode_regex_error},
    by_text<Error>(),
    by_text<StartError>(),
    by_text<CodecError>(),
    by_text<PoolClosed>(),
    by_text<BrokenPool>(),
    by_text<Cancelled>(),
    by_text<WaitTimeout>(),
    Known{&typeid(RemoteError), encode_remote_error, decode_remote_error},
    Known{&typeid(WorkerCrashed), encode_worker_crashed, decode_worker_crashed},
    by_limit<TaskTimeout>(),
    by_limit<CpuTimeExceeded>(),
    by_text<ObjectGone>(),
    by_text<SyncError>(),
    by_text<BrokenBarrier>(),
    by_text<QueueClosed>(),
    by_text<QueueEmpty>(),
    by_text<QueueFull>(),
    by_text<ManagerGone>(),
};

std::optional<std::uint8_t> known_by_name(std::string_view mangled) {
    if (mangled == "St13__ios_failure") {
        mangled = typeid(std::ios_base::failure).name();    // what libstdc++'s streams throw, to serve two ABIs
    }
    for (std::size_t i = 0; i < kKnown.size(); ++i) {
        if (mangled == kKnown[i].type->name()) {
            return static_cast<std::uint8_t>(i);
        }
    }
    return std::nullopt;
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
            kKnown[*known].encode(writer, exception);
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
            const auto index = reader.get<std::uint8_t>();
            if (index >= kKnown.size()) {
                break;
            }
            return kKnown[index].decode(reader, nest);
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
