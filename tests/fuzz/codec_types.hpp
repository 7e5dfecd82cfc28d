// The types that the codec is fuzzed with: an input's first byte says which, the others are what is decoded.
#pragma once

#include "codec/samples.hpp"

#include <multihull/object.hpp>

#include <array>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

namespace fuzz {

/// A type, and whether a value of it, encoded twice, gives the same bytes: not so where the order of elements is the container's
/// own affair, or where bytes between fields travel along.
template <class T, bool kSame = true>
struct Entry {
    using Type = T;
    static constexpr bool kSameBytes = kSame;
};

using Graph = std::vector<std::shared_ptr<std::pair<int, std::vector<std::shared_ptr<std::string>>>>>;
using Either = std::variant<std::monostate, int, std::string, std::vector<std::variant<bool, double, std::string>>>;

using Types = std::tuple<Entry<bool>,                                                               // 0
                         Entry<samples::Padded, false>,                                             // 1
                         Entry<std::string>,                                                        // 2
                         Entry<std::u32string>,                                                     // 3
                         Entry<std::filesystem::path>,                                              // 4
                         Entry<std::vector<double>>,                                                // 5
                         Entry<std::vector<bool>>,                                                  // 6
                         Entry<std::vector<std::string>>,                                           // 7
                         Entry<std::vector<samples::Opaque>, false>,                                // 8
                         Entry<std::vector<samples::Empty>>,                                        // 9
                         Entry<std::map<std::string, std::vector<int>>>,                            // 10
                         Entry<std::multimap<int, std::string>>,                                    // 11
                         Entry<std::unordered_map<std::string, std::optional<double>>, false>,      // 12
                         Entry<std::unordered_multiset<std::int16_t>, false>,                       // 13
                         Entry<std::set<std::pair<std::string, bool>>>,                             // 14
                         Entry<std::tuple<char, std::optional<std::string>, std::deque<short>>>,    // 15
                         Entry<std::array<std::optional<samples::Colour>, 5>>,                      // 16
                         Entry<Either>,                                                             // 17
                         Entry<samples::Person>,                                                    // 18
                         Entry<samples::WithArrays>,                                                // 19
                         Entry<samples::Tree>,                                                      // 20
                         Entry<std::unique_ptr<samples::Link>>,                                     // 21
                         Entry<std::vector<samples::Room>>,                                         // 22
                         Entry<samples::Account>,                                                   // 23
                         Entry<samples::Matrix>,                                                    // 24
                         Entry<samples::Bank>,                                                      // 25
                         Entry<std::vector<samples::Versioned>>,                                    // 26
                         Entry<std::vector<samples::Silent>>,                                       // 27
                         Entry<std::shared_ptr<std::string>>,                                       // 28
                         Entry<Graph>,                                                              // 29
                         Entry<std::error_code>,                                                    // 30
                         Entry<std::exception_ptr>,                                                 // 31
                         Entry<std::forward_list<std::list<std::string>>>,                          // 32
                         Entry<std::vector<samples::Page>>,                                         // 33
                         Entry<samples::Titled>,                                                    //
                         Entry<multihull::Object>>;    //                                                   // 34

inline constexpr std::size_t kTypeCount = std::tuple_size_v<Types>;

/// Calls visit(Entry) for the type with that number.
template <class Visit>
void with_type(std::size_t number, Visit visit) {
    [&]<std::size_t... kNumbers>(std::index_sequence<kNumbers...>) {
        static_cast<void>(((number == kNumbers && (visit(std::tuple_element_t<kNumbers, Types>()), true)) || ...));
    }(std::make_index_sequence<kTypeCount>());
}

}    // namespace fuzz
