// What servers answer, and the exceptions of ours that theirs become.
#include "manager/client.hpp"
#include "manager/python_exceptions.hpp"

#include <multihull/proxy.hpp>

#include <exception>
#include <string>

namespace multihull::detail {

namespace {

std::string last_line(std::string_view text) {
    while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    const std::size_t newline = text.rfind('\n');
    return std::string(newline == std::string_view::npos ? text : text.substr(newline + 1));
}

[[noreturn]] void throw_remote(const std::string& type, const std::string& text) {
    throw RemoteError(type, text, Stack());
}

// What the server itself says went wrong, as Python's traceback.
[[noreturn]] void throw_traceback(const std::string& text, std::string_view ident) {
    const std::string line = last_line(text);
    if (!ident.empty() && line == "KeyError: '" + std::string(ident) + "'") {
        throw ObjectGone(
            "a proxy's object exists no more in its manager: nobody held it for a while, or the manager was started "
            "anew");
    }
    const std::size_t colon = line.find(": ");
    const std::string type = line.substr(0, colon);
    // Python looks for a method that is not exposed in one more place.
    constexpr std::string_view kNotExposed = "AttributeError: method ";
    if (text.find(kNotExposed) != std::string::npos || type == "AttributeError") {
        throw AttributeError("a manager's object has no such method, or does not expose it:\n" + text);
    }
    if (type == "ValueError" && colon != std::string::npos) throw ValueError(line.substr(colon + 2));
    if (type == "TypeError" && colon != std::string::npos) throw TypeError(line.substr(colon + 2));
    throw_remote(type.empty() ? "RemoteError" : type, text);
}

}    // namespace

Object returned(ManagerReply reply, std::string_view ident) {
    if (reply.kind == "#RETURN") return std::move(reply.value);
    if (reply.kind == "#ERROR") std::rethrow_exception(exception_from_python(reply.value));
    if (reply.kind == "#TRACEBACK") throw_traceback(reply.value.as_str(), ident);
    if (reply.kind == "#UNSERIALIZABLE") {
        throw_remote("RemoteError", "the result can't be pickled: " + reply.value.as_str());
    }
    if (reply.kind == "#PROXY") {
        throw TypeError("this method answers with a proxy of a new object: use call_proxy() to get it");
    }
    throw Error("a manager's server answered " + reply.kind + ", which its protocol does not have");
}

void throw_manager_gone(const std::string& address, const char* why) {
    throw ManagerGone("the manager's server at " + address + " can't be reached any more (" + why +
                      "): it died, or was shut down; start another one and make the objects anew");
}

}    // namespace multihull::detail
