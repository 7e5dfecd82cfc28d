// The error of whoever uses what lives in a manager whose server is gone.
#pragma once

#include <multihull/error.hpp>

namespace multihull {

/// The server of a manager died, was shut down, or can't be reached.
class ManagerGone : public Error {
public:
    using Error::Error;
};

}    // namespace multihull
