#include "mpi/wire.hpp"

#include <multihull/error.hpp>

#include <memory>
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

void encode_call(Writer& writer, const Call& call, std::vector<std::shared_ptr<const void>>& kept) {
    writer.put(static_cast<std::uint8_t>(static_cast<bool>(call)));
    if (!call) return;
    // Behind its token, as the pool will write it again: alignment is counted from there.
    VectorGrowth growth;
    Writer own({}, growth);
    own.leave_family();
    own.keep_in(kept);
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

// The settings that travel, in their order: the same list writes and reads them.
template <class Options, class Field>
void each_pool_setting(Options& options, Field field) {
    field(options.task_timeout);
    field(options.limits.memory);
    field(options.limits.cpu_time);
    field(options.retries);
    field(options.retry_on);
    field(options.max_tasks_per_child);
    field(options.max_growth_per_child);
    field(options.inner_max_num_threads);
    field(options.capture_stderr);
    field(options.pass_stderr);
    field(options.name);
}

template <class Options, class Field>
void each_task_setting(Options& options, Field field) {
    field(options.timeout);
    field(options.memory);
    field(options.cpu_time);
    field(options.retries);
    field(options.retry_on);
    field(options.chunksize);
}

auto writing(Writer& writer) {
    return [&writer](const auto& setting) { multihull::detail::encode(writer, setting); };
}

auto reading(Reader& reader) {
    return [&reader]<class Setting>(Setting& setting) { setting = multihull::detail::decode<Setting>(reader); };
}

}    // namespace

std::vector<std::uint64_t> get_numbers(Reader& reader, std::uint32_t count) {
    std::vector<std::uint64_t> numbers(count);
    reader.read(numbers.data(), numbers.size() * sizeof(std::uint64_t));
    return numbers;
}

std::vector<std::byte> encode_settings(const PoolOptions& options, std::vector<std::shared_ptr<const void>>& kept) {
    VectorGrowth growth;
    Writer writer({}, growth);
    each_pool_setting(options, writing(writer));
    encode_call(writer, options.initializer, kept);
    encode_call(writer, options.exit_function, kept);
    return {writer.bytes().begin(), writer.bytes().end()};
}

PoolOptions decode_settings(std::span<const std::byte> bytes) {
    Reader reader(bytes);
    PoolOptions options;
    each_pool_setting(options, reading(reader));
    options.initializer = decode_call(reader);
    options.exit_function = decode_call(reader);
    return options;
}

void encode_options(Packet& packet, const TaskOptions& options) {
    VectorGrowth growth;
    std::byte first[128];
    Writer writer(first, growth);
    each_task_setting(options, writing(writer));
    packet.write(writer.bytes());
}

TaskOptions decode_options(Reader& reader) {
    TaskOptions options;
    each_task_setting(options, reading(reader));
    return options;
}

}    // namespace multihull::mpi
