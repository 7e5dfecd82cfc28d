#include "channel/sockets.hpp"

#include "os/process.hpp"

#include <multihull/error.hpp>

#include <cerrno>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <utility>

namespace multihull::detail {

FileDescriptor make_socket(int family, int flags) {
    FileDescriptor socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
    if (!socket) {
        throw Error("a socket can't be made (" + os::errno_text(errno) +
                    "): raise the limit on open files (ulimit -n)");
    }
    return socket;
}

void send_at_once(int socket) noexcept {
    const int one = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);    // means nothing to a unix socket
}

Connection connection_over(FileDescriptor socket, bool python) {
    Connection connection(std::move(socket));
    connection.set_python(python);
    return connection;
}

}    // namespace multihull::detail
