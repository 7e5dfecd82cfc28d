// A pool computes, Python draws: the points go through a manager's queue to plot.py, which needs nothing but Python's standard library.
//
// usage: plot [SCRIPT [PICTURE]]
#include <multihull/manager.hpp>
#include <multihull/pool.hpp>

#include <cmath>
#include <cstdio>
#include <iostream>
#include <string>

constexpr int kPoints = 400;

// A part of the curve, put into the queue point by point from the worker's own process.
void draw(multihull::TypedQueueProxy<std::pair<double, double>> points, int begin, int end) {
    for (int i = begin; i < end; ++i) {
        const double x = 20.0 * i / kPoints;
        points.put({x, std::sin(x) * std::exp(-x / 8)});
    }
}

int main(int argc, char** argv) {
    multihull::init(argc, argv);
    const std::string script = argc > 1 ? argv[1] : "examples/plot.py";
    const std::string picture = argc > 2 ? argv[2] : "plot.svg";

    multihull::SyncManager manager;
    manager.register_object("points", "Queue");    // the same one for everybody who asks for it
    manager.start();
    const auto points = manager.create<multihull::QueueProxy>("points");

    std::FILE* const python = ::popen(("python3 '" + script + "' '" + picture + "'").c_str(), "w");
    if (python == nullptr) return 1;
    std::fprintf(python, "%s\n%s\n", manager.address().c_str(), manager.authkey().c_str());
    std::fflush(python);

    multihull::Pool pool;
    std::vector<multihull::Future<void>> parts;
    for (int begin = 0; begin < kPoints; begin += 50)
        parts.push_back(pool.apply_async(draw, points, begin, begin + 50));
    for (auto& part : parts) part.get();
    points.put(nullptr);    // that was the last
    return ::pclose(python) == 0 ? 0 : 1;
}
// plot.py took 400 points from the queue and drew them
