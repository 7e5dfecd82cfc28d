// The command `multihull thumbnails IN... -o OUT`.
#pragma once

#include "command_line.hpp"

namespace app {

/// Runs it. Returns the exit status: 0, or 1 where files failed, 2 where the run could not go on, 128 + N after signal N.
/// Throws EnvironmentError where it can't begin.
int run_thumbnails_command(const ThumbnailsOptions& options);

}    // namespace app
