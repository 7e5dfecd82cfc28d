#include "codec/exception_types.hpp"

#include <multihull/manager_gone.hpp>

#include <algorithm>
#include <any>
#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <ios>
#include <memory>
#include <new>
#include <regex>
#include <stdexcept>
#include <system_error>
#include <variant>
#include <vector>

namespace multihull::detail {

namespace {

constexpr std::size_t kLongestText = std::size_t{64} * 1024;
constexpr std::size_t kLongestStack = 4096;

Stack decode_stack(Reader& reader) {
    const auto addresses = decode<std::vector<std::uintptr_t>>(reader);
    return addresses.empty() ? Stack() : Stack(addresses);
}

}    // namespace

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

Decoded decode_remote_error(Reader& reader, bool nest) {
    auto name = decode<std::string>(reader);
    auto text = decode<std::string>(reader);
    return made(RemoteError(std::move(name), std::move(text), decode_stack(reader)), nest);
}

namespace {

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

}    // namespace

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

const Known* known_type(std::uint8_t number) noexcept { return number < kKnown.size() ? &kKnown[number] : nullptr; }

}    // namespace multihull::detail
