// What runs inside a worker: one image file becomes one thumbnail. Only workers decode; the parent never does.
#pragma once

#include <string>

namespace app {

/// One file's work, as it travels to a worker.
struct ThumbnailJob {
    std::string input;
    std::string output;       ///< The thumbnail's place; its ending says the format.
    std::string temporary;    ///< Where it is written before it is renamed.
    int width = 50;           ///< The thumbnail fits inside width x height.
    int height = 50;
    double blur = 0;    ///< Sigma of a Gaussian blur at full resolution; 0: none.
};

/// How a job that neither crashed nor ran out of time or memory ended. Both texts are empty for a thumbnail that was made.
struct JobResult {
    std::string unreadable;        ///< Why the input is no image that can be read; concerns this file alone.
    std::string output_refused;    ///< Why the output could not be written; the next file would meet the same.
};

/// Makes libvips ready in a worker: its own threads and its cache off, its warnings off.
void start_libvips();

/// Makes one thumbnail. Throws std::bad_alloc where memory is too short.
JobResult make_thumbnail(const ThumbnailJob& job);

}    // namespace app
