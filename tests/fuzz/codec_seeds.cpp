// Writes the seeds of the codec's fuzzer: the encodings of the values that the other tests use.
//
// usage: codec_seeds FOLDER
#include "fuzz/codec_types.hpp"

#include <fstream>
#include <iostream>
#include <stdexcept>

namespace {

constexpr std::size_t kLargest = 600;

int count = 0;

void write_seed(const std::filesystem::path& folder, std::size_t number, const samples::Bytes& bytes) {
    if (bytes.size() > kLargest) return;
    std::ofstream file(folder / ("seed-" + std::to_string(number) + "-" + std::to_string(++count)), std::ios::binary);
    file.put(static_cast<char>(number));
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// Values that the other tests can't compare, or don't have.
template <class Visit>
void for_each_more(Visit visit) {
    auto link = std::make_unique<samples::Link>();
    link->next = std::make_unique<samples::Link>();
    visit(link);
    visit(std::vector<double>{0.5, -1});
    const auto text = std::make_shared<std::string>("shared");
    const auto node = std::make_shared<fuzz::Graph::value_type::element_type>(7, std::vector{text, text});
    visit(fuzz::Graph{node, nullptr, node});
    visit(text);
    visit(fuzz::Either(std::vector<std::variant<bool, double, std::string>>{true, 2.5, "text"}));
    visit(std::make_exception_ptr(std::out_of_range("far out")));
    visit(std::make_exception_ptr(std::system_error(std::make_error_code(std::errc::no_space_on_device), "write")));
    try {
        try {
            throw std::invalid_argument("inner");
        } catch (...) {
            std::throw_with_nested(std::runtime_error("outer"));
        }
    } catch (...) {
        visit(std::current_exception());
    }
    try {
        throw std::pair(1, 2);
    } catch (...) {
        visit(std::current_exception());
    }
    visit(std::map<std::string, std::vector<int>>{{"a", {1, 2}}, {"", {}}});
    visit(std::multimap<int, std::string>{{1, "a"}, {1, "b"}});
    visit(std::unordered_map<std::string, std::optional<double>>{{"one", 1.0}, {"none", {}}});
    visit(std::unordered_multiset<std::int16_t>{1, 1, 2});
    visit(std::set<std::pair<std::string, bool>>{{"x", true}});
    visit(std::tuple<char, std::optional<std::string>, std::deque<short>>{'c', "text", {1, 2}});
    visit(std::array<std::optional<samples::Colour>, 5>{samples::Colour::red});
    visit(std::vector<samples::Versioned>{{1, 0}, {2, 0}});
    visit(std::vector<samples::Silent>(3));
    visit(std::forward_list<std::list<std::string>>{{"a"}, {}});
    visit(std::vector<samples::Page>{{1}, {2}});
    using multihull::Object;
    visit(Object());
    visit(Object("text"));
    visit(Object::bytes("\x01\xff"));
    visit(Object{1, 2.5, true, "text", Object(), Object::tuple({1, 2})});
    visit(Object::dict({{1, "one"}, {"two", Object::set({1, 2.5, "x"})}}));
    visit(std::vector<samples::Room>{{samples::Metre(2), "hall"}});
}

}    // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::cerr << "usage: codec_seeds FOLDER\n";
        return 2;
    }
    const std::filesystem::path folder = argv[1];
    for (std::size_t number = 0; number < fuzz::kTypeCount; ++number) {
        fuzz::with_type(number, [&]<class Entry>(Entry) {
            const auto visit = [&]<class T>(const T& value) {
                if constexpr (std::is_same_v<T, typename Entry::Type>) {
                    write_seed(folder, number, samples::encoded(value));
                }
            };
            samples::for_each(visit);
            for_each_more(visit);
        });
    }
}
