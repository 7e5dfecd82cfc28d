// Exceptions come back as themselves where they can, and as RemoteError with all that is known where they can't.
#include "codec/exceptions.hpp"

#include <multihull/codec.hpp>
#include <multihull/error.hpp>

#include <gtest/gtest.h>

#include <any>
#include <array>
#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <regex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <variant>
#include <vector>

namespace {

using multihull::CodecError;
using multihull::RemoteError;
using multihull::detail::decode_exception;
using multihull::detail::encode_exception;
using multihull::detail::Reader;
using multihull::detail::VectorGrowth;
using multihull::detail::Writer;

constexpr std::array<std::uintptr_t, 3> kStack{0x1000, 0x2000, 0x3000};

std::vector<std::byte> encoded(const std::exception_ptr& error) {
    VectorGrowth growth;
    Writer writer({}, growth);
    encode_exception(writer, error, kStack);
    return {writer.bytes().begin(), writer.bytes().end()};
}

std::exception_ptr sent(const std::exception_ptr& error) {
    const auto bytes = encoded(error);
    Reader reader(bytes);
    auto back = decode_exception(reader);
    reader.expect_end();
    return back;
}

// The exception that comes back, which must be of this very type.
template <class E, class Check>
void expect_back(const std::exception_ptr& error, Check check) {
    try {
        std::rethrow_exception(sent(error));
    } catch (const E& back) {
        if constexpr (std::is_polymorphic_v<E>) {
            EXPECT_EQ(typeid(back), typeid(E)) << typeid(back).name();
        }
        check(back);
    } catch (...) {
        FAIL() << "came back as something else than " << typeid(E).name();
    }
}

template <class E>
void expect_same(const E& error) {
    expect_back<E>(std::make_exception_ptr(error),
                   [&](const E& back) { EXPECT_STREQ(back.what(), error.what()) << typeid(E).name(); });
}

template <class E>
std::exception_ptr caught(E&& throwing) {
    try {
        throwing();
    } catch (...) {
        return std::current_exception();
    }
    return nullptr;
}

TEST(Exceptions, TheStandardsComeBackAsThemselves) {
    expect_same(std::logic_error("l"));
    expect_same(std::invalid_argument("four is not a good number"));
    expect_same(std::domain_error("d"));
    expect_same(std::length_error("n"));
    expect_same(std::out_of_range("o"));
    expect_same(std::runtime_error(""));
    expect_same(std::range_error("r"));
    expect_same(std::overflow_error("v"));
    expect_same(std::underflow_error("u"));
    expect_same(std::exception());
    expect_same(std::bad_alloc());
    expect_same(std::bad_array_new_length());
    expect_same(std::bad_cast());
    expect_same(std::bad_any_cast());
    expect_same(std::bad_typeid());
    expect_same(std::bad_exception());
    expect_same(std::bad_optional_access());
    expect_same(std::bad_variant_access());
    expect_same(std::bad_function_call());
    expect_same(std::bad_weak_ptr());
}

TEST(Exceptions, ThoseThatTheLibraryThrows) {
    expect_back<std::out_of_range>(caught([] { std::vector<int>().at(3); }), [](const auto& back) {
        EXPECT_NE(std::string(back.what()).find("range_check"), std::string::npos);
    });
    expect_back<std::bad_alloc>(caught([] { throw std::bad_alloc(); }), [](const auto&) {});
    expect_back<std::invalid_argument>(caught([] { static_cast<void>(std::stoi("x")); }),
                                       [](const auto& back) { EXPECT_STREQ(back.what(), "stoi"); });
}

TEST(Exceptions, RegexErrorsKeepTheirCodes) {
    const std::regex_error error(std::regex_constants::error_paren);
    expect_same(error);
    expect_back<std::regex_error>(std::make_exception_ptr(error),
                                  [](const auto& back) { EXPECT_EQ(back.code(), std::regex_constants::error_paren); });
}

TEST(Exceptions, SystemErrorsKeepTheirCodes) {
    const auto same_code = [](const std::system_error& error) {
        expect_back<std::system_error>(std::make_exception_ptr(error), [&](const auto& back) {
            EXPECT_EQ(back.code(), error.code());
            EXPECT_STREQ(back.what(), error.what());
        });
    };
    same_code(std::system_error(ENOENT, std::generic_category(), "opening"));
    same_code(std::system_error(ENOENT, std::system_category()));
    same_code(std::system_error(std::make_error_code(std::future_errc::no_state), "future"));
    same_code(std::system_error(std::make_error_code(std::io_errc::stream), "stream: twice: "));
    same_code(std::system_error(std::error_code()));
}

TEST(Exceptions, StreamAndFutureFailures) {
    expect_same(std::ios_base::failure("reading", std::make_error_code(std::io_errc::stream)));
    const auto thrown = caught([] {
        std::ifstream file;
        file.exceptions(std::ios::failbit);
        file.open("/nowhere/at/all");
    });
    expect_back<std::ios_base::failure>(thrown, [](const auto& back) {
        EXPECT_EQ(back.code(), std::make_error_code(std::io_errc::stream));
        EXPECT_EQ(std::string(back.what()), "basic_ios::clear: iostream error");
    });
    expect_same(std::future_error(std::future_errc::broken_promise));
}

TEST(Exceptions, FilesystemErrorsKeepTheirPaths) {
    using std::filesystem::filesystem_error;
    const auto code = std::make_error_code(std::errc::no_space_on_device);
    for (const auto& error : {filesystem_error("none", code), filesystem_error("one", "/a", code),
                              filesystem_error("two", "/a", "/b", code)}) {
        expect_same(error);
        expect_back<filesystem_error>(std::make_exception_ptr(error), [&](const filesystem_error& back) {
            EXPECT_EQ(back.path1(), error.path1());
            EXPECT_EQ(back.path2(), error.path2());
            EXPECT_EQ(back.code(), error.code());
        });
    }
    expect_back<filesystem_error>(caught([] { static_cast<void>(std::filesystem::file_size("/nowhere/at/all")); }),
                                  [](const auto& back) { EXPECT_EQ(back.path1(), "/nowhere/at/all"); });
}

TEST(Exceptions, MultihullsOwn) {
    expect_same(multihull::Error("e"));
    expect_same(multihull::StartError("s"));
    expect_same(multihull::CodecError("c"));
    expect_same(multihull::PoolClosed("p"));
    expect_same(multihull::BrokenPool("b"));
    expect_same(multihull::Cancelled("x"));
    expect_same(multihull::WaitTimeout("w"));
    const multihull::Stack stack(kStack);
    const RemoteError remote("my::Failure", "why", stack);
    expect_same(remote);
    expect_back<RemoteError>(std::make_exception_ptr(remote), [](const RemoteError& back) {
        EXPECT_EQ(back.type_name(), "my::Failure");
        EXPECT_EQ(back.text(), "why");
        EXPECT_TRUE(std::ranges::equal(back.stack().addresses(), kStack));
    });
    multihull::CrashReport report{.pid = 7, .signal = 11, .code = 1, .address = 16};
    report.stack = stack;
    report.last_stderr = "ouch\n";
    report.map_index = 3;
    const multihull::WorkerCrashed crashed(report);
    expect_same(crashed);
    expect_back<multihull::WorkerCrashed>(std::make_exception_ptr(crashed), [](const multihull::WorkerCrashed& back) {
        EXPECT_EQ(back.report().pid, 7);
        EXPECT_EQ(back.signal(), 11);
        EXPECT_EQ(back.report().code, 1);
        EXPECT_EQ(back.address(), 16U);
        EXPECT_EQ(back.exit_status(), std::nullopt);
        EXPECT_EQ(back.last_stderr(), "ouch\n");
        EXPECT_EQ(back.report().map_index, 3U);
        EXPECT_TRUE(std::ranges::equal(back.stack().addresses(), kStack));
    });
    const auto check_limit = [](const auto& back) {
        EXPECT_EQ(back.limit(), std::chrono::milliseconds(500));
        EXPECT_STREQ(back.what(), "slow");
        EXPECT_TRUE(std::ranges::equal(back.stack().addresses(), kStack));
    };
    using namespace std::chrono_literals;
    expect_back<multihull::TaskTimeout>(std::make_exception_ptr(multihull::TaskTimeout("slow", 500ms, stack)),
                                        check_limit);
    expect_back<multihull::CpuTimeExceeded>(std::make_exception_ptr(multihull::CpuTimeExceeded("slow", 500ms, stack)),
                                            check_limit);
}

class Failure : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct NotAnException {
    int value;
};

void expect_remote(const std::exception_ptr& error, const std::string& type_name, const std::string& text) {
    expect_back<RemoteError>(error, [&](const RemoteError& back) {
        EXPECT_EQ(back.type_name(), type_name);
        EXPECT_EQ(back.text(), text);
        EXPECT_TRUE(std::ranges::equal(back.stack().addresses(), kStack));
    });
}

TEST(Exceptions, OthersComeBackAsRemoteError) {
    expect_remote(std::make_exception_ptr(Failure("bad luck")), "(anonymous namespace)::Failure", "bad luck");
    expect_remote(caught([] { throw NotAnException{1}; }), "(anonymous namespace)::NotAnException", "");
    expect_remote(caught([] { throw "plain text"; }), "const char*", "plain text");
    expect_remote(caught([] { throw std::string("a string"); }), "std::string", "a string");
    expect_remote(caught([] { throw 42; }), "int", "42");
    expect_remote(caught([] { throw -7L; }), "long", "-7");
    expect_remote(caught([] { throw true; }), "bool", "true");
    expect_remote(caught([] { throw 'c'; }), "char", "c");
    expect_remote(caught([] { throw 0.5; }), "double", "0.500000");
    expect_remote(caught([] { throw std::make_error_code(std::errc::io_error); }), "std::error_code",
                  "Input/output error");
    expect_remote(caught([] { throw static_cast<const char*>(nullptr); }), "const char*", "");
    expect_remote(std::make_exception_ptr(std::system_error(1,
                                                            []() -> const std::error_category& {
                                                                static const struct final : std::error_category {
                                                                    const char* name() const noexcept override {
                                                                        return "mine";
                                                                    }
                                                                    std::string message(int) const override {
                                                                        return "own trouble";
                                                                    }
                                                                } category;
                                                                return category;
                                                            }())),
                  "std::system_error", "own trouble");
}

TEST(Exceptions, ALongTextIsCut) {
    expect_back<std::runtime_error>(std::make_exception_ptr(std::runtime_error(std::string(1'000'000, 'x'))),
                                    [](const auto& back) {
                                        EXPECT_LT(std::strlen(back.what()), 70'000U);
                                        EXPECT_TRUE(std::string(back.what()).ends_with(" more characters)"));
                                    });
}

TEST(Exceptions, NoneIsNone) { EXPECT_EQ(sent(nullptr), nullptr); }

TEST(Exceptions, NestedOnesStayNested) {
    const auto thrown = caught([] {
        try {
            try {
                throw std::out_of_range("inner");
            } catch (...) {
                std::throw_with_nested(Failure("middle"));
            }
        } catch (...) {
            std::throw_with_nested(std::runtime_error("outer"));
        }
    });
    std::vector<std::string> texts;
    auto error = sent(thrown);
    while (error != nullptr) {
        try {
            std::rethrow_exception(std::exchange(error, nullptr));
        } catch (const std::runtime_error& exception) {
            texts.emplace_back(exception.what());
            if (const auto* nested = dynamic_cast<const std::nested_exception*>(&exception)) {
                error = nested->nested_ptr();
            }
        } catch (const std::out_of_range& exception) {
            texts.emplace_back(exception.what());
        }
    }
    EXPECT_EQ(texts, (std::vector<std::string>{"outer", "(anonymous namespace)::Failure: middle", "inner"}));
}

TEST(Exceptions, EndlessNestingIsCut) {
    std::exception_ptr error = std::make_exception_ptr(std::runtime_error("first"));
    for (int i = 0; i < 500; ++i) {
        error = caught([&] {
            try {
                std::rethrow_exception(error);
            } catch (...) {
                std::throw_with_nested(std::runtime_error("next"));
            }
        });
    }
    EXPECT_THROW(std::rethrow_exception(sent(error)), std::runtime_error);
}

struct Refused : std::exception {
    int code = 0;
    std::string reason;

    const char* what() const noexcept override { return reason.c_str(); }
    template <class Archive>
    void serialize(Archive& archive) {
        archive(code, reason);
    }
};
struct Minor {
    int code = 0;
};
struct Unsendable : std::exception {
    template <class Archive>
    void save(Archive&) const {
        throw std::runtime_error("no");
    }
    template <class Archive>
    void load(Archive&) {}
    const char* what() const noexcept override { return "unsendable"; }
};

TEST(Exceptions, RegisteredTypesComeBackAsThemselves) {
    Refused refused;
    refused.code = 5;
    refused.reason = "no licence";
    expect_remote(std::make_exception_ptr(refused), "(anonymous namespace)::Refused", "no licence");
    EXPECT_TRUE(multihull::register_exception<Refused>());
    EXPECT_TRUE(multihull::register_exception<Refused>());
    expect_back<Refused>(std::make_exception_ptr(refused), [](const Refused& back) {
        EXPECT_EQ(back.code, 5);
        EXPECT_EQ(back.reason, "no licence");
    });
    EXPECT_TRUE(multihull::register_exception<Minor>());
    expect_back<Minor>(std::make_exception_ptr(Minor{9}), [](const Minor& back) { EXPECT_EQ(back.code, 9); });
    EXPECT_TRUE(multihull::register_exception<Unsendable>());
    expect_remote(std::make_exception_ptr(Unsendable()), "(anonymous namespace)::Unsendable", "unsendable");
}

// Gives room for so many bytes, then none.
class LimitedGrowth final : public multihull::detail::Growth {
public:
    explicit LimitedGrowth(std::size_t limit) : limit_(limit) {}
    std::span<std::byte> grow(std::span<const std::byte> used, std::size_t capacity) override {
        if (capacity > limit_) {
            throw std::bad_alloc();
        }
        return under_.grow(used, capacity);
    }

private:
    std::size_t limit_;
    VectorGrowth under_;
};

TEST(Exceptions, ShortOfMemoryTheyAreBadAlloc) {
    const auto error = std::make_exception_ptr(std::runtime_error(std::string(500, 'x')));
    for (std::size_t limit = 0; limit < 600; limit += 7) {
        std::array<std::byte, multihull::detail::kSmallestException> first;
        LimitedGrowth growth(limit);
        Writer writer(first, growth);
        encode_exception(writer, error, kStack);
        Reader reader(writer.bytes());
        try {
            std::rethrow_exception(decode_exception(reader));
        } catch (const std::bad_alloc&) {
        } catch (const std::runtime_error& back) {
            EXPECT_EQ(std::strlen(back.what()), 500U);
        }
        EXPECT_EQ(reader.remaining(), 0U);
    }
    LimitedGrowth none(0);
    Writer nowhere({}, none);
    encode_exception(nowhere, error, kStack);
    Reader empty(nowhere.bytes());
    EXPECT_THROW(std::rethrow_exception(decode_exception(empty)), std::bad_alloc);
}

TEST(Exceptions, DamagedOnesAreCodecErrors) {
    std::vector<std::exception_ptr> errors{std::make_exception_ptr(std::filesystem::filesystem_error(
                                               "one", "/a", std::make_error_code(std::errc::io_error))),
                                           std::make_exception_ptr(multihull::WorkerCrashed(multihull::CrashReport{})),
                                           std::make_exception_ptr(std::regex_error(std::regex_constants::error_paren)),
                                           std::make_exception_ptr(Failure("f")), caught([] {
                                               try {
                                                   throw std::out_of_range("inner");
                                               } catch (...) {
                                                   std::throw_with_nested(std::runtime_error("outer"));
                                               }
                                           })};
    static_cast<void>(multihull::register_exception<Refused>());
    errors.push_back(std::make_exception_ptr(Refused()));
    for (const auto& error : errors) {
        const auto whole = encoded(error);
        for (std::size_t size = 1; size < whole.size(); ++size) {
            Reader reader(std::span<const std::byte>(whole).first(size));
            EXPECT_THROW(decode_exception(reader), CodecError);
        }
        for (std::size_t at = 0; at < whole.size(); ++at) {
            for (unsigned bit = 0; bit < 8; ++bit) {
                auto damaged = whole;
                damaged[at] ^= static_cast<std::byte>(1U << bit);
                Reader reader(damaged);
                try {
                    static_cast<void>(decode_exception(reader));
                } catch (const CodecError&) {}
            }
        }
    }
}

TEST(Exceptions, EndlesslyNestedBytes) {
    for (const int tag : {2, 4}) {
        const std::vector<std::byte> bytes(100'000, static_cast<std::byte>(tag));
        Reader reader(bytes);
        EXPECT_THROW(decode_exception(reader), CodecError);
    }
}

TEST(Exceptions, ValuesMayHoldExceptionsAndErrorCodes) {
    VectorGrowth growth;
    Writer writer({}, growth);
    const std::pair sent_pair(std::make_error_code(std::errc::io_error),
                              std::make_exception_ptr(std::logic_error("l")));
    multihull::detail::encode(writer, sent_pair);
    Reader reader(writer.bytes());
    const auto back = multihull::detail::decode<std::pair<std::error_code, std::exception_ptr>>(reader);
    EXPECT_EQ(back.first, sent_pair.first);
    EXPECT_THROW(std::rethrow_exception(back.second), std::logic_error);
}

}    // namespace
