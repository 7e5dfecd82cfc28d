#include "channels.hpp"

#include <multihull/pipe.hpp>
#include <multihull/queue.hpp>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <fmt/format.h>

#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <mqueue.h>
#include <new>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#ifdef MULTIHULL_BENCH_ZEROMQ
#include <zmq.h>
#endif

namespace bench {

namespace ipc = boost::interprocess;

void require(bool ok, const char* what) {
    if (!ok) throw std::runtime_error(what);
}

namespace {

std::string unique_name(const char* what) {
    static int count = 0;
    return fmt::format("/multihull_bench_{}_{}_{}", what, ::getpid(), ++count);
}

Channel over(const std::shared_ptr<std::array<int, 2>>& ends) {
    return {[ends](std::byte* data, std::size_t size) {
                while (size > 0) {
                    const auto sent = ::write((*ends)[1], data, size);
                    require(sent > 0, "write");
                    data += sent;
                    size -= static_cast<std::size_t>(sent);
                }
            },
            [ends](std::byte* data, std::size_t size) {
                while (size > 0) {
                    const auto got = ::read((*ends)[0], data, size);
                    require(got > 0, "read");
                    data += got;
                    size -= static_cast<std::size_t>(got);
                }
            }};
}

std::shared_ptr<std::array<int, 2>> two_ends(bool socket) {
    auto ends = std::shared_ptr<std::array<int, 2>>(new std::array<int, 2>{}, [](auto* old) {
        for (const int end : *old) ::close(end);
        delete old;
    });
    require((socket ? ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends->data()) : ::pipe(ends->data())) == 0, "two ends");
    return ends;
}

// Memory that the processes share, as long as the channel lives.
std::shared_ptr<std::byte> shared_memory(std::size_t bytes) {
    void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    require(memory != MAP_FAILED, "mmap");
    return {static_cast<std::byte*>(memory), [bytes](std::byte* old) { ::munmap(old, bytes); }};
}

struct MutexRing {
    explicit MutexRing(std::size_t message, std::size_t most) : size(message), capacity(most) {
        pthread_mutexattr_t mutex_attributes;
        ::pthread_mutexattr_init(&mutex_attributes);
        ::pthread_mutexattr_setpshared(&mutex_attributes, PTHREAD_PROCESS_SHARED);
        ::pthread_mutex_init(&mutex, &mutex_attributes);
        pthread_condattr_t condition_attributes;
        ::pthread_condattr_init(&condition_attributes);
        ::pthread_condattr_setpshared(&condition_attributes, PTHREAD_PROCESS_SHARED);
        ::pthread_cond_init(&not_empty, &condition_attributes);
        ::pthread_cond_init(&not_full, &condition_attributes);
    }
    std::byte* slot(std::size_t number) { return reinterpret_cast<std::byte*>(this + 1) + number % capacity * size; }

    std::size_t size;
    std::size_t capacity;
    pthread_mutex_t mutex;
    pthread_cond_t not_empty;
    pthread_cond_t not_full;
    std::size_t put = 0;
    std::size_t taken = 0;
};

struct BareRing {
    std::byte* slot(std::size_t number) { return reinterpret_cast<std::byte*>(this + 1) + number % capacity * size; }

    std::size_t size;
    std::size_t capacity;
    alignas(64) std::atomic<std::size_t> put{0};
    alignas(64) std::atomic<std::size_t> taken{0};
};

}    // namespace

Channel multihull_small(std::size_t maxsize) {
    multihull::Queue<Small> queue(maxsize);
    return {[queue](std::byte* data, std::size_t) mutable { queue.put(*reinterpret_cast<Small*>(data)); },
            [queue](std::byte* data, std::size_t) mutable { *reinterpret_cast<Small*>(data) = queue.get(); }};
}

Channel multihull_big() {
    multihull::Queue<std::vector<std::byte>> queue(8);
    return {[queue, message = std::vector<std::byte>(kBig)](std::byte*, std::size_t) mutable { queue.put(message); },
            [queue](std::byte* data, std::size_t size) mutable { std::memcpy(data, queue.get_view().data(), size); }};
}

Channel multihull_in_place() {
    multihull::Queue<std::vector<std::byte>> queue(8);
    return {[queue](std::byte*, std::size_t size) mutable {
                auto loan = queue.loan(size);
                loan[0] = std::byte{1};
                queue.publish(std::move(loan));
            },
            [queue](std::byte* data, std::size_t) mutable { *data = queue.get_view()[0]; }};
}

Channel multihull_connection() {
    auto [there, here] = multihull::Pipe();
    const auto reader = std::make_shared<multihull::Connection>(std::move(there));
    const auto writer = std::make_shared<multihull::Connection>(std::move(here));
    return {[writer](std::byte* data, std::size_t size) {
                writer->send_bytes({data, size});
            },
            [reader](std::byte* data, std::size_t size) {
                reader->recv_bytes_into({data, size});
            }};
}

