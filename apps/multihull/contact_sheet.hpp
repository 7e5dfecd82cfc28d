// One picture that shows every thumbnail of a run. Made in a worker, as everything that decodes.
#pragma once

#include "image_job.hpp"

#include <string>
#include <vector>

namespace app {

/// The sheet's work, as it travels to a worker.
struct SheetJob {
    std::vector<std::string> thumbnails;
    std::string output;
    std::string temporary;
    int width = 50;    ///< The thumbnails fit inside width x height.
    int height = 50;
};

/// Makes the sheet from those thumbnails that can be read.
JobResult make_contact_sheet(const SheetJob& job);

}    // namespace app
