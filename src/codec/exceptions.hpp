// Exceptions across processes: the standard's and Multihull's own come back as themselves, others as RemoteError.
//
// Thread-safe.
#pragma once

#include <multihull/codec.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>

namespace multihull::detail {

/// The room that encode_exception() can always do with, whatever the exception and however short memory is.
inline constexpr std::size_t kSmallestException = 1;

/// Appends the exception. `stack` is where it was thrown, for those that come back as RemoteError.
/// Never throws: what cannot be written for want of memory is written as std::bad_alloc, which takes kSmallestException bytes;
/// where even these do not fit nothing is written, and nothing decodes as std::bad_alloc.
void encode_exception(Writer& writer, const std::exception_ptr& error, std::span<const std::uintptr_t> stack) noexcept;

/// The exception that encode_exception() appended; null for null. Throws CodecError when the bytes are not those of one.
std::exception_ptr decode_exception(Reader& reader);

}    // namespace multihull::detail