Channel boost_queue(std::size_t size, std::size_t maxsize) {
    const std::string name = unique_name("boost").substr(1);
    auto queue =
        std::shared_ptr<ipc::message_queue>(new ipc::message_queue(ipc::create_only, name.c_str(), maxsize, size),
                                            [](auto* old) { delete old; });
    ipc::message_queue::remove(name.c_str());
    return {[queue](std::byte* data, std::size_t bytes) { queue->send(data, bytes, 0); },
            [queue](std::byte* data, std::size_t bytes) {
                std::size_t got = 0;
                unsigned priority = 0;
                queue->receive(data, bytes, got, priority);
            }};
}

Channel posix_queue() {
    const std::string name = unique_name("posix");
    mq_attr attributes{};
    attributes.mq_maxmsg = 10;    // what a user may have without asking the administrator
    attributes.mq_msgsize = sizeof(Small);
    const mqd_t queue = ::mq_open(name.c_str(), O_CREAT | O_RDWR, 0600, &attributes);
    require(queue >= 0, "mq_open");
    ::mq_unlink(name.c_str());
    auto held = std::shared_ptr<const mqd_t>(new mqd_t(queue), [](const mqd_t* old) {
        ::mq_close(*old);
        delete old;
    });
    return {[held](std::byte* data, std::size_t size) {
                require(::mq_send(*held, reinterpret_cast<char*>(data), size, 0) == 0, "mq_send");
            },
            [held](std::byte* data, std::size_t size) {
                require(::mq_receive(*held, reinterpret_cast<char*>(data), size, nullptr) >= 0, "mq_receive");
            }};
}

Channel raw_pipe() { return over(two_ends(false)); }
Channel raw_socket() { return over(two_ends(true)); }

Channel mutex_ring(std::size_t size, std::size_t maxsize) {
    const auto memory = shared_memory(sizeof(MutexRing) + size * maxsize);
    auto* const ring = new (memory.get()) MutexRing(size, maxsize);
    return {[memory, ring](std::byte* data, std::size_t bytes) {
                ::pthread_mutex_lock(&ring->mutex);
                while (ring->put - ring->taken == ring->capacity) ::pthread_cond_wait(&ring->not_full, &ring->mutex);
                std::memcpy(ring->slot(ring->put), data, bytes);
                ++ring->put;
                ::pthread_cond_signal(&ring->not_empty);
                ::pthread_mutex_unlock(&ring->mutex);
            },
            [memory, ring](std::byte* data, std::size_t bytes) {
                ::pthread_mutex_lock(&ring->mutex);
                while (ring->put == ring->taken) ::pthread_cond_wait(&ring->not_empty, &ring->mutex);
                std::memcpy(data, ring->slot(ring->taken), bytes);
                ++ring->taken;
                ::pthread_cond_signal(&ring->not_full);
                ::pthread_mutex_unlock(&ring->mutex);
            }};
}

Channel bare_ring(std::size_t size, std::size_t maxsize) {
    const auto memory = shared_memory(sizeof(BareRing) + size * maxsize);
    auto* const ring = new (memory.get()) BareRing{.size = size, .capacity = maxsize};
    return {[memory, ring](std::byte* data, std::size_t bytes) {
                const std::size_t number = ring->put.load(std::memory_order_relaxed);
                while (number - ring->taken.load(std::memory_order_acquire) == ring->capacity) {}
                std::memcpy(ring->slot(number), data, bytes);
                ring->put.store(number + 1, std::memory_order_release);
            },
            [memory, ring](std::byte* data, std::size_t bytes) {
                const std::size_t number = ring->taken.load(std::memory_order_relaxed);
                while (ring->put.load(std::memory_order_acquire) == number) {}
                std::memcpy(data, ring->slot(number), bytes);
                ring->taken.store(number + 1, std::memory_order_release);
            }};
}

#ifdef MULTIHULL_BENCH_ZEROMQ
namespace {

// A context has threads, so each process makes its own when it first uses the channel.
class Zeromq {
public:
    explicit Zeromq(std::string address) : address_(std::move(address)) {}
    Zeromq(const Zeromq&) = delete;
    Zeromq& operator=(const Zeromq&) = delete;
    ~Zeromq() = default;

    void* socket(int type) {
        if (socket_ != nullptr) return socket_;
        context_ = ::zmq_ctx_new();
        socket_ = ::zmq_socket(context_, type);
        const int outcome =
            type == ZMQ_PULL ? ::zmq_bind(socket_, address_.c_str()) : ::zmq_connect(socket_, address_.c_str());
        require(outcome == 0, "a ZeroMQ socket");
        return socket_;
    }
    // Returns when everything has been sent.
    void finish() {
        if (socket_ == nullptr) return;
        ::zmq_close(socket_);
        ::zmq_ctx_term(context_);
        socket_ = nullptr;
    }

private:
    std::string address_;
    void* context_ = nullptr;
    void* socket_ = nullptr;
};

}    // namespace

Channel zeromq() {
    const auto channel = std::make_shared<Zeromq>("ipc://@" + unique_name("zeromq").substr(1));
    return {[channel](std::byte* data, std::size_t size) {
                require(::zmq_send(channel->socket(ZMQ_PUSH), data, size, 0) >= 0, "zmq_send");
            },
            [channel](std::byte* data, std::size_t size) {
                require(::zmq_recv(channel->socket(ZMQ_PULL), data, size, 0) >= 0, "zmq_recv");
            },
            [channel] { channel->finish(); }};
}
#else
Channel zeromq() { return {}; }
#endif

}    // namespace bench
