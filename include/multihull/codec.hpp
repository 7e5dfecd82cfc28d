// Values to bytes and back: what can travel to another process, and how.
//
// These travel: arithmetic types, enums, strings, paths, std::chrono, the standard's containers, pair, tuple, array, optional,
// variant, unique_ptr, shared_ptr (shared ones stay shared), error codes and exceptions; aggregates of these, to any depth;
// trivially copyable classes; types with a cereal serialize(), or save() and load(); types with a Codec. Views travel as
// parameters of functions (see Holder), not as parts of values.
//
// Thread-safe: encoding and decoding different bytes from different threads.
#pragma once

#include <multihull/detail/codec_bytes.hpp>
#include <multihull/detail/codec_decode.hpp>
#include <multihull/detail/codec_encode.hpp>
#include <multihull/detail/codec_parameters.hpp>
#include <multihull/detail/codec_travels.hpp>

#include <cstdint>
#include <exception>
#include <span>
#include <system_error>
#include <type_traits>
#include <typeinfo>

namespace multihull {

template <>
struct Codec<std::error_code> {
    static void encode(detail::Writer& writer, const std::error_code& code);
    static std::error_code decode(detail::Reader& reader);
};

template <>
struct Codec<std::exception_ptr> {
    static void encode(detail::Writer& writer, const std::exception_ptr& error);
    static std::exception_ptr decode(detail::Reader& reader);
};

namespace detail {

/// How one exception type of the user's travels; links into a list that only grows.
struct ExceptionCodec {
    const std::type_info* type;
    void (*encode)(Writer&, const std::exception_ptr&);
    std::exception_ptr (*decode)(Reader&);
    ExceptionCodec* next = nullptr;
};
void register_exception(ExceptionCodec& codec) noexcept;

/// What one encode() or decode() remembers, forgotten at its end.
class EncodeScope {
public:
    explicit EncodeScope(Writer& writer) noexcept : writer_(writer) {}
    ~EncodeScope() {
        if (writer_.depth_ == 0) {
            writer_.shared_.reset();
        }
    }
    EncodeScope(const EncodeScope&) = delete;
    EncodeScope& operator=(const EncodeScope&) = delete;

private:
    Writer& writer_;
};
class DecodeScope {
public:
    explicit DecodeScope(Reader& reader) noexcept : reader_(reader) {}
    ~DecodeScope() {
        if (reader_.depth_ == 0) {
            reader_.shared_.reset();
        }
    }
    DecodeScope(const DecodeScope&) = delete;
    DecodeScope& operator=(const DecodeScope&) = delete;

private:
    Reader& reader_;
};

/// Appends the value. A type that does not travel stops the compiler with a sentence.
template <class T>
void encode(Writer& writer, const T& value) {
    if constexpr (!Travels<T>) {
        require_travels<T>();
    } else if constexpr (kFixedSize<T> != 0) {
        store(writer.claim(kFixedSize<T>), value);
    } else {
        const EncodeScope scope(writer);
        encode_value(writer, value);
    }
}
/// The same for a value that holds what can only be moved, such as a connection: it is sent once, and left empty.
template <class T>
    requires(!std::is_const_v<T>)
void encode(Writer& writer, T& value) {
    if constexpr (!Travels<T>) {
        require_travels<T>();
    } else if constexpr (kFixedSize<T> != 0) {
        store(writer.claim(kFixedSize<T>), value);
    } else {
        const EncodeScope scope(writer);
        encode_value(writer, value);
    }
}

/// The value that encode() appended. Throws CodecError when the bytes are not those of such a value.
template <class T>
T decode(Reader& reader) {
    if constexpr (!Travels<T>) {
        require_travels<T>();
        __builtin_unreachable();
    } else if constexpr (kFixedSize<T> != 0) {
        return load<T>(reader.view(kFixedSize<T>).data());
    } else {
        const DecodeScope scope(reader);
        return decode_value<T>(reader);
    }
}

}    // namespace detail

/// Lets exceptions of exactly this type, which must travel, come back as themselves instead of as RemoteError. Call it before
/// pools are made, or as `const bool registered = multihull::register_exception<E>();` beside the type.
template <class E>
bool register_exception() {
    if constexpr (Travels<E>) {
        static detail::ExceptionCodec codec{&typeid(E),
                                            [](detail::Writer& writer, const std::exception_ptr& error) {
                                                try {
                                                    std::rethrow_exception(error);
                                                } catch (const E& exception) {
                                                    detail::encode(writer, exception);
                                                }
                                            },
                                            [](detail::Reader& reader) {
                                                return std::make_exception_ptr(detail::decode<E>(reader));
                                            }};
        static const bool done = (detail::register_exception(codec), true);
        return done;
    } else {
        detail::require_travels<E>();
        return false;
    }
}

}    // namespace multihull
