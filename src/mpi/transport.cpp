#include "mpi/transport.hpp"

#include "mpi/bells.hpp"
#include "mpi/wire.hpp"
#include "os/clock.hpp"

#include <multihull/error.hpp>
#include <multihull/mpi.hpp>

#include <algorithm>
#include <dlfcn.h>
#include <iterator>
#include <memory>
#include <string>
#include <unistd.h>
#include <utility>

namespace multihull::mpi {

namespace {

constexpr int kBulkTag = 1;
constexpr int kMeetingTag = 2;
// MPI 3 counts in int.
constexpr std::size_t kPiece = std::size_t{1} << 30;
constexpr std::size_t kSpareBuffers = 16;
/// Receives of packets that wait at a time, and what each has room for: a full packet and one more record of those that are not bulk.
constexpr std::size_t kReceives = 8;
constexpr std::size_t kPacketPiece = kFullPacket + 2 * kBulk;
/// A packet's tag is its number and whether it goes on in the next one; tags up to 32767 are in every MPI.
constexpr unsigned kNumbers = 1U << 14;

int tag_of(unsigned number, bool more) { return static_cast<int>(number * 2 + (more ? 1 : 0)); }

void check(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw Error(std::string(what) + " failed: " + std::string(text, static_cast<std::size_t>(length)));
}

// Open MPI gives way (sched_yield) each time that it is asked and has nothing to do, where there are more ranks than processors. Its function
// for that is declared for its own parts only; where it is missing, this does nothing.
bool set_giving_way(bool on) noexcept {
    using Set = bool (*)(bool);
    const auto set = reinterpret_cast<Set>(::dlsym(RTLD_DEFAULT, "opal_progress_set_yield_when_idle"));
    return set != nullptr && set(on);
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
    // The thread that calls this is MPI's main thread; others call it only where that is allowed.
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided) != MPI_SUCCESS ||
        provided < MPI_THREAD_FUNNELED) {
        throw StartError("this MPI can't be used by a program with threads: use a build of it that can");
    }
    any_thread_ = provided >= MPI_THREAD_SERIALIZED;
    gather_ranks(spawned, argv);
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    check(MPI_Comm_dup(comm_, &packets_), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(packets_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    const auto ranks = static_cast<std::size_t>(size_);
    gone_.resize(ranks);
    next_sent_.resize(ranks);
    next_received_.resize(ranks);
    begun_.resize(ranks);
    for (std::size_t i = 0; i < kReceives; ++i) listen_more();
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
    if (gave_way_) set_giving_way(true);
    stop_listening();
    MPI_Comm_free(&packets_);
    MPI_Comm_free(&comm_);
    MPI_Finalize();
}

void Transport::be_polled() noexcept { gave_way_ = set_giving_way(false); }

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
    struct Kept {
        Bytes bytes;
        unsigned pieces = 0;    // that MPI still reads
    };
    auto kept = std::make_shared<Kept>(std::move(packet));
    std::span<const std::byte> rest = kept->bytes;
    do {
        const auto piece = rest.first(std::min(rest.size(), kPacketPiece));
        rest = rest.subspan(piece.size());
        unsigned& number = next_sent_[static_cast<std::size_t>(rank)];
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, rank, tag_of(number, !rest.empty()),
                        packets_, &request),
              "MPI_Isend");
        number = (number + 1) % kNumbers;
        if (traffic_ != nullptr) {
            ++traffic_->messages_sent;
            traffic_->bytes_sent += piece.size();
        }
        ++kept->pieces;
        add(request, rank, [this, kept] {
            if (--kept->pieces == 0) reuse(std::move(kept->bytes));
        });
    } while (!rest.empty());
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
        if (bytes.empty()) return add(request, rank, std::move(sent));
        add(request, rank, [] {});
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
        if (bytes.empty()) return add(request, kNobody, std::move(arrived));
        add(request, kNobody, [] {});
    }
}

// Packets that come.

void Transport::listen(std::size_t place) {
    Incoming& next = incoming_[place];
    next.here = false;
    check(MPI_Irecv(next.bytes.get(), static_cast<int>(kPacketPiece), MPI_BYTE, MPI_ANY_SOURCE, MPI_ANY_TAG, packets_,
                    &requests_[place]),
          "MPI_Irecv");
}

void Transport::listen_more() {
    const std::size_t place = incoming_.size();
    incoming_.emplace_back().bytes = std::make_unique_for_overwrite<std::byte[]>(kPacketPiece);
    requests_.insert(requests_.begin() + static_cast<std::ptrdiff_t>(place), MPI_REQUEST_NULL);
    listen(place);
}

void Transport::heard(std::size_t place, const MPI_Status& status) {
    Incoming& next = incoming_[place];
    int count = 0;
    MPI_Get_count(&status, MPI_BYTE, &count);
    next.size = static_cast<std::size_t>(count);
    next.rank = status.MPI_SOURCE;
    next.number = static_cast<unsigned>(status.MPI_TAG) / 2;
    next.more = status.MPI_TAG % 2 != 0;
    next.here = true;
    if (traffic_ != nullptr) {
        ++traffic_->messages_received;
        traffic_->bytes_received += next.size;
    }
    if (gone_[static_cast<std::size_t>(next.rank)]) listen(place);
}

