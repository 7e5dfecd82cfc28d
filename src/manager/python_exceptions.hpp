// What Python's exceptions become here. The other way is python_exception() in detail/manager_type.hpp; both are one table.
//
// Thread-safe.
#pragma once

#include <multihull/object.hpp>

#include <exception>
#include <string>

namespace multihull::detail {

/// What Python's str() says of an exception: of `KeyError('k')` it is `'k'`, with its quotes.
std::string exception_text(const Object::Instance& error);

/// The exception of ours that means the same as this instance of Python's: KeyError, IndexError, TypeError, ValueError,
/// AttributeError, EndOfFile, QueueEmpty, QueueFull, QueueClosed, BrokenBarrier, WaitTimeout, AuthenticationError, BufferTooShort,
/// PicklingError, UnpicklingError, std::overflow_error, std::bad_alloc, std::system_error for an OSError with a number. Any other is
/// a RemoteError of its name and text, and so is what is no instance.
std::exception_ptr exception_from_python(const Object& error);

}    // namespace multihull::detail
