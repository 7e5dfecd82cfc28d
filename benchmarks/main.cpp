// Multihull side by side with a plain thread pool, Boost.Asio, oneTBB, a loop, bare system calls, and Python's own pools.
#include "bare_process.hpp"
#include "measure.hpp"
#include "report.hpp"

#include <multihull/process.hpp>

#include <charconv>
#include <cstdio>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr const char* kUsage =
    "usage: compare [--rounds N] [--workers N] [--only NAME]... [--python SCRIPT] [--best] [--json FILE] [--list]\n"
    "\n"
    "  --rounds N       samples of each competitor, taken in turn (11)\n"
    "  --workers N      processes or threads of each pool, where the work does not say (the machine's processors)\n"
    "  --only NAME      only the work NAME; \"map-*\" for those that begin so\n"
    "  --python SCRIPT  takes Python's peers in as well: benchmarks/python_peer.py\n"
    "  --best           shows the best sample of each instead of the median\n"
    "  --json FILE      writes every sample\n"
    "  --list           lists the works\n"
    "\n"
    "The ratio is Multihull's time over that of the competitor named beside it: the median of the rounds' own "
    "ratios.\n";

struct Options {
    bench::Settings settings;
    std::vector<std::string> only;
    std::string python;
    std::string json;
    std::string work;    // measured in this process: how the program calls itself
    bool best = false;
    bool list = false;
    bool help = false;
};

int positive(std::string_view option, std::string_view text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1) {
        throw std::invalid_argument(std::string(option) + " needs a number above 0, not \"" + std::string(text) + "\"");
    }
    return value;
}

Options parse(int argc, char** argv) {
    Options options;
    options.settings.workers = multihull::cpu_count();
    for (int i = 1; i < argc; ++i) {
        const std::string_view option = argv[i];
        const auto value = [&]() -> std::string {
            if (i + 1 == argc) throw std::invalid_argument(std::string(option) + " needs a value");
            return argv[++i];
        };
        if (option == "--rounds") {
            options.settings.rounds = positive(option, value());
        } else if (option == "--workers") {
            options.settings.workers = static_cast<std::size_t>(positive(option, value()));
        } else if (option == "--only") {
            options.only.push_back(value());
        } else if (option == "--python") {
            options.python = value();
        } else if (option == "--json") {
            options.json = value();
        } else if (option == "--work") {
            options.work = value();
        } else if (option == "--best") {
            options.best = true;
        } else if (option == "--list") {
            options.list = true;
        } else if (option == "-h" || option == "--help") {
            options.help = true;
        } else {
            throw std::invalid_argument("what is \"" + std::string(option) + "\"? See --help");
        }
    }
    return options;
}

std::vector<const bench::Work*> chosen(const std::vector<std::string>& only) {
    std::vector<const bench::Work*> result;
    for (const bench::Work& work : bench::works()) {
        bool wanted = only.empty();
        for (const std::string& name : only) {
            wanted = wanted || work.name == name ||
                     (name.ends_with('*') && work.name.starts_with(name.substr(0, name.size() - 1)));
        }
        if (wanted) result.push_back(&work);
    }
    if (result.empty()) throw std::invalid_argument("no work has such a name: see --list");
    return result;
}

int compare(const Options& options) {
    const std::vector<const bench::Work*> wanted = chosen(options.only);
    std::printf("%s\n%zu workers, %d rounds\n\n", bench::machine().c_str(), options.settings.workers,
                options.settings.rounds);
    const bench::Table table(options.best);
    table.print_head();
    std::vector<bench::Measured> all;
    bool well = true;
    for (const bench::Work* work : wanted) {
        bench::Measured measured;
        if (!bench::measure_apart(*work, options.settings, options.python, measured)) {
            std::fprintf(stderr, "compare: %s could not be measured to its end\n", work->name.data());
            well = false;
        }
        table.print_row(measured);
        all.push_back(std::move(measured));
    }
    if (!options.json.empty()) bench::write_json(options.json, all, options.settings);
    return well ? 0 : 1;
}

}    // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == bench::kLeaveAtOnce) return 0;
    multihull::init(argc, argv);
    try {
        const Options options = parse(argc, argv);
        if (options.help) {
            std::fputs(kUsage, stdout);
        } else if (options.list) {
            for (const bench::Work& work : bench::works())
                std::printf("%-22s %s\n", work.name.data(), work.title.data());
        } else if (!options.work.empty()) {
            bench::measure_here(*chosen({options.work}).front(), options.settings, options.python);
        } else {
            return compare(options);
        }
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "compare: %s\n", error.what());
        return 2;
    }
}