// What was being read is not needed any more.
void Transport::let_go() {
    if (!lent_) return;
    listen(*lent_);
    lent_.reset();
}

bool Transport::receive_packet(int& rank, std::span<const std::byte>& packet) {
    let_go();
    for (std::size_t i = 0; i < incoming_.size(); ++i) {
        Incoming& next = incoming_[i];
        const auto sender = static_cast<std::size_t>(next.rank);
        if (!next.here || next.number != next_received_[sender]) continue;
        next_received_[sender] = (next.number + 1) % kNumbers;
        const std::span<const std::byte> piece(next.bytes.get(), next.size);
        Bytes& begun = begun_[sender];
        if (!next.more && begun.empty()) {
            rank = next.rank;
            packet = piece;
            next.here = false;
            lent_ = i;
            return true;
        }
        begun.insert(begun.end(), piece.begin(), piece.end());
        const bool whole = !next.more;
        rank = next.rank;
        listen(i);
        if (whole) {
            assembled_ = std::exchange(begun, {});
            packet = assembled_;
            return true;
        }
        i = std::size_t(-1);    // the next piece may be in an earlier place
    }
    return false;
}

// Receives that wait for the rest of packets of a lost rank wait for ever. Where no receive is left, and packets have come, there is one for
// each of those.
void Transport::look_whether_stuck() {
    constexpr unsigned kTurns = 64;
    constexpr std::int64_t kStuckNs = 1'000'000'000;
    if (++idle_turns_ % kTurns != 0) return;
    const auto packet_waits = [&] {
        int found = 0;
        check(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, packets_, &found, MPI_STATUS_IGNORE), "MPI_Iprobe");
        return found != 0;
    };
    if (!packet_waits()) {
        stuck_since_ns_ = 0;
    } else if (stuck_since_ns_ == 0) {
        stuck_since_ns_ = os::now_ns();
    } else if (os::now_ns() - stuck_since_ns_ > kStuckNs) {
        while (packet_waits()) listen_more();
        stuck_since_ns_ = 0;
    }
}

void Transport::give_up(int rank) {
    give_up_the_end();
    gone_[static_cast<std::size_t>(rank)] = true;
    for (std::size_t i = 0; i < incoming_.size(); ++i) {
        if (incoming_[i].here && incoming_[i].rank == rank) listen(i);
    }
}

// MPI wants every request ended before it ends.
void Transport::stop_listening() noexcept {
    for (std::size_t i = 0; i < incoming_.size(); ++i) {
        if (requests_[i] == MPI_REQUEST_NULL) continue;
        MPI_Cancel(&requests_[i]);
        MPI_Wait(&requests_[i], MPI_STATUS_IGNORE);
    }
}

void Transport::add(MPI_Request request, int to, std::function<void()> done) {
    requests_.push_back(request);
    under_way_.push_back({std::move(done), to});
    if (bells_ != nullptr && to != kNobody) bells_->ring(static_cast<std::size_t>(to));
}

// What was not sent whole at once went on while this asked.
void Transport::ring_again() const noexcept {
    if (bells_ == nullptr || under_way_.empty()) return;
    Bells::full_fence();
    for (const Request& request : under_way_) {
        if (request.to != kNobody) bells_->ring_behind_fence(static_cast<std::size_t>(request.to));
    }
}

bool Transport::progress() {
    let_go();
    completed_.resize(requests_.size());
    statuses_.resize(requests_.size());
    int count = 0;
    // Open MPI answers before it looks: what it has found it says when it is asked again.
    for (int asked = 0; asked < 2 && count <= 0; ++asked) {    // MPI_UNDEFINED is negative
        check(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, completed_.data(),
                           statuses_.data()),
              "MPI_Testsome");
    }
    ring_again();
    if (count <= 0) {
        look_whether_stuck();
        return false;
    }
    stuck_since_ns_ = 0;
    const std::size_t receives = incoming_.size();
    std::vector<std::function<void()>> done;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
        const auto place = static_cast<std::size_t>(completed_[i]);
        if (place < receives) {
            heard(place, statuses_[i]);
        } else {
            done.push_back(std::move(under_way_[place - receives].done));
        }
    }
    if (done.empty()) return true;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < under_way_.size(); ++i) {
        if (requests_[receives + i] == MPI_REQUEST_NULL) continue;
        requests_[receives + kept] = requests_[receives + i];
        if (kept != i) under_way_[kept] = std::move(under_way_[i]);
        ++kept;
    }
    requests_.resize(receives + kept);
    under_way_.resize(kept);
    for (const auto& call : done) call();    // they may add more
    return true;
}

}    // namespace multihull::mpi
