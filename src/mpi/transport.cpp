#include "mpi/transport.hpp"

#include <multihull/error.hpp>
#include <multihull/mpi.hpp>

#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <unistd.h>
#include <utility>

namespace multihull::mpi {

namespace {

constexpr int kPacketTag = 1;
constexpr int kBulkTag = 2;
constexpr int kMeetingTag = 3;
// MPI 3 counts in int.
constexpr std::size_t kPiece = std::size_t{1} << 30;
constexpr std::size_t kSpareBuffers = 16;

void check(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw Error(std::string(what) + " failed: " + std::string(text, static_cast<std::size_t>(length)));
}

}    // namespace

Transport::Transport(int spawned, char** argv) {
    int initialized = 0;
    MPI_Initialized(&initialized);
    if (initialized != 0) {
        throw StartError(
            "MPI was started before the session, whose thread must be the one that calls it: make "
            "multihull::mpi::Session main's first line, and leave MPI_Init out");
    }
    int provided = 0;
    // The thread that calls this is MPI's main thread, and the only one that will call it.
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS ||
        provided < MPI_THREAD_FUNNELED) {
        throw StartError("this MPI can't be used by a program with threads: use a build of it that can");
    }
    gather_ranks(spawned, argv);
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    gone_.resize(static_cast<std::size_t>(size_));
}

// Those that were spawned come behind those that spawned them.
void Transport::gather_ranks(int spawned, char** argv) {
    MPI_Comm parent = MPI_COMM_NULL;
    check(MPI_Comm_get_parent(&parent), "MPI_Comm_get_parent");
    const bool is_child = parent != MPI_COMM_NULL;
    if (!is_child && spawned == 0) {
        check(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), "MPI_Comm_dup");
        return;
    }
    MPI_Comm both = parent;
    if (!is_child) {
        char path[4096] = {};
        if (::readlink("/proc/self/exe", path, sizeof path - 1) <= 0) throw StartError("this program's file is gone");
        check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
        const int code =
            MPI_Comm_spawn(path, argv + 1, spawned, MPI_INFO_NULL, 0, MPI_COMM_WORLD, &both, MPI_ERRCODES_IGNORE);
        if (code != MPI_SUCCESS) {
            throw StartError(
                "MPI could not start " + std::to_string(spawned) +
                " more ranks: start them by its launcher instead (mpiexec -n), or see what it wrote above");
        }
    }
    check(MPI_Intercomm_merge(both, is_child ? 1 : 0, &comm_), "MPI_Intercomm_merge");
}

Transport::~Transport() {
    if (!ends_together_) return;
    MPI_Comm_free(&comm_);
    MPI_Finalize();
}

void Transport::broadcast(std::span<std::byte> bytes) {
    check(MPI_Bcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, 0, comm_), "MPI_Bcast");
}

Transport::Bytes Transport::gather(std::span<const std::byte> own) {
    Bytes all(rank_ == 0 ? own.size() * static_cast<std::size_t>(size_) : 0);
    const int size = static_cast<int>(own.size());
    check(MPI_Gather(own.data(), size, MPI_BYTE, all.data(), size, MPI_BYTE, 0, comm_), "MPI_Gather");
    return all;
}

std::vector<Transport::Bytes> Transport::gather_any(const Bytes& own) {
    std::vector<Bytes> all;
    if (rank_ != 0) {
        check(MPI_Send(own.data(), static_cast<int>(own.size()), MPI_BYTE, 0, kMeetingTag, comm_), "MPI_Send");
        return all;
    }
    all.push_back(own);
    for (int rank = 1; rank < size_; ++rank) {
        MPI_Status status;
        int count = 0;
        check(MPI_Probe(rank, kMeetingTag, comm_, &status), "MPI_Probe");
        MPI_Get_count(&status, MPI_BYTE, &count);
        Bytes bytes(static_cast<std::size_t>(count));
        check(MPI_Recv(bytes.data(), count, MPI_BYTE, rank, kMeetingTag, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
        all.push_back(std::move(bytes));
    }
    return all;
}

Transport::Bytes Transport::take_buffer() {
    if (spare_.empty()) return {};
    Bytes buffer = std::move(spare_.back());
    spare_.pop_back();
    buffer.clear();
    return buffer;
}

void Transport::reuse(Bytes buffer) {
    if (buffer.capacity() != 0 && spare_.size() < kSpareBuffers) spare_.push_back(std::move(buffer));
}

void Transport::send_packet(int rank, Bytes packet) {
    if (traffic_ != nullptr) {
        ++traffic_->messages_sent;
        traffic_->bytes_sent += packet.size();
    }
    auto kept = std::make_shared<Bytes>(std::move(packet));
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(kept->data(), static_cast<int>(kept->size()), MPI_BYTE, rank, kPacketTag, comm_, &request),
          "MPI_Isend");
    add(request, [this, kept] { reuse(std::move(*kept)); });
}

void Transport::send_bulk(int rank, std::span<const std::byte> bytes, std::function<void()> sent) {
    if (traffic_ != nullptr) {
        traffic_->messages_sent += (bytes.size() + kPiece - 1) / kPiece;
        traffic_->bytes_sent += bytes.size();
    }
    while (!bytes.empty()) {
        const std::size_t size = std::min(bytes.size(), kPiece);
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Isend(bytes.data(), static_cast<int>(size), MPI_BYTE, rank, kBulkTag, comm_, &request), "MPI_Isend");
        bytes = bytes.subspan(size);
        add(
            request, bytes.empty() ? std::move(sent) : [] {});
    }
}

