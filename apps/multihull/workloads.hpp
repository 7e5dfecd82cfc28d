// Works that everybody knows, to be done in several ways by `multihull compare`. An item is one call; all items of a work are alike.
#pragma once

#include <multihull/const_array.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace app {

/// What one call gets; it travels. Which fields count is the work's business.
struct WorkItem {
    std::uint32_t work = 0;    ///< Index into workloads().
    std::uint64_t index = 0;
    std::uint64_t size = 0;
    std::vector<multihull::ConstArray<double>> arrays{};    ///< One copy that all items read.
    std::string path{};
};

/// What the user asked for.
struct WorkRequest {
    std::size_t items = 0;    ///< 0: the work's own number, or one for each file.
    std::uint64_t size = 0;
    std::vector<std::filesystem::path> files{};    ///< Of the word count; folders stand for the files in them.
};

/// Text in memory that other processes read by its path, and that is gone with this one.
class TextInMemory {
public:
    /// Throws EnvironmentError where the system has no room for it.
    explicit TextInMemory(std::string_view text);
    TextInMemory(const TextInMemory&) = delete;
    TextInMemory& operator=(const TextInMemory&) = delete;
    ~TextInMemory();
    std::string path() const;

private:
    int descriptor_;
};

/// The items of a work, and what must live as long as they are worked on.
struct WorkItems {
    std::vector<WorkItem> items{};
    std::vector<std::unique_ptr<TextInMemory>> texts{};
};

struct Workload {
    std::string_view name;
    std::string_view title;
    std::string_view unit;    ///< What `size` counts.
    std::uint64_t size;       ///< By default.
    std::size_t items;
    WorkItems (*prepare)(const Workload& work, const WorkRequest& request);
    std::uint64_t (*run)(const WorkItem& item);
};

std::span<const Workload> workloads();
/// Nothing where there is none of that name.
const Workload* find_workload(std::string_view name);

/// Makes the items. Throws EnvironmentError for files that can't be read.
WorkItems prepare(const Workload& work, const WorkRequest& request);

/// Does one, and answers a number that its whole result went into.
std::uint64_t run_item(const WorkItem& item);

}    // namespace app
