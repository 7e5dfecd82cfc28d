#include <multihull/pool.hpp>

#include "pool/engine.hpp"

#include <multihull/log.hpp>

#include <stdexcept>

namespace multihull {

namespace {

PoolOptions options_for(std::size_t processes) {
    if (processes == 0)
        throw std::invalid_argument(
            "a pool of 0 workers can run nothing: give at least 1, or no number for one a processor");
    PoolOptions options;
    options.processes = processes;
    return options;
}

}    // namespace

Pool::Pool(std::size_t processes) : Pool(options_for(processes)) {}

Pool::Pool(PoolOptions options) : engine_(detail::make_engine(std::move(options))) {}

Pool::~Pool() {
    if (!engine_->ours()) return;
    try {
        if (std::uncaught_exceptions() > exceptions_) {
            engine_->terminate();
        } else {
            engine_->close();
        }
        engine_->join();
    } catch (const std::exception& error) {
        log(LogLevel::error, std::string("while a pool ended: ") + error.what());
    }
}

void Pool::close() { engine_->close(); }
void Pool::terminate() noexcept { engine_->terminate(); }
void Pool::join() { engine_->join(); }
std::size_t Pool::processes() const noexcept { return engine_->workers(); }
PoolStats Pool::stats() const { return engine_->stats(); }
PoolInsights Pool::insights() const { return engine_->insights(); }
Trace Pool::trace() const { return engine_->trace(); }

}    // namespace multihull
