// A trace as files: Chrome's trace event format, and a page for a browser. One event after the other goes out, as a trace may be long.
#include <multihull/trace.hpp>

#include "pool/trace_page.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <ostream>
#include <system_error>

namespace multihull {

namespace {

using nlohmann::json;

// What a worker wrote may be no UTF-8.
std::string text_of(const json& value, bool ascii = false) {
    return value.dump(-1, ' ', ascii, json::error_handler_t::replace);
}

double microseconds(std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1000; }

std::string label(const Trace& trace, const TraceEvent& event) {
    std::string text = trace.functions[event.function];
    if (event.inputs == 0) return text;
    text += " [" + std::to_string(event.first_input);
    if (event.inputs > 1) text += ".." + std::to_string(event.first_input + event.inputs - 1);
    return text + "]";
}

template <class Write>
void write_file(const std::filesystem::path& path, Write write) {
    errno = 0;
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    if (file) {
        write(file);
        file.close();
    }
    if (!file) {
        throw std::system_error(errno != 0 ? errno : EIO, std::generic_category(),
                                "the trace could not be written to " + path.string());
    }
}

// Writes the elements of a JSON array, one a line.
class Elements {
public:
    explicit Elements(std::ostream& out) : out_(out) {}
    void add(const json& element) {
        out_ << (first_ ? "\n" : ",\n") << text_of(element);
        first_ = false;
    }

private:
    std::ostream& out_;
    bool first_ = true;
};

// Rows are threads of one process. Tasks are submitted in its main thread, whose number is the process's (0 would be the same to
// Perfetto); workers are counted from 1, or from above that number where it is as small as theirs (in a container, say).
class ChromeWriter {
public:
    ChromeWriter(const Trace& trace, std::ostream& out)
        : trace_(trace), out_(out), elements_(out), main_(static_cast<std::size_t>(trace.pid)) {}

    void write() {
        out_ << "{\"displayTimeUnit\":\"ms\",\"otherData\":"
             << text_of({{"producer", "multihull"}, {"pool", trace_.pool}, {"dropped", trace_.dropped}})
             << ",\"traceEvents\":[";
        add_names();
        for (const TraceProcess& process : trace_.processes) add_process(process);
        add_submissions();
        for (std::size_t i = 0; i < trace_.events.size(); ++i) add_task(trace_.events[i], i);
        for (const PoolFailure& failure : trace_.failures) add_failure(failure);
        out_ << "\n]}\n";
    }

private:
    std::size_t row_of(std::size_t worker) const {
        const std::size_t below = main_ <= trace_.workers ? main_ : 0;
        return below + worker + 1;
    }

    json event(const char* phase, std::string name, std::size_t row, std::chrono::nanoseconds at) const {
        return {{"ph", phase}, {"name", std::move(name)}, {"pid", trace_.pid}, {"tid", row}, {"ts", microseconds(at)}};
    }

    void add_metadata(const char* what, std::size_t row, json arguments) {
        elements_.add({{"ph", "M"}, {"name", what}, {"pid", trace_.pid}, {"tid", row}, {"args", std::move(arguments)}});
    }

    void add_names() {
        add_metadata("process_name", main_, {{"name", trace_.pool}});
        add_metadata("thread_name", main_, {{"name", "submitted"}});
        for (std::size_t i = 0; i < trace_.workers; ++i) {
            add_metadata("thread_name", row_of(i), {{"name", "worker " + std::to_string(i)}});
            add_metadata("thread_sort_index", row_of(i), {{"sort_index", i + 1}});
        }
    }

    void add_slice(std::string name, const char* category, std::size_t row, std::chrono::nanoseconds from,
                   std::chrono::nanoseconds to, json arguments) {
        json slice = event("X", std::move(name), row, from);
        slice["cat"] = category;
        slice["dur"] = microseconds(to - from);
        slice["args"] = std::move(arguments);
        elements_.add(slice);
    }

    void add_process(const TraceProcess& process) {
        const json arguments{{"process", process.pid}};
        add_slice("starting", "process", row_of(process.worker), process.requested, process.born, arguments);
        add_slice("initializing", "process", row_of(process.worker), process.born, process.ready, arguments);
    }

    json flow(const char* phase, std::size_t id, std::size_t row, std::chrono::nanoseconds at) const {
        json flow = event(phase, "queue", row, at);
        flow["cat"] = "queue";
        flow["id"] = id;
        return flow;
    }

