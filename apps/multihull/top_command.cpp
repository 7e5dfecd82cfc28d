#include "top_command.hpp"

#include "command_line.hpp"
#include "failure.hpp"
#include "interrupt.hpp"
#include "observer.hpp"
#include "top_screen.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

// Without curses' macros, which would stand in for others' functions of the same names.
#define NCURSES_NOMACROS
#include <curses.h>

namespace app {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kKeyPatience = std::chrono::milliseconds(100);    // so long until a signal is noticed
constexpr std::size_t kPlainWidth = 200;                         // of a line where there is no terminal

/// The terminal as curses has it, given back as it was.
class Terminal {
public:
    Terminal() : screen_(newterm(nullptr, stdout, stdin)) {
        if (screen_ == nullptr) {
            throw EnvironmentError("This terminal can't be drawn on (TERM says which it is): use --once or --json.");
        }
        cbreak();
        noecho();
        keypad(stdscr, TRUE);
        curs_set(0);
        wtimeout(stdscr, static_cast<int>(kKeyPatience.count()));
        if (has_colors() == TRUE) {
            start_color();
            use_default_colors();
            init_pair(1, COLOR_CYAN, -1);
            init_pair(2, COLOR_GREEN, -1);
            init_pair(3, COLOR_RED, -1);
        }
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;
    ~Terminal() {
        endwin();
        delscreen(screen_);
    }

    std::size_t width() const { return static_cast<std::size_t>(std::max(getmaxx(stdscr), 1)); }
    std::size_t height() const { return static_cast<std::size_t>(std::max(getmaxy(stdscr), 1)); }

    void draw(const std::vector<ScreenLine>& lines, std::size_t first) const {
        werase(stdscr);
        const std::size_t rows = height() - 1;
        for (std::size_t row = 0; row < rows && first + row < lines.size(); ++row) {
            put(row, lines[first + row]);
        }
        const bool more = first + rows < lines.size() || first > 0;
        put(rows, {Tone::faint, more ? "q quits, arrows and page keys move" : "q quits"});
        wrefresh(stdscr);
    }

    int key() const { return wgetch(stdscr); }

private:
    static chtype attributes(Tone tone) {
        switch (tone) {
            case Tone::title:
                return A_BOLD;
            case Tone::head:
                return A_BOLD | static_cast<chtype>(COLOR_PAIR(1));
            case Tone::busy:
                return static_cast<chtype>(COLOR_PAIR(2));
            case Tone::bad:
                return static_cast<chtype>(COLOR_PAIR(3));
            case Tone::faint:
                return A_DIM;
            case Tone::plain:
                break;
        }
        return A_NORMAL;
    }

    void put(std::size_t row, const ScreenLine& line) const {
        wattrset(stdscr, static_cast<int>(attributes(line.tone)));
        mvwaddnstr(stdscr, static_cast<int>(row), 0, line.text.c_str(), static_cast<int>(width()));
        wattrset(stdscr, A_NORMAL);
    }

    SCREEN* const screen_;
};

/// How many lines the view moves for a key.
std::ptrdiff_t movement(int key, std::size_t page) {
    switch (key) {
        case KEY_DOWN:
        case 'j':
            return 1;
        case KEY_UP:
        case 'k':
            return -1;
        case KEY_NPAGE:
        case ' ':
            return static_cast<std::ptrdiff_t>(page);
        case KEY_PPAGE:
            return -static_cast<std::ptrdiff_t>(page);
        default:
            return 0;
    }
}

void show_live(const TopOptions& options) {
    if (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0) {
        throw EnvironmentError("multihull top needs a terminal: use --once or --json where there is none.");
    }
    watch_for_interrupts();
    Observer observer;
    const Terminal terminal;
    const std::chrono::duration<double> interval(options.interval);
    std::size_t first = 0;
    std::vector<ProgramView> programs;
    for (auto next = Clock::now(); interrupted_by() == 0;) {
        if (Clock::now() >= next) {
            programs = observer.look();
            next = Clock::now() + std::chrono::duration_cast<Clock::duration>(interval);
        }
        const std::vector<ScreenLine> lines = top_lines(programs, terminal.width());
        const std::size_t page = terminal.height() - 1;
        const std::size_t last = lines.size() > page ? lines.size() - page : 0;
        first = std::min(first, last);
        terminal.draw(lines, first);
        const int key = terminal.key();
        if (key == 'q' || key == 'Q') {
            return;
        }
        const std::ptrdiff_t target = static_cast<std::ptrdiff_t>(first) + movement(key, page);
        first = static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(target, 0, static_cast<std::ptrdiff_t>(last)));
    }
}

/// Two looks, so that there is a speed.
std::vector<ProgramView> look_twice(const TopOptions& options) {
    Observer observer;
    observer.look();
    std::this_thread::sleep_for(std::chrono::duration<double>(options.interval));
    return observer.look();
}

}    // namespace

CLI::App* add_top_command(CLI::App& program, const std::shared_ptr<TopOptions>& options) {
    CLI::App* command = program.add_subcommand(
        "top", "Shows the pools of your running programs: workers, what they are at, speed, memory, deaths and why.");
    command->add_option("--interval", options->interval, "Seconds from one look to the next")
        ->check(number_between(0.1, 3600))
        ->capture_default_str()
        ->type_name("SECONDS");
    CLI::Option* once = command->add_flag("--once", options->once, "Prints what there is after one interval, and ends");
    command->add_flag("--json", options->json, "The same for scripts")->excludes(once);
    command->footer(
        "Programs are seen that publish their pools: those started with the environment variable MULTIHULL_MONITOR=1,\n"
        "and those that set PoolOptions::publish. Keys: q quits, arrows and page keys move.");
    return command;
}

int run_top_command(const TopOptions& options) {
    if (options.json) {
        fmt::print("{}\n", to_json(look_twice(options)).dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
    } else if (options.once) {
        for (const ScreenLine& line : top_lines(look_twice(options), kPlainWidth)) {
            fmt::print("{}\n", line.text);
        }
    } else {
        show_live(options);
    }
    return 0;
}

}    // namespace app
