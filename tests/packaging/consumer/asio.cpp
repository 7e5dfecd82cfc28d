// A program of somebody else's with the component asio.
#include <multihull/asio.hpp>

#include <exception>
#include <iostream>

#if defined(MULTIHULL_ASIO_BOOST)
#include <boost/asio/io_context.hpp>
#else
#include <asio/io_context.hpp>
#endif

int square(int x) { return x * x; }

int main() {
    multihull::asio::net::io_context io;
    multihull::asio::Pool pool(io, 1);
    bool right = false;
    pool.async_submit(square, 7, [&](std::exception_ptr error, int value) { right = !error && value == 49; });
    io.run();
    std::cout << (right ? "Multihull's asio works here\n" : "Multihull's asio does not work here\n");
    return right ? 0 : 1;
}