void Transport::receive_bulk(int rank, std::span<std::byte> bytes, std::function<void()> arrived) {
    if (traffic_ != nullptr) {
        traffic_->messages_received += (bytes.size() + kPiece - 1) / kPiece;
        traffic_->bytes_received += bytes.size();
    }
    while (!bytes.empty()) {
        const std::size_t size = std::min(bytes.size(), kPiece);
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Irecv(bytes.data(), static_cast<int>(size), MPI_BYTE, rank, kBulkTag, comm_, &request), "MPI_Irecv");
        bytes = bytes.subspan(size);
        add(
            request, bytes.empty() ? std::move(arrived) : [] {});
    }
}

bool Transport::receive_packet(int& rank, Bytes& packet) {
    look_for_packets();
    for (auto place = incoming_.begin(); place != incoming_.end(); ++place) {
        const bool first =
            std::none_of(incoming_.begin(), place, [&](const Incoming& before) { return before.rank == place->rank; });
        if (!first) continue;
        int complete = 0;
        check(MPI_Test(&place->request, &complete, MPI_STATUS_IGNORE), "MPI_Test");
        if (complete == 0) continue;
        rank = place->rank;
        packet.swap(place->bytes);
        reuse(std::move(place->bytes));
        incoming_.erase(place);
        return true;
    }
    return false;
}

void Transport::look_for_packets() {
    constexpr std::size_t kAtOnce = 16;
    while (incoming_.size() < kAtOnce) {
        int found = 0;
        MPI_Message message = MPI_MESSAGE_NULL;
        MPI_Status status;
        check(MPI_Improbe(MPI_ANY_SOURCE, kPacketTag, comm_, &found, &message, &status), "MPI_Improbe");
        if (found == 0) return;
        int count = 0;
        MPI_Get_count(&status, MPI_BYTE, &count);
        const bool gone = gone_[static_cast<std::size_t>(status.MPI_SOURCE)];
        auto& list = gone ? abandoned_ : incoming_;
        Incoming& next = list.emplace_back(Incoming{status.MPI_SOURCE, MPI_REQUEST_NULL, take_buffer()});
        next.bytes.resize(static_cast<std::size_t>(count));
        check(MPI_Imrecv(next.bytes.data(), count, MPI_BYTE, &message, &next.request), "MPI_Imrecv");
        if (traffic_ != nullptr) {
            ++traffic_->messages_received;
            traffic_->bytes_received += next.bytes.size();
        }
    }
}

void Transport::give_up(int rank) {
    give_up_the_end();
    gone_[static_cast<std::size_t>(rank)] = true;
    for (auto place = incoming_.begin(); place != incoming_.end();) {
        const auto next = std::next(place);
        if (place->rank == rank) abandoned_.splice(abandoned_.end(), incoming_, place);
        place = next;
    }
}

void Transport::add(MPI_Request request, std::function<void()> done) {
    requests_.push_back(request);
    done_.push_back(std::move(done));
}

bool Transport::progress() {
    if (requests_.empty()) return false;
    completed_.resize(requests_.size());
    int count = 0;
    check(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, completed_.data(),
                       MPI_STATUSES_IGNORE),
          "MPI_Testsome");
    if (count <= 0) return false;    // MPI_UNDEFINED is negative
    std::vector<std::function<void()>> done;
    for (int i = 0; i < count; ++i) {
        done.push_back(std::move(done_[static_cast<std::size_t>(completed_[static_cast<std::size_t>(i)])]));
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < requests_.size(); ++i) {
        if (requests_[i] == MPI_REQUEST_NULL) continue;
        requests_[kept] = requests_[i];
        if (kept != i) done_[kept] = std::move(done_[i]);
        ++kept;
    }
    requests_.resize(kept);
    done_.resize(kept);
    for (const auto& call : done) call();    // they may add more
    return true;
}

}    // namespace multihull::mpi
