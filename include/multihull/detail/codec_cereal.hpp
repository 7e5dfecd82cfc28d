// The archives that a user's cereal functions see: serialize(), or save() and load(), as members or beside the type.
//
// What a user's function hands to the archive is encoded by Multihull's own code, so cereal/types/*.hpp are not needed; what is
// cereal's own (name-value pairs, size tags, binary data, base classes, versions) goes through cereal.
#pragma once

#include <multihull/detail/codec_bytes.hpp>

#include <cereal/cereal.hpp>

namespace multihull::detail {

class SpanOutputArchive;
class SpanInputArchive;

// Types that stand for another value are asked for it here, because cereal would go past the archive with it.
template <class T, class Output = SpanOutputArchive>
inline constexpr bool kMinimalMember = cereal::traits::has_member_save_minimal<T, Output>::value &&
                                       (cereal::traits::is_specialized_member_save_minimal<T, Output>::value ||
                                        !cereal::traits::is_specialized<T, Output>::value);
template <class T, class Output = SpanOutputArchive>
inline constexpr bool kMinimalFunction = cereal::traits::has_non_member_save_minimal<T, Output>::value &&
                                         (cereal::traits::is_specialized_non_member_save_minimal<T, Output>::value ||
                                          !cereal::traits::is_specialized<T, Output>::value);

class SpanOutputArchive final : public cereal::OutputArchive<SpanOutputArchive, cereal::AllowEmptyClassElision> {
public:
    explicit SpanOutputArchive(Writer& writer) : OutputArchive(this), writer_(writer), outer_(writer.archive_) {
        writer.archive_ = this;
    }
    ~SpanOutputArchive() override { writer_.archive_ = outer_; }
    SpanOutputArchive(const SpanOutputArchive&) = delete;
    SpanOutputArchive& operator=(const SpanOutputArchive&) = delete;

    template <class... Values>
    SpanOutputArchive& operator()(Values&&... values) {
        (save_one(values), ...);
        return *this;
    }
    template <class Value>
    SpanOutputArchive& operator&(Value&& value) {
        return (*this)(value);
    }
    template <class Value>
    SpanOutputArchive& operator<<(Value&& value) {
        return (*this)(value);
    }

    Writer& writer() noexcept { return writer_; }
    /// The archive of the serialize() that is running in this encoding, if one is.
    static SpanOutputArchive* running(Writer& writer) noexcept { return writer.archive_; }
    /// What cereal makes of it.
    template <class Value>
    void save_by_cereal(const Value& value) {
        if constexpr (kMinimalMember<Value>) {
            (*this)(cereal::access::member_save_minimal(*this, value));
        } else if constexpr (kMinimalFunction<Value>) {
            (*this)(CEREAL_SAVE_MINIMAL_FUNCTION_NAME(*this, value));
        } else {
            OutputArchive::operator()(value);
        }
    }

private:
    template <class Value>
    void save_one(Value& value);

    Writer& writer_;
    SpanOutputArchive* outer_;
};

class SpanInputArchive final : public cereal::InputArchive<SpanInputArchive, cereal::AllowEmptyClassElision> {
public:
    explicit SpanInputArchive(Reader& reader) : InputArchive(this), reader_(reader), outer_(reader.archive_) {
        reader.archive_ = this;
    }
    ~SpanInputArchive() override { reader_.archive_ = outer_; }
    SpanInputArchive(const SpanInputArchive&) = delete;
    SpanInputArchive& operator=(const SpanInputArchive&) = delete;

    template <class... Values>
    SpanInputArchive& operator()(Values&&... values) {
        (load_one(values), ...);
        return *this;
    }
    template <class Value>
    SpanInputArchive& operator&(Value&& value) {
        return (*this)(value);
    }
    template <class Value>
    SpanInputArchive& operator>>(Value&& value) {
        return (*this)(value);
    }

    Reader& reader() noexcept { return reader_; }
    /// The archive of the serialize() that is running in this decoding, if one is.
    static SpanInputArchive* running(Reader& reader) noexcept { return reader.archive_; }
    /// What cereal makes of it.
    template <class Value>
    void load_by_cereal(Value& value) {
        if constexpr (kMinimalMember<Value>) {
            typename cereal::traits::has_member_save_minimal<Value, SpanOutputArchive>::type part;
            (*this)(part);
            cereal::access::member_load_minimal(*this, value, part);
        } else if constexpr (kMinimalFunction<Value>) {
            typename cereal::traits::has_non_member_save_minimal<Value, SpanOutputArchive>::type part;
            (*this)(part);
            CEREAL_LOAD_MINIMAL_FUNCTION_NAME(*this, value, part);
        } else {
            InputArchive::operator()(value);
        }
    }

private:
    template <class Value>
    void load_one(Value& value);

    Reader& reader_;
    SpanInputArchive* outer_;
};

// What cereal calls by name for the values it passes on itself.
template <class T>
    requires std::is_arithmetic_v<T>
void CEREAL_SAVE_FUNCTION_NAME(SpanOutputArchive& archive, const T& value) {
    archive.writer().put(value);
}
template <class T>
    requires std::is_arithmetic_v<T>
void CEREAL_LOAD_FUNCTION_NAME(SpanInputArchive& archive, T& value) {
    archive(value);
}
template <class T>
void CEREAL_SERIALIZE_FUNCTION_NAME(SpanOutputArchive& archive, cereal::NameValuePair<T>& pair) {
    archive(pair.value);
}
template <class T>
void CEREAL_SERIALIZE_FUNCTION_NAME(SpanInputArchive& archive, cereal::NameValuePair<T>& pair) {
    archive(pair.value);
}
template <class T>
void CEREAL_SAVE_FUNCTION_NAME(SpanOutputArchive& archive, const cereal::SizeTag<T>& tag) {
    archive.writer().write_length(static_cast<std::size_t>(tag.size));
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(SpanInputArchive& archive, cereal::SizeTag<T>& tag) {
    // What follows takes at least a byte for each element, or the user's loop could be made to run for ever.
    tag.size = static_cast<std::remove_reference_t<T>>(archive.reader().read_length(1));
}
template <class T>
void CEREAL_SAVE_FUNCTION_NAME(SpanOutputArchive& archive, const cereal::BinaryData<T>& data) {
    archive.writer().write(data.data, static_cast<std::size_t>(data.size));
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(SpanInputArchive& archive, cereal::BinaryData<T>& data) {
    archive.reader().read(data.data, static_cast<std::size_t>(data.size));
}

/// How many ways of each kind cereal finds for the type; one of both is what it takes.
template <class T>
inline constexpr int kCerealWays = cereal::traits::detail::count_output_serializers<T, SpanOutputArchive>::value +
                                   cereal::traits::detail::count_input_serializers<T, SpanInputArchive>::value;
template <class T>
inline constexpr bool kByCereal = cereal::traits::is_output_serializable<T, SpanOutputArchive>::value &&
                                  cereal::traits::is_input_serializable<T, SpanInputArchive>::value;

}    // namespace multihull::detail

CEREAL_SETUP_ARCHIVE_TRAITS(multihull::detail::SpanInputArchive, multihull::detail::SpanOutputArchive)
