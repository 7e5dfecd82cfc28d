#include "mpi/wire.hpp"

#include <multihull/error.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace multihull::mpi {

namespace {

using multihull::detail::Reader;
using multihull::detail::Token;
using multihull::detail::VectorGrowth;
using multihull::detail::Writer;

/// A pool's initializer that came from another rank.
class EncodedCall final : public multihull::detail::CallBase {
public:
    EncodedCall(Token token, std::vector<std::byte> bytes) : token_(token), bytes_(std::move(bytes)) {}

    Token token() const override { return token_; }
    void encode_to(Writer& writer) override { writer.write(bytes_.data(), bytes_.size()); }

private:
    Token token_;
    std::vector<std::byte> bytes_;
};

void encode_call(Writer& writer, const Call& call) {
    writer.put(static_cast<std::uint8_t>(static_cast<bool>(call)));
    if (!call) return;
    // Behind its token, as the pool will write it again: alignment is counted from there.
    VectorGrowth growth;
    Writer own({}, growth);
    own.leave_family();
    own.put(call.get()->token());
    call.get()->encode_to(own);
    writer.write_length(own.size());
    writer.write(own.bytes().data(), own.size());
}

Call decode_call(Reader& reader) {
    if (reader.get<std::uint8_t>() == 0) return {};
    Reader own(reader.view(reader.read_length(1)));
    const auto token = own.get<Token>();
    const auto bytes = own.view(own.remaining());
    return Call::from(std::make_shared<EncodedCall>(token, std::vector<std::byte>(bytes.begin(), bytes.end())));
}

// What a TaskOptions holds that a rank can act on.
struct TaskSettings {
    std::optional<std::chrono::nanoseconds> timeout;
    std::optional<std::size_t> memory;
    std::optional<std::chrono::nanoseconds> cpu_time;
    std::optional<unsigned> retries;
    std::optional<RetryOn> retry_on;
    std::size_t chunksize;
};

struct PoolSettings {
    std::chrono::nanoseconds task_timeout;
    std::size_t memory;
    std::chrono::nanoseconds cpu_time;
    unsigned retries;
    RetryOn retry_on;
    std::size_t max_tasks_per_child;
    std::size_t max_growth_per_child;
    std::optional<std::size_t> inner_max_num_threads;
    bool capture_stderr;
    bool pass_stderr;
    std::string name;
};

}    // namespace

std::vector<std::byte> encode_settings(const PoolOptions& options) {
    VectorGrowth growth;
    Writer writer({}, growth);
    multihull::detail::encode(writer, PoolSettings{options.task_timeout, options.limits.memory, options.limits.cpu_time,
                                                   options.retries, options.retry_on, options.max_tasks_per_child,
                                                   options.max_growth_per_child, options.inner_max_num_threads,
                                                   options.capture_stderr, options.pass_stderr, options.name});
    encode_call(writer, options.initializer);
    encode_call(writer, options.exit_function);
    return {writer.bytes().begin(), writer.bytes().end()};
}

PoolOptions decode_settings(std::span<const std::byte> bytes) {
    Reader reader(bytes);
    auto settings = multihull::detail::decode<PoolSettings>(reader);
    PoolOptions options;
    options.task_timeout = settings.task_timeout;
    options.limits = {settings.memory, settings.cpu_time};
    options.retries = settings.retries;
    options.retry_on = settings.retry_on;
    options.max_tasks_per_child = settings.max_tasks_per_child;
    options.max_growth_per_child = settings.max_growth_per_child;
    options.inner_max_num_threads = settings.inner_max_num_threads;
    options.capture_stderr = settings.capture_stderr;
    options.pass_stderr = settings.pass_stderr;
    options.name = std::move(settings.name);
    options.initializer = decode_call(reader);
    options.exit_function = decode_call(reader);
    return options;
}

void encode_options(Packet& packet, const TaskOptions& options) {
    VectorGrowth growth;
    std::byte first[128];
    Writer writer(first, growth);
    multihull::detail::encode(writer, TaskSettings{options.timeout, options.memory, options.cpu_time, options.retries,
                                                   options.retry_on, options.chunksize});
    packet.write(writer.bytes());
}

TaskOptions decode_options(Reader& reader) {
    const auto settings = multihull::detail::decode<TaskSettings>(reader);
    TaskOptions options;
    options.timeout = settings.timeout;
    options.memory = settings.memory;
    options.cpu_time = settings.cpu_time;
    options.retries = settings.retries;
    options.retry_on = settings.retry_on;
    options.chunksize = settings.chunksize;
    return options;
}

}    // namespace multihull::mpi