    // Slices of a row must not overlap, and a flow begins in a slice: each submission is as long as there is room for, up to 1 us.
    void add_submissions() {
        std::vector<std::size_t> calls;
        for (std::size_t i = 0; i < trace_.events.size(); ++i) {
            if (trace_.events[i].inputs == 0) calls.push_back(i);
        }
        std::stable_sort(calls.begin(), calls.end(), [&](std::size_t a, std::size_t b) {
            return trace_.events[a].submitted < trace_.events[b].submitted;
        });
        for (std::size_t n = 0; n < calls.size(); ++n) {
            const TraceEvent& call = trace_.events[calls[n]];
            std::chrono::nanoseconds end = call.submitted + std::chrono::microseconds(1);
            if (n + 1 < calls.size()) end = std::min(end, trace_.events[calls[n + 1]].submitted);
            add_slice(label(trace_, call), "submitted", main_, call.submitted, end, json::object());
            elements_.add(flow("s", calls[n], main_, call.submitted));
        }
    }

    void add_task(const TraceEvent& task, std::size_t id) {
        json arguments{{"outcome", to_string(task.outcome)},
                       {"process", task.pid},
                       {"waited_us", microseconds(task.started - task.submitted)}};
        if (task.inputs != 0) {
            arguments["first_input"] = task.first_input;
            arguments["inputs"] = task.inputs;
        }
        add_slice(label(trace_, task), "task", row_of(task.worker), task.started, task.ended, std::move(arguments));
        if (task.inputs != 0) return;
        json end = flow("f", id, row_of(task.worker), task.started);
        end["bp"] = "e";    // binds to the slice around it
        elements_.add(end);
    }

    void add_failure(const PoolFailure& failure) {
        json mark = event("i", to_string(failure.outcome), row_of(failure.worker), failure.when);
        mark["cat"] = "failure";
        mark["s"] = "t";    // as high as its row
        mark["args"] = {{"what", failure.what},
                        {"process", failure.pid},
                        {"function", failure.function},
                        {"stack", failure.stack.to_string()}};
        elements_.add(mark);
    }

    const Trace& trace_;
    std::ostream& out_;
    Elements elements_;
    const std::size_t main_;
};

// What trace_page.html reads.
void write_page_data(const Trace& trace, std::ostream& out) {
    const auto escaped = [](const json& value) {
        std::string text = text_of(value, true);
        for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos;) text.replace(at, 1, "\\u003c");
        return text;
    };
    json processes = json::array();
    for (const TraceProcess& process : trace.processes) {
        processes.push_back({process.worker, process.pid, process.requested.count(), process.born.count(),
                             process.ready.count(), process.ended.count(), process.alive});
    }
    json failures = json::array();
    for (const PoolFailure& failure : trace.failures) {
        failures.push_back({{"when", failure.when.count()},
                            {"worker", failure.worker},
                            {"pid", failure.pid},
                            {"function", failure.function},
                            {"what", failure.what},
                            {"stack", failure.stack.to_string()}});
    }
    out << "{\"pool\":" << escaped(trace.pool) << ",\"pid\":" << trace.pid << ",\"elapsed\":" << trace.elapsed.count()
        << ",\"workers\":" << trace.workers << ",\"dropped\":" << trace.dropped
        << ",\"functions\":" << escaped(trace.functions) << ",\"processes\":" << escaped(processes)
        << ",\"failures\":" << escaped(failures) << ",\"events\":[";
    Elements events(out);
    for (const TraceEvent& event : trace.events) {
        events.add({event.worker, event.function, event.submitted.count(), event.started.count(), event.ended.count(),
                    static_cast<int>(event.outcome), event.first_input, event.inputs, event.pid});
    }
    out << "]}";
}

}    // namespace

void Trace::write_chrome_json(std::ostream& out) const { ChromeWriter(*this, out).write(); }

void Trace::write_chrome_json(const std::filesystem::path& path) const {
    write_file(path, [&](std::ostream& out) { write_chrome_json(out); });
}

void Trace::write_html(std::ostream& out) const {
    const std::string_view page = detail::kTracePage;
    const std::size_t place = page.find(detail::kTracePlace);
    out << page.substr(0, place);
    write_page_data(*this, out);
    out << page.substr(place + detail::kTracePlace.size());
}

void Trace::write_html(const std::filesystem::path& path) const {
    write_file(path, [&](std::ostream& out) { write_html(out); });
}

}    // namespace multihull
