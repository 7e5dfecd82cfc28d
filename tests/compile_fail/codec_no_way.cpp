// expect: there is no way to encode it; make it an aggregate, or give it a cereal serialize() function
#include <multihull/codec.hpp>
#include <string>

class Account {
public:
    explicit Account(std::string owner) : owner_(owner) {}

private:
    std::string owner_;
};

int main() {
    multihull::detail::VectorGrowth growth;
    multihull::detail::Writer writer({}, growth);
    multihull::detail::Reader reader(writer.bytes());
    auto value = multihull::detail::decode<Account>(reader);
    multihull::detail::encode(writer, value);
}
