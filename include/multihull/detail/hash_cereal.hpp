// The archive that a user's cereal functions see when a value is hashed: what they hand it goes into a Hasher.
#pragma once

#include <multihull/detail/codec_cereal.hpp>
#include <multihull/hasher.hpp>

#include <cereal/cereal.hpp>

#include <cstdint>

namespace multihull::detail {

class HashArchive final : public cereal::OutputArchive<HashArchive, cereal::AllowEmptyClassElision> {
public:
    explicit HashArchive(Hasher& hasher) : OutputArchive(this), hasher_(hasher) {}
    HashArchive(const HashArchive&) = delete;
    HashArchive& operator=(const HashArchive&) = delete;

    template <class... Values>
    HashArchive& operator()(Values&&... values) {
        (save_one(values), ...);
        return *this;
    }
    template <class Value>
    HashArchive& operator&(Value&& value) {
        return (*this)(value);
    }
    template <class Value>
    HashArchive& operator<<(Value&& value) {
        return (*this)(value);
    }

    Hasher& hasher() noexcept { return hasher_; }
    /// What cereal makes of it.
    template <class Value>
    void save_by_cereal(const Value& value) {
        if constexpr (kMinimalMember<Value, HashArchive>) {
            (*this)(cereal::access::member_save_minimal(*this, value));
        } else if constexpr (kMinimalFunction<Value, HashArchive>) {
            (*this)(CEREAL_SAVE_MINIMAL_FUNCTION_NAME(*this, value));
        } else {
            OutputArchive::operator()(value);
        }
    }

private:
    template <class Value>
    void save_one(const Value& value);

    Hasher& hasher_;
};

// What cereal calls by name for the values it passes on itself.
template <class T>
    requires std::is_arithmetic_v<T>
void CEREAL_SAVE_FUNCTION_NAME(HashArchive& archive, const T& value) {
    archive(value);
}
template <class T>
void CEREAL_SERIALIZE_FUNCTION_NAME(HashArchive& archive, cereal::NameValuePair<T>& pair) {
    archive(pair.value);
}
template <class T>
void CEREAL_SAVE_FUNCTION_NAME(HashArchive& archive, const cereal::SizeTag<T>& tag) {
    archive(static_cast<std::uint64_t>(tag.size));
}
template <class T>
void CEREAL_SAVE_FUNCTION_NAME(HashArchive& archive, const cereal::BinaryData<T>& data) {
    archive.hasher().bytes(data.data, static_cast<std::size_t>(data.size));
}

}    // namespace multihull::detail
