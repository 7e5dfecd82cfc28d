#include "channel/handshake.hpp"

#include "os/clock.hpp"
#include "os/fd.hpp"
#include "os/stream.hpp"

#include <multihull/error.hpp>

#include <array>
#include <cerrno>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <utility>

namespace multihull::detail {

namespace {

constexpr std::string_view kChallenge = "#CHALLENGE#";
constexpr std::string_view kWelcome = "#WELCOME#";
constexpr std::string_view kFailure = "#FAILURE#";
constexpr std::size_t kLongestFrame = 256;
constexpr std::size_t kOldChallenge = 20;
constexpr std::size_t kOldAnswer = 16;
constexpr std::size_t kRandomBytes = 40;

const EVP_MD* digest_of(std::string_view name) {
    struct Digest {
        std::string_view name;
        const EVP_MD* (*get)();
    };
    static constexpr std::array<Digest, 5> kDigests{{{"md5", EVP_md5},
                                                     {"sha256", EVP_sha256},
                                                     {"sha384", EVP_sha384},
                                                     {"sha3_256", EVP_sha3_256},
                                                     {"sha3_384", EVP_sha3_384}}};
    for (const Digest& digest : kDigests) {
        if (digest.name == name) return digest.get();
    }
    return nullptr;
}

std::string hmac(const EVP_MD* digest, std::string_view key, std::string_view message) {
    std::string code(EVP_MAX_MD_SIZE, '\0');
    unsigned size = 0;
    if (::HMAC(digest, key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(message.data()),
               message.size(), reinterpret_cast<unsigned char*>(code.data()), &size) == nullptr) {
        throw Error("a message can't be authenticated: the system's OpenSSL does not allow that digest");
    }
    code.resize(size);
    return code;
}

// The `{name}` at the beginning of a challenge or an answer; empty where there is none.
std::string_view digest_name(std::string_view text) {
    if (text.empty() || text.front() != '{') return {};
    const std::size_t end = text.find('}');
    return end == text.npos ? std::string_view() : text.substr(1, end - 1);
}

}    // namespace

Handshake::Handshake(std::string key, bool listens)
    : key_(std::move(key)), listens_(listens), next_(listens ? Next::answer : Next::challenge) {}

std::string Handshake::make_challenge() {
    std::array<char, kRandomBytes> random;
    if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
        os::throw_errno("getrandom");
    challenge_ = "{sha256}" + std::string(random.data(), random.size());
    return std::string(kChallenge) + challenge_;
}

std::vector<std::string> Handshake::begin() {
    if (!listens_) return {};
    return {make_challenge()};
}

std::vector<std::string> Handshake::fail(bool wrong_key, std::vector<std::string> say) {
    state_ = State::failed;
    wrong_key_ = wrong_key;
    return say;
}

std::optional<std::string> Handshake::answer_to(std::string_view challenge) const {
    if (challenge.size() == kOldChallenge) return hmac(EVP_md5(), key_, challenge);
    const std::string_view name = digest_name(challenge);
    const EVP_MD* const digest = digest_of(name);
    if (digest == nullptr) return std::nullopt;
    return "{" + std::string(name) + "}" + hmac(digest, key_, challenge);
}

bool Handshake::right(std::string_view answer) const {
    const EVP_MD* digest = EVP_md5();
    if (answer.size() != kOldAnswer) {
        const std::string_view name = digest_name(answer);
        digest = digest_of(name);
        if (digest == nullptr) return false;
        answer.remove_prefix(name.size() + 2);
    }
    const std::string expected = hmac(digest, key_, challenge_);
    return answer.size() == expected.size() && ::CRYPTO_memcmp(answer.data(), expected.data(), expected.size()) == 0;
}

// The listener's side: challenge out, answer in, verdict out, then the same the other way; the client's is the mirror of it.
std::vector<std::string> Handshake::on_frame(std::string_view frame) {
    switch (next_) {
        case Next::challenge: {
            if (!frame.starts_with(kChallenge)) return fail(false);
            auto answer = answer_to(frame.substr(kChallenge.size()));
            if (!answer) return fail(false);
            next_ = Next::verdict;
            return {std::move(*answer)};
        }
        case Next::verdict:
            if (frame != kWelcome) return fail(frame == kFailure);
            if (listens_) {
                state_ = State::done;
                return {};
            }
            next_ = Next::answer;
            return {make_challenge()};
        case Next::answer:
            if (!right(frame)) return fail(true, {std::string(kFailure)});
            if (listens_) {
                next_ = Next::challenge;
            } else {
                state_ = State::done;
            }
            return {std::string(kWelcome)};
    }
    return fail(false);
}

SocketHandshake::SocketHandshake(FileDescriptor socket, std::string key, bool listens, std::int64_t deadline)
    : socket_(std::move(socket)), handshake_(std::move(key), listens), deadline_(deadline) {
    if (!send(handshake_.begin())) fail("it closed the connection");
}

// Less than a kilobyte in all, so that a socket always has room for it; one that has not is closed.
bool SocketHandshake::send(const std::vector<std::string>& frames) {
    for (const std::string& frame : frames) {
        const std::array<std::byte, 4> header{std::byte{0}, std::byte{0}, static_cast<std::byte>(frame.size() >> 8),
                                              static_cast<std::byte>(frame.size())};
        if (os::send_all(socket_.fileno(), header, std::as_bytes(std::span(frame)), {}, 0).end != os::StreamEnd::none) {
            return false;
        }
    }
    return true;
}

Handshake::State SocketHandshake::fail(const char* why) noexcept {
    failure_ = why;
    return Handshake::State::failed;
}

Handshake::State SocketHandshake::go_on() {
    if (failure_ != nullptr) return Handshake::State::failed;
    while (handshake_.state() == Handshake::State::going) {
        const std::size_t had = frame_.size();
        frame_.resize(wanted_);
        const os::Streamed got =
            os::receive_all(socket_.fileno(), std::as_writable_bytes(std::span(frame_)).subspan(had), nullptr, 0);
        frame_.resize(had + got.bytes);
        if (got.end == os::StreamEnd::timeout) return Handshake::State::going;
        if (got.end != os::StreamEnd::none) return fail("it closed the connection");
        if (wanted_ == 4) {
            std::size_t length = 0;
            for (const char c : frame_) length = length << 8 | static_cast<unsigned char>(c);
            if (length > kLongestFrame) return fail("it does not speak this protocol");
            wanted_ += length;
            if (length != 0) continue;
        }
        const std::string frame = std::exchange(frame_, {}).substr(4);
        wanted_ = 4;
        const auto answer = handshake_.on_frame(frame);
        const bool sent = send(answer);
        if (handshake_.state() == Handshake::State::failed) {
            return fail(handshake_.wrong_key() ? "the keys differ" : "it does not speak this protocol");
        }
        if (!sent) return fail("it closed the connection");
    }
    return handshake_.state();
}

}    // namespace multihull::detail
