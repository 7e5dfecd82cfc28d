// Ctrl-C, as a flag that the main loop looks at: nothing is done inside the signal handler.
//
// Safe to ask from any thread. A second Ctrl-C ends the program at once, as if this were not here.
#pragma once

namespace app {

/// From now on SIGINT, SIGTERM and SIGHUP ask the run to stop.
void watch_for_interrupts();

/// The signal that asked the run to stop; 0 where none has.
int interrupted_by() noexcept;

}    // namespace app
