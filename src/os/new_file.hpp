// A file that appears under its name whole or not at all, whoever dies meanwhile.
//
// Safe across processes: any number may write one name; the last to publish wins, and readers see one or the other.
//
// Invariants
// (1) Under the name there is only ever a file that was written to its end: it gets there by link or by rename.
// (2) A temporary name ("." + name + ".new" + number) belongs to a living writer, which holds a flock on the file, or to nobody:
//     who gets the flock may remove the name, after a look whether it still means that file.
// (3) While somebody holds the flock of a file that is under a temporary name, nobody else changes what that name means.
#pragma once

#include "os/fd.hpp"

#include <cstddef>
#include <span>
#include <string>

namespace multihull::os {

class NewFile {
public:
    /// Begins a file that will be called `name` in the folder, a descriptor that outlives this. Throws std::system_error.
    NewFile(int folder, std::string name);
    NewFile(const NewFile&) = delete;
    NewFile& operator=(const NewFile&) = delete;
    /// What was not published is gone.
    ~NewFile();

    /// Throws std::system_error, also for a full disk.
    void write(std::span<const std::byte> bytes);
    /// Waits until the bytes are on the disk, so that they survive a loss of power too.
    void sync();
    /// Gives it its name, in place of the file that had it. Throws std::system_error.
    void publish();

private:
    bool create_named(const std::string& temporary);
    bool give(const std::string& temporary);

    int folder_;
    std::string name_;
    std::string temporary_;    // the name that it has for now; empty where it has none
    Fd fd_;
};

/// Whether this is a name that a NewFile has for a while.
bool is_temporary_name(const char* name) noexcept;
/// Removes a temporary name whose writer is dead; false where it stays.
bool sweep_temporary(int folder, const char* name) noexcept;

}    // namespace multihull::os
