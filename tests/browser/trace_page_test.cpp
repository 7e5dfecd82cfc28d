// A trace's files: the page in a real browser, the JSON against what Chrome's trace event format asks for.
#include "support/folder.hpp"

#include <multihull/pool.hpp>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <tuple>
#include <vector>

namespace {

using namespace std::chrono_literals;
using nlohmann::json;

int square(int x) { return x * x; }
int spin(int turns) {
    volatile int sink = 0;
    for (int i = 0; i < turns; ++i) sink = i;
    return sink;
}
int fail(int) { throw std::out_of_range("beyond"); }
int crash(int) { return raise(SIGSEGV); }
// A name that would end the page's script early, if it were let.
struct Hostile {
    template <class T>
    int operator()(T x) const {
        std::fprintf(stderr, "</script><script>alert(1)</script>\xff\n");
        return x + ::raise(SIGKILL);
    }
};

multihull::Trace eventful() {
    multihull::Pool pool({.processes = 3, .pass_stderr = false, .name = "</script><b>pool", .trace = true});
    std::vector<multihull::Future<int>> futures;
    for (int i = 0; i < 60; ++i) futures.push_back(pool.apply_async(spin, 20'000 * (i % 7 + 1)));
    for (int i = 0; i < 3; ++i) futures.push_back(pool.apply_async(fail, i));
    futures.push_back(pool.apply_async(crash, 1));
    futures.push_back(pool.apply_async(Hostile{}, 1));
    for (int i = 0; i < 40; ++i) futures.push_back(pool.apply_async(spin, 20'000));
    pool.map(square, std::views::iota(0, 20'000));
    pool.map([](int x) { return x + 1; }, {1, 2, 3});
    for (auto& future : futures) future.wait();
    pool.close();
    pool.join();
    return pool.trace();
}

struct Output {
    int status = -1;
    std::string text;
};

Output output_of(const std::string& command) {
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    Output output;
    char buffer[4096];
    for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.text.append(buffer, got);
    output.status = ::pclose(pipe);
    return output;
}

std::string whole_file(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
}

// Slices of one thread: one ends before the next begins, or holds it whole.
void expect_nested(std::vector<std::pair<double, double>> slices) {
    std::stable_sort(slices.begin(), slices.end());
    std::vector<double> open;
    constexpr double kRounding = 1e-3;
    for (const auto& [begin, end] : slices) {
        while (!open.empty() && open.back() <= begin + kRounding) open.pop_back();
        if (!open.empty()) {
            EXPECT_LE(end, open.back() + kRounding);
        }
        open.push_back(end);
    }
}

// The format's description ("Trace Event Format", of the Chromium project): the object form has `traceEvents`; each event has a name,
// a phase `ph`, `pid`, `tid`; all but metadata have `ts`, in microseconds; a complete event ("X") has `dur`, and those of a thread
// nest; metadata ("M") are process_name, thread_name (with args.name) or ..._sort_index; an instant event ("i") has a scope g, p or t;
// a flow has a start ("s") and an end ("f", bound to the enclosing slice by bp "e") of the same name, category and id, each inside of a
// slice of its thread, the end not before the start.
TEST(TraceFiles, JsonIsChromesFormat) {
    const test::Folder folder;
    const multihull::Trace trace = eventful();
    trace.write_chrome_json(folder / "trace.json");
    const json file = json::parse(whole_file(folder / "trace.json"));
    EXPECT_TRUE(file.at("displayTimeUnit") == "ms" || file.at("displayTimeUnit") == "ns");
    std::map<std::pair<int, int>, std::vector<std::pair<double, double>>> slices;
    std::map<std::tuple<std::string, std::string, std::uint64_t>, std::vector<json>> flows;
    std::map<int, std::string> threads;
    std::size_t tasks = 0;
    std::size_t instants = 0;
    for (const json& event : file.at("traceEvents")) {
        const auto phase = event.at("ph").get<std::string>();
        EXPECT_TRUE(event.at("name").is_string());
        EXPECT_TRUE(event.at("pid").is_number_integer());
        EXPECT_TRUE(event.at("tid").is_number_integer());
        EXPECT_NE(event.at("tid"), 0);    // of which Chrome and Perfetto do not think the same
        const std::pair thread(event.at("pid").get<int>(), event.at("tid").get<int>());
        if (phase == "M") {
            const auto name = event.at("name").get<std::string>();
            if (name == "thread_name") threads[thread.second] = event.at("args").at("name");
            EXPECT_TRUE(name == "process_name" || name == "thread_name" || name == "thread_sort_index") << name;
            EXPECT_TRUE(event.at("args").at(name == "thread_sort_index" ? "sort_index" : "name").is_primitive());
            continue;
        }
        const double at = event.at("ts").get<double>();
        EXPECT_GE(at, 0);
        if (phase == "X") {
            EXPECT_GE(event.at("dur").get<double>(), 0);
            slices[thread].emplace_back(at, at + event.at("dur").get<double>());
            if (event.at("cat") == "task") ++tasks;
        } else if (phase == "i") {
            const auto scope = event.at("s").get<std::string>();
            EXPECT_TRUE(scope == "g" || scope == "p" || scope == "t");
            ++instants;
        } else {
            EXPECT_TRUE(phase == "s" || phase == "f") << phase;
            flows[{event.at("name"), event.at("cat"), event.at("id")}].push_back(event);
        }
    }
    EXPECT_EQ(tasks, trace.events.size());
    EXPECT_EQ(instants, trace.failures.size());
    EXPECT_EQ(instants, 2U);
    EXPECT_EQ(threads.size(), trace.workers + 1);
    for (const auto& [thread, all] : slices) expect_nested(all);
    EXPECT_EQ(flows.size(), 105U);
    for (const auto& [key, ends] : flows) {
        ASSERT_EQ(ends.size(), 2U);
        EXPECT_EQ(ends[0].at("ph"), "s");
        EXPECT_EQ(ends[1].at("ph"), "f");
        EXPECT_EQ(ends[1].at("bp"), "e");
        EXPECT_LE(ends[0].at("ts").get<double>(), ends[1].at("ts").get<double>());
        for (const json& end : ends) {
            const double at = end.at("ts").get<double>();
            const auto& row = slices[{end.at("pid").get<int>(), end.at("tid").get<int>()}];
            EXPECT_TRUE(std::ranges::any_of(row, [&](const auto& s) { return s.first <= at && at <= s.second; }));
        }
    }
}

void expect_understood(const json& understood, const multihull::Trace& trace) {
    EXPECT_EQ(understood.at("errors"), json::array());
    EXPECT_EQ(understood.at("process"), json::array({{{"pid", trace.pid}, {"name", trace.pool}}}));
    const auto calls = std::ranges::count(trace.events, 0U, &multihull::TraceEvent::inputs);
    std::map<std::string, std::int64_t> slices{{"submitted", calls}};
    std::int64_t worked_ns = 0;
    const auto worker = [&](const auto& event) -> auto& { return slices["worker " + std::to_string(event.worker)]; };
    for (const multihull::TraceEvent& event : trace.events) {
        ++worker(event);
        worked_ns += (event.ended - event.started).count();
    }
    for (const multihull::TraceProcess& process : trace.processes) worker(process) += 2;    // starting, initializing
    for (const multihull::PoolFailure& failure : trace.failures) ++worker(failure);
    std::map<std::string, std::int64_t> rows;
    for (const json& thread : understood.at("threads")) rows[thread.at("name")] = thread.at("slices");
    EXPECT_EQ(rows, slices);
    EXPECT_EQ(understood.at("threads")[0].at("name"), "submitted");
    for (const json& kind : understood.at("slices")) {
        EXPECT_GE(kind.at("shortest").get<double>(), 0) << kind;
        if (kind.at("category") != "task") continue;
        EXPECT_EQ(kind.at("count"), trace.events.size());
        // Each is rounded to a nanosecond.
        EXPECT_NEAR(kind.at("total").get<double>(), static_cast<double>(worked_ns),
                    static_cast<double>(trace.events.size()));
    }
    const json flows{{"count", calls}, {"backwards", 0}, {"same", calls}};
    EXPECT_EQ(understood.at("flows"), json::array({flows}));
    EXPECT_EQ(understood.at("stacks").size(), trace.failures.size());
}

// The parser of ui.perfetto.dev: it complains of nothing, and has understood what the trace holds; also in a container, where the
// number of a process is as small as those of its threads.
TEST(TraceFiles, PerfettoReadsTheJson) {
    const std::string parser = MULTIHULL_TESTS "/../build/perfetto";
    if (!std::filesystem::exists(parser) || std::system("command -v node >/dev/null") != 0)
        GTEST_SKIP() << "no Perfetto here: tests/browser/perfetto.sh fetches it where there are node and npm";
    const test::Folder folder;
    multihull::Trace trace = eventful();
    for (const int pid : {trace.pid, 2}) {
        trace.pid = pid;
        trace.write_chrome_json(folder / "trace.json");
        const Output output = output_of("node '" MULTIHULL_TESTS "/browser/perfetto.mjs' '" + parser + "' '" +
                                        folder.path() + "/trace.json' 2>'" + folder.path() + "/errors'");
        ASSERT_EQ(output.status, 0) << whole_file(folder / "errors");
        expect_understood(json::parse(output.text), trace);
    }
}

TEST(TraceFiles, CannotBeWrittenIsAnError) {
    multihull::Pool pool({.processes = 1, .trace = true});
    pool.apply(square, 1);
    try {
        pool.trace().write_html("/nowhere/at/all.html");
        FAIL();
    } catch (const std::system_error& error) {
        EXPECT_EQ(error.code(), std::errc::no_such_file_or_directory);
        EXPECT_NE(std::string(error.what()).find("/nowhere/at/all.html"), std::string::npos);
    }
    EXPECT_THROW(pool.trace().write_chrome_json("/dev/full"), std::system_error);
}

TEST(TraceFiles, PageWorksInABrowser) {
    const test::Folder folder;
    eventful().write_html(folder / "trace.html");
    EXPECT_EQ(whole_file(folder / "trace.html").find("</script><b>"), std::string::npos);
    if (std::system("command -v chromium chromedriver python3 >/dev/null") != 0)
        GTEST_SKIP() << "no chromium, chromedriver and python3 here";
    const char* const pictures = std::getenv("MULTIHULL_PICTURES");    // a folder, for who wants to look
    const std::string command = std::string("python3 '" MULTIHULL_TESTS "/browser/trace_page.py' '") +
                                (folder / "trace.html").string() + "' " + (pictures != nullptr ? pictures : "") +
                                " 2>&1";
    const Output output = output_of(command);
    EXPECT_EQ(output.status, 0) << output.text;
}

}    // namespace
