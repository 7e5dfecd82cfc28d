// Files that are either whole or not there: written under a temporary name beside their place, then renamed.
//
// The temporary's name holds the number of the process that runs the program, so that what a killed worker or a killed
// run leaves behind can be told from the work of another run in the same folder.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

namespace app {

/// A name for the task's unfinished file: hidden, unique to this run, in the folder where the file will be.
std::filesystem::path temporary_name(const std::filesystem::path& folder, std::size_t index);

/// Writes the file aside and renames it. Returns an empty string, or why the system refused; then nothing is left behind.
std::string write_whole(const std::string& temporary, const std::string& path, std::span<const std::byte> content);

/// Removes from the folder the unfinished files of this run.
void remove_own_temporaries(const std::filesystem::path& folder) noexcept;

/// Removes from the folder the unfinished files of runs that are no longer alive.
void remove_stale_temporaries(const std::filesystem::path& folder) noexcept;

}    // namespace app
